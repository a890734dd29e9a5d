package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tholedb/thole/internal/engine"
)

func TestBeginOptions(t *testing.T) {
	t.Parallel()
	e := open(t)
	tests := []struct {
		name string
		opts engine.Options
		want string // isolation, read-only, deferrable, lock_timeout, statement_timeout
	}{
		{"zero", engine.Options{}, "read committed off off 0 0"},
		{"read uncommitted", engine.Options{Isolation: sql.LevelReadUncommitted}, "read uncommitted off off 0 0"},
		{"read committed", engine.Options{Isolation: sql.LevelReadCommitted}, "read committed off off 0 0"},
		{"repeatable read", engine.Options{Isolation: sql.LevelRepeatableRead}, "repeatable read off off 0 0"},
		{"snapshot", engine.Options{Isolation: sql.LevelSnapshot}, "repeatable read off off 0 0"},
		{
			"serializable read only deferrable",
			engine.Options{Isolation: sql.LevelSerializable, ReadOnly: true, Deferrable: true},
			"serializable on on 0 0",
		},
		{
			"timeouts are rounded up",
			engine.Options{LockTimeout: time.Microsecond, StatementTimeout: 1500*time.Millisecond + 1},
			"read committed off off 1ms 1501ms",
		},
		{
			"timeouts longer than an int32",
			engine.Options{StatementTimeout: 1000 * time.Hour, LockTimeout: 1<<63 - 1},
			"read committed off off 2147483647ms 2147483647ms",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := begin(t, e, test.opts)
			defer s.Rollback(testContext(t), nil)
			got := mustQuery(t, s, `select concat_ws(' ', current_setting('transaction_isolation'),
				current_setting('transaction_read_only'), current_setting('transaction_deferrable'),
				current_setting('lock_timeout'), current_setting('statement_timeout'))`)
			if diff := cmp.Diff([]any{test.want}, got); diff != "" {
				t.Errorf("settings (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTimeoutsEndWithTheSession(t *testing.T) {
	t.Parallel()
	e := open(t, maxConns(1))
	s := begin(t, e, engine.Options{LockTimeout: time.Second, StatementTimeout: time.Second})
	if out, err := s.Commit(testContext(t), false); out != engine.Committed || err != nil {
		t.Fatalf("Commit = %d, %v", out, err)
	}
	got := once(t, e, "select current_setting('lock_timeout') || ' ' || current_setting('statement_timeout')")
	if diff := cmp.Diff([]any{"0 0"}, got); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
}

func TestBeginUnsupported(t *testing.T) {
	t.Parallel()
	e := open(t)
	before := e.pool.Stat().AcquireCount()
	for _, level := range []sql.IsolationLevel{sql.LevelWriteCommitted, sql.LevelLinearizable, 99} {
		if _, err := e.Begin(testContext(t), engine.Options{Isolation: level}); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("Begin at %s: got %v, want errors.ErrUnsupported", level, err)
		}
	}
	if got := e.pool.Stat().AcquireCount(); got != before {
		t.Errorf("connections taken: got %d, want %d", got, before)
	}
}

func TestBeginDropsDeadConnections(t *testing.T) {
	t.Parallel()
	e := open(t, maxConns(3))
	var open []*session
	for range 3 {
		open = append(open, begin(t, e, engine.Options{}))
	}
	for _, s := range open {
		pid := s.conn.wire.PID()
		if _, err := s.Rollback(testContext(t), nil); err != nil {
			t.Fatal(err)
		}
		terminate(t, e, pid)
	}
	s := begin(t, e, engine.Options{})
	if _, err := s.Rollback(testContext(t), nil); err != nil {
		t.Error(err)
	}
}

func TestBeginKeepsConnectionAfterServerError(t *testing.T) {
	t.Parallel()
	e := open(t, maxConns(1))
	if err := e.Ping(testContext(t)); err != nil {
		t.Fatal(err)
	}
	before := e.pool.Stat().NewConnsCount()
	_, err := e.take(testContext(t), func(c *conn) error { return c.say(testContext(t), "begin; set local lock_timeout = 'x'") })
	if failed := explained(t, err); failed.Code != "22023" {
		t.Errorf("got %v, want SQLSTATE 22023", err)
	}
	s := begin(t, e, engine.Options{})
	defer s.Rollback(testContext(t), nil)
	if got := e.pool.Stat().NewConnsCount(); got != before {
		t.Errorf("connections made: got %d, want %d", got, before)
	}
}

func TestPoolExhausted(t *testing.T) {
	t.Parallel()
	e := open(t, maxConns(1))
	info := &engine.Info{Label: "forge", Caller: engine.Here(), Began: time.Now()}
	e.env.Sessions.Add(info)
	s := begin(t, e, engine.Options{Info: info})
	defer s.Rollback(testContext(t), nil)

	ctx, cancel := context.WithTimeout(testContext(t), 20*time.Millisecond)
	defer cancel()
	waiting := openSession(t, e, engine.Options{})
	err := exec(ctx, waiting, "select 1")
	if failed := wantKind(t, err, engine.ErrTimeout); failed.Aborts != engine.AbortsNothing {
		t.Errorf("extent: got %d, want %d: nothing was sent", failed.Aborts, engine.AbortsNothing)
	}
	if _, err := waiting.Rollback(testContext(t), err); err != nil {
		t.Error(err)
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v does not match context.DeadlineExceeded", err)
	}
	for _, want := range []string{"pool exhausted (max 1)", `1 sessions open, the oldest: session "forge"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not say %q", err, want)
		}
	}

	gone := errors.New("client went away")
	ctx, stop := context.WithCancelCause(testContext(t))
	stop(gone)
	_, err = e.Conn(ctx)
	wantKind(t, err, nil)
	if !errors.Is(err, context.Canceled) || !errors.Is(err, gone) {
		t.Errorf("%v does not match context.Canceled and its cause", err)
	}
}

func TestCancelledSessionsKeepTheirConnection(t *testing.T) {
	t.Parallel()
	e := open(t, maxConns(1))
	pid := once(t, e, "select pg_backend_pid()")
	before := e.pool.Stat().NewConnsCount()
	for range 50 {
		s := begin(t, e, engine.Options{})
		ctx, cancel := context.WithTimeout(testContext(t), 2*time.Millisecond)
		_, err := query(ctx, s, "select pg_sleep(60)")
		cancel()
		failed := wantKind(t, err, engine.ErrTimeout)
		if !errors.Is(err, context.DeadlineExceeded) || failed.Retry != engine.RetryNever {
			t.Errorf("got %v, retry %v, want context.DeadlineExceeded and no retry", err, failed.Retry)
		}
		if _, err := s.Rollback(testContext(t), err); err != nil {
			t.Fatal(err)
		}
		once(t, e, "select pg_sleep(0.002)") // where a stray cancel would strike
	}
	if got := once(t, e, "select pg_backend_pid()"); !cmp.Equal(got, pid) {
		t.Errorf("backend: got %v, want %v", got, pid)
	}
	if got := e.pool.Stat().NewConnsCount(); got != before {
		t.Errorf("connections made: got %d, want %d", got, before)
	}
}

func TestCancelledStatement(t *testing.T) {
	t.Parallel()
	e := open(t)
	s := begin(t, e, engine.Options{})
	defer s.Rollback(testContext(t), nil)
	gone := errors.New("client went away")
	ctx, stop := context.WithCancelCause(testContext(t))
	time.AfterFunc(10*time.Millisecond, func() { stop(gone) })
	err := exec(ctx, s, "select pg_sleep(60)")
	failed := wantKind(t, err, nil)
	if failed.Code != "57014" || failed.Aborts != engine.AbortsLevel {
		t.Errorf("got code %s and extent %d, want 57014 and %d", failed.Code, failed.Aborts, engine.AbortsLevel)
	}
	if !errors.Is(err, context.Canceled) || !errors.Is(err, gone) || !errors.As(err, new(*pgconn.PgError)) {
		t.Errorf("%v does not match context.Canceled, its cause and *pgconn.PgError", err)
	}

	err = exec(ctx, s, "select 1")
	if failed := wantKind(t, err, nil); failed.Aborts != engine.AbortsLevel || !errors.Is(err, context.Canceled) {
		t.Errorf("statement under a done context: got %v, extent %d", err, failed.Aborts)
	}
}

func TestServerTimeouts(t *testing.T) {
	t.Parallel()
	e := open(t)
	setUp(t, e, "create table t (id int primary key)", "insert into t values (1)")
	holder := begin(t, e, engine.Options{})
	defer holder.Rollback(testContext(t), nil)
	mustExec(t, holder, "select * from t where id = 1 for update")

	s := begin(t, e, engine.Options{StatementTimeout: 10 * time.Millisecond})
	err := exec(testContext(t), s, "select pg_sleep(60)")
	if failed := wantKind(t, err, engine.ErrTimeout); failed.Retry != engine.RetryNever {
		t.Errorf("statement_timeout: got retry %d, want %d", failed.Retry, engine.RetryNever)
	}
	s.Rollback(testContext(t), nil)

	s = begin(t, e, engine.Options{LockTimeout: 10 * time.Millisecond})
	err = exec(testContext(t), s, "update t set id = 2 where id = $1", 1)
	if failed := wantKind(t, err, engine.ErrLocked); failed.Retry != engine.RetryAsked || failed.Code != "55P03" {
		t.Errorf("lock_timeout: got %v, retry %d", err, failed.Retry)
	}
	s.Rollback(testContext(t), nil)
}

func TestSavepoints(t *testing.T) {
	t.Parallel()
	e := open(t)
	setUp(t, e, "create table t (id int primary key)")
	ctx := testContext(t)
	s := begin(t, e, engine.Options{})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	mustExec(t, s, "insert into t values (1)")
	must(s.Savepoint(ctx, false))
	mustExec(t, s, "insert into t values (2)")
	must(s.Savepoint(ctx, false))
	mustExec(t, s, "insert into t values (3)")
	if failed := explained(t, exec(ctx, s, "insert into t values (1)")); failed.Aborts != engine.AbortsLevel {
		t.Errorf("extent of a unique violation: got %d, want %d", failed.Aborts, engine.AbortsLevel)
	}
	if err := s.Release(ctx); !errors.Is(err, engine.ErrTxAborted) {
		t.Errorf("Release of an aborted savepoint: got %v, want ErrTxAborted", err)
	}
	must(s.RollbackTo(ctx))
	must(s.Release(ctx))
	must(s.Savepoint(ctx, false))
	mustExec(t, s, "insert into t values (4)")
	must(s.RollbackTo(ctx))
	if out, err := s.Commit(ctx, false); out != engine.Committed || err != nil {
		t.Fatalf("Commit = %v, %v", out, err)
	}
	if diff := cmp.Diff([]any{int64(1), int64(2)}, once(t, e, "select id from t order by id")); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

func TestReadOnlySavepoint(t *testing.T) {
	t.Parallel()
	e := open(t)
	setUp(t, e, "create table t (id int)")
	ctx := testContext(t)
	for name, end := range map[string]func(*session) error{
		"release":  func(s *session) error { return s.Release(ctx) },
		"rollback": func(s *session) error { return s.RollbackTo(ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := begin(t, e, engine.Options{})
			defer s.Rollback(ctx, nil)
			if err := s.Savepoint(ctx, true); err != nil {
				t.Fatal(err)
			}
			if name == "rollback" {
				wantKind(t, exec(ctx, s, "insert into t values (1)"), engine.ErrReadOnly)
			}
			if err := end(s); err != nil {
				t.Fatal(err)
			}
			mustExec(t, s, "insert into t values (1)")
		})
	}
}

func TestNoSubtransactionsLeft(t *testing.T) {
	t.Parallel()
	e := open(t)
	ctx := testContext(t)
	s := begin(t, e, engine.Options{})
	defer s.Rollback(ctx, nil)
	// The transaction itself has one such context; each subtransaction that is
	// open, or was kept, has another.
	const live = "select count(*) from pg_backend_memory_contexts where name = 'CurTransactionContext'"
	before := mustQuery(t, s, live)
	for i := range 2000 {
		if err := s.Savepoint(ctx, false); err != nil {
			t.Fatal(err)
		}
		var err error
		if i%2 == 0 {
			exec(ctx, s, "select 1/0")
			err = s.RollbackTo(ctx)
		} else {
			err = s.Release(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(before, mustQuery(t, s, live)); diff != "" {
		t.Errorf("subtransactions (-want +got):\n%s", diff)
	}
}

//nolint:paralleltest,tparallel // the subtests have two connections between them
func TestBackendTerminatedBetweenStatements(t *testing.T) {
	t.Parallel()
	e := open(t, maxConns(2))
	setUp(t, e, "create table t (id int)")
	ctx := testContext(t)
	for _, end := range []string{"commit", "rollback", "rollback for the same cause"} {
		t.Run(end, func(t *testing.T) {
			s := begin(t, e, engine.Options{})
			mustExec(t, s, "insert into t values (1)")
			terminate(t, e, s.conn.wire.PID())

			first := wantKind(t, exec(ctx, s, "insert into t values ($1)", 2), engine.ErrConnLost)
			if first.Retry != engine.RetryAsked || first.Aborts != engine.AbortsSession {
				t.Errorf("first failure: got retry %d, extent %d", first.Retry, first.Aborts)
			}
			_, err := query(ctx, s, "select 1")
			if failed := wantKind(t, err, engine.ErrConnLost); failed.Err != first.Err {
				t.Errorf("second failure wraps %v, want the first's %v", failed.Err, first.Err)
			}
			if _, err := s.PrepareContext(ctx, "select 1"); err == nil {
				t.Error("PrepareContext on a lost connection: got no error")
			} else {
				wantKind(t, s.Failed(ctx, err), engine.ErrConnLost)
			}
			if err := s.Savepoint(ctx, false); err != nil { // sends nothing
				t.Error(err)
			}
			wantKind(t, exec(ctx, s, "select 2"), engine.ErrConnLost)

			cause := errors.New("the caller's")
			switch end {
			case "commit":
				out, err := s.Commit(ctx, true)
				wantKind(t, err, engine.ErrConnLost)
				if out != engine.RolledBack {
					t.Errorf("outcome of a COMMIT that was never sent: got %d, want %d", out, engine.RolledBack)
				}
			case "rollback":
				_, err := s.Rollback(ctx, cause)
				wantKind(t, err, engine.ErrConnLost)
				if !errors.Is(err, cause) {
					t.Errorf("Rollback = %v, does not match its cause", err)
				}
			default:
				if _, err := s.Rollback(ctx, fmt.Errorf("fn: %w", first)); err != nil {
					t.Errorf("Rollback for a lost connection = %v, want nil", err)
				}
			}
			if got := count(t, e, "t"); got != 0 {
				t.Errorf("rows: got %d, want 0", got)
			}
		})
	}
}

func TestConnectionLostUnderStatement(t *testing.T) {
	t.Parallel()
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeSimpleProtocol} {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			cut := &cutter{answer: true}
			e := open(t, cut.configure, execMode(mode))
			setUp(t, e, "create table t (id int)")
			ctx := testContext(t)
			for _, run := range []func(*session) error{
				func(s *session) error { return exec(ctx, s, "insert into t values (1) -- cut") },
				func(s *session) error { return exec(ctx, s, "insert into t values ($1) -- cut", 1) },
				func(s *session) error { _, err := query(ctx, s, "select 1 -- cut"); return err },
				func(s *session) error {
					_, err := s.PrepareContext(ctx, "select 1 -- cut")
					return s.Failed(ctx, err)
				},
			} {
				s := begin(t, e, engine.Options{})
				cut.arm("-- cut")
				err := run(s)
				failed := wantKind(t, err, engine.ErrConnLost)
				if failed.Aborts != engine.AbortsSession || failed.Retry != engine.RetryAsked {
					t.Errorf("got extent %d, retry %d", failed.Aborts, failed.Retry)
				}
				s.Rollback(ctx, err)
			}
			if got := count(t, e, "t"); got != 0 {
				t.Errorf("rows: got %d, want 0", got)
			}
		})
	}
}

func TestRollbackFails(t *testing.T) {
	t.Parallel()
	cut := &cutter{}
	e := open(t, cut.configure, maxConns(1))
	s := begin(t, e, engine.Options{})
	cut.arm("rollback")
	cause := errors.New("the caller's")
	outcome, err := s.Rollback(testContext(t), cause)
	wantKind(t, err, engine.ErrConnLost)
	if outcome != engine.RolledBack || !errors.Is(err, cause) {
		t.Errorf("Rollback = %d, %v, want %d and its cause", outcome, err, engine.RolledBack)
	}
	once(t, e, "select 1") // the connection has been replaced
}

func TestRollbackUnderDoneContext(t *testing.T) {
	t.Parallel()
	e := open(t, maxConns(1))
	s := begin(t, e, engine.Options{})
	pid := s.conn.wire.PID()
	ctx, cancel := context.WithCancel(testContext(t))
	cancel()
	if outcome, err := s.Rollback(ctx, nil); outcome != engine.RolledBack || err != nil {
		t.Errorf("Rollback = %d, %v, want %d, nil", outcome, err, engine.RolledBack)
	}
	if got := once(t, e, "select pg_backend_pid()"); got[0] != int64(pid) {
		t.Error("the connection was not given back")
	}
}

func TestStatementThatEndsTheTransaction(t *testing.T) {
	t.Parallel()
	e := open(t, maxConns(1))
	ctx := testContext(t)
	for i, text := range []string{"commit", "rollback", "commit; begin", "commit; begin; select 1"} {
		s := begin(t, e, engine.Options{})
		wantKind(t, exec(ctx, s, text), engine.ErrTxControl)
		out, err := s.Commit(ctx, false)
		if failed := wantKind(t, err, engine.ErrTxControl); out != engine.Unknown || failed.Retry != engine.RetryForbidden {
			t.Errorf("Commit after %q: got outcome %d, retry %d", text, out, failed.Retry)
		}
		s = begin(t, e, engine.Options{})
		wantKind(t, exec(ctx, s, text), engine.ErrTxControl)
		if failed := wantKind(t, exec(ctx, s, "select 1"), engine.ErrTxControl); failed.Aborts != engine.AbortsSession {
			t.Errorf("extent of a failure after %q: got %d, want %d", text, failed.Aborts, engine.AbortsSession)
		}
		out, err = s.Rollback(ctx, nil)
		if wantKind(t, err, engine.ErrTxControl); out != engine.Unknown {
			t.Errorf("Rollback after %q: got outcome %d, want %d", text, out, engine.Unknown)
		}
		if got, want := e.pool.Stat().NewConnsCount(), int64(2*i+2); got != want {
			t.Errorf("connections made: got %d, want %d: nobody else gets one whose state is not known", got, want)
		}
	}
}

func TestPreparedStatement(t *testing.T) {
	t.Parallel()
	e := open(t)
	setUp(t, e, "create table t (id int)")
	s := begin(t, e, engine.Options{})
	defer s.Rollback(testContext(t), nil)
	prepared, err := s.PrepareContext(testContext(t), "insert into t values ($1) returning id")
	if err != nil {
		t.Fatal(err)
	}
	if got := prepared.NumInput(); got != 1 {
		t.Errorf("NumInput() = %d, want 1", got)
	}
	result, err := prepared.(*stmt).ExecContext(testContext(t), named([]any{1}))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := result.RowsAffected(); n != 1 || err != nil {
		t.Errorf("RowsAffected() = %d, %v, want 1", n, err)
	}
	rows, err := prepared.(*stmt).QueryContext(testContext(t), named([]any{2}))
	if err != nil {
		t.Fatal(err)
	}
	if err := rows.Close(); err != nil {
		t.Error(err)
	}
	if err := prepared.Close(); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]any{int64(1), int64(2)}, mustQuery(t, s, "select id from t order by id")); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

func TestStatementWhileRowsAreOpen(t *testing.T) {
	t.Parallel()
	e := open(t)
	s := begin(t, e, engine.Options{})
	defer s.Rollback(testContext(t), nil)
	rows, err := s.QueryContext(testContext(t), "select generate_series(1, 10000)", nil)
	if err != nil {
		t.Fatal(err)
	}
	err = exec(testContext(t), s, "select 1")
	if failed := explained(t, err); !errors.Is(err, errBusy) || failed.Aborts != engine.AbortsNothing {
		t.Errorf("got %v, extent %d, want errBusy that aborts nothing", err, failed.Aborts)
	}
	if err := rows.Close(); err != nil {
		t.Error(err)
	}
	mustExec(t, s, "select 1")
}

// TestServerTurnedReadOnly has the server refuse a write where the session may
// write, as after a failover: another server can do it, and nobody else gets the
// connection. Where the session reads it is its own doing.
func TestServerTurnedReadOnly(t *testing.T) {
	t.Parallel()
	e := open(t, maxConns(1))
	setUp(t, e, "create table t (id int)")
	ctx := testContext(t)
	const write = "insert into t values (1)"
	made := func() int64 { return e.pool.Stat().NewConnsCount() }
	refused := func(s *session, want engine.Retry) {
		t.Helper()
		if failed := wantKind(t, exec(ctx, s, write), engine.ErrReadOnly); failed.Retry != want {
			t.Errorf("retry: got %d, want %d", failed.Retry, want)
		}
	}
	end := func(s *session) {
		t.Helper()
		if _, err := s.Rollback(ctx, nil); err != nil {
			t.Error(err)
		}
	}
	reader := begin(t, e, engine.Options{ReadOnly: true})
	refused(reader, engine.RetryNever)
	end(reader)
	nested := begin(t, e, engine.Options{})
	for _, readOnly := range []bool{true, false} {
		if err := nested.Savepoint(ctx, readOnly); err != nil {
			t.Fatal(err)
		}
	}
	refused(nested, engine.RetryNever)
	end(nested)
	once(t, e, "select 1")
	if got := made(); got != 1 {
		t.Errorf("connections made: got %d, want 1", got)
	}
	writer := begin(t, e, engine.Options{})
	if err := writer.Savepoint(ctx, true); err != nil {
		t.Fatal(err)
	}
	if err := writer.Release(ctx); err != nil {
		t.Fatal(err)
	}
	mustExec(t, writer, "set local transaction_read_only = on") // as the server may be by itself
	refused(writer, engine.RetryAsked)
	end(writer)
	once(t, e, "select 1")
	if got := made(); got != 2 {
		t.Errorf("connections made: got %d, want another one", got)
	}
}

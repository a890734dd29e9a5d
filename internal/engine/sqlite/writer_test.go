package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/tholedb/thole/internal/engine"
)

// watched counts what reaches a connection of the driver.
type watched struct {
	driverConn
	mu       sync.Mutex
	prepared map[string]int
	ran      []string
	before   atomic.Pointer[func()] // is called before a statement is prepared or run, if it is set
}

func (w *watched) arrive() {
	if before := w.before.Load(); before != nil {
		(*before)()
	}
}

// watch has the writer's connection counted. It has run nothing of a session yet.
func watch(t *testing.T, e *Engine) *watched {
	t.Helper()
	c := e.writer.slot.conn
	w := &watched{driverConn: c.raw, prepared: map[string]int{}}
	c.raw = w
	return w
}

func (w *watched) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	w.arrive()
	s, err := w.driverConn.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.prepared[query]++
	return &watchedStmt{s.(driverStmt), w, query}, nil
}

type watchedStmt struct {
	driverStmt
	conn *watched
	text string
}

func (s *watchedStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	s.conn.arrive()
	s.conn.mu.Lock()
	s.conn.ran = append(s.conn.ran, s.text)
	s.conn.mu.Unlock()
	return s.driverStmt.ExecContext(ctx, args)
}

// take returns what was run since the last call.
func (w *watched) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	ran := w.ran
	w.ran = nil
	return ran
}

func (w *watched) count(text string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, ran := range w.ran {
		if ran == text {
			n++
		}
	}
	return n
}

// members are sessions each of which waits for the writer before the one in front of it ends.
type members []func(ctx context.Context, s engine.Session) error

// leads is a session that has added 1, and whose transaction others may join.
func leads(t *testing.T, e *Engine) engine.Session {
	t.Helper()
	s := begin(t, e, engine.Options{})
	e.writer.cost = time.Hour
	exec(t, s, "INSERT INTO t VALUES (1)")
	return s
}

// told is what a session ended with.
type told struct {
	outcome engine.Outcome
	err     error
}

// run returns what the members are told. One that fails is rolled back.
func (ms members) run(t *testing.T, e *Engine, opts ...engine.Options) []told {
	t.Helper()
	e.writer.cost = time.Hour // no transaction is too old to be joined
	all := make([]told, len(ms))
	begun, start := make(chan struct{}), make(chan struct{})
	var ended sync.WaitGroup
	for i, run := range ms {
		ended.Go(func() {
			var o engine.Options
			if i < len(opts) {
				o = opts[i]
			}
			s, err := e.Begin(t.Context(), o)
			if err == nil && i == 0 {
				err = s.(*session).begin(t.Context(), "")
				close(begun)
				<-start
			}
			if err == nil {
				err = run(t.Context(), s)
			}
			all[i] = end(t.Context(), s, err)
		})
		if i == 0 {
			<-begun
		}
		queued(t, e.writer.line, i)
	}
	close(start)
	ended.Wait()
	return all
}

func end(ctx context.Context, s engine.Session, err error) told {
	if err == nil {
		outcome, err := s.Commit(ctx, true)
		return told{outcome, err}
	}
	outcome, failed := s.Rollback(ctx, err)
	if failed != nil {
		err = failed
	}
	return told{outcome, err}
}

// adds is a member that adds a row.
func adds(n int) func(context.Context, engine.Session) error {
	return func(ctx context.Context, s engine.Session) error {
		_, err := s.ExecContext(ctx, "INSERT INTO t VALUES (?)", values([]any{int64(n)}))
		return err
	}
}

// runs is a member that runs statements, and explains how they failed as its caller would have it.
func runs(texts ...string) func(context.Context, engine.Session) error {
	return func(ctx context.Context, s engine.Session) error {
		for _, text := range texts {
			if _, err := s.ExecContext(ctx, text, nil); err != nil {
				return s.Failed(ctx, err)
			}
		}
		return nil
	}
}

func committedAll(t *testing.T, all []told, which ...int) {
	t.Helper()
	for _, i := range which {
		if all[i].err != nil || all[i].outcome != engine.Committed {
			t.Errorf("member %d: got %v, %v, want that it is committed", i, all[i].outcome, all[i].err)
		}
	}
}

func inT(t *testing.T, e *Engine) (all []int64) {
	t.Helper()
	for _, row := range rowsOf(t, auto(t, e), "SELECT a FROM t ORDER BY a") {
		all = append(all, row[0].(int64))
	}
	return all
}

func wantRows(t *testing.T, e *Engine, want ...int64) {
	t.Helper()
	if diff := cmp.Diff(want, inT(t, e)); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

// shop is a database for groups.
func shop(t *testing.T) (*Engine, *watched) {
	t.Helper()
	e := open(t, file(t))
	run(t, e, "CREATE TABLE t (a INTEGER PRIMARY KEY)")
	run(t, e, "CREATE TABLE child (a REFERENCES t DEFERRABLE INITIALLY DEFERRED)")
	w := watch(t, e)
	for _, s := range e.writer.slot.conn.ours {
		_ = s.Close()
	}
	clear(e.writer.slot.conn.ours)
	return e, w
}

var errOwn = errors.New("own")

func TestAloneASessionPaysNothing(t *testing.T) {
	t.Parallel()
	e, w := shop(t)
	for n := range 3 {
		all := members{adds(n)}.run(t, e)
		committedAll(t, all, 0)
		want := []string{"BEGIN IMMEDIATE", "INSERT INTO t VALUES (?)", "COMMIT"}
		if diff := cmp.Diff(want, w.take()); diff != "" {
			t.Errorf("statements (-want +got):\n%s", diff)
		}
	}
	for text, n := range w.prepared {
		same(t, text, n, 1)
	}
}

func TestSessionsShareACommit(t *testing.T) {
	t.Parallel()
	e, w := shop(t)
	committedAll(t, members{adds(1), adds(2), adds(3)}.run(t, e), 0, 1, 2)
	want := []string{
		"BEGIN IMMEDIATE", "INSERT INTO t VALUES (?)",
		"SAVEPOINT thole_session", "INSERT INTO t VALUES (?)", "RELEASE thole_session",
		"SAVEPOINT thole_session", "INSERT INTO t VALUES (?)", "RELEASE thole_session",
		"COMMIT",
	}
	if diff := cmp.Diff(want, w.take()); diff != "" {
		t.Errorf("statements (-want +got):\n%s", diff)
	}
	wantRows(t, e, 1, 2, 3)
}

// Sixty-four goroutines share as many transactions as it takes to wait for the disk an eighth as often, and prepare
// nothing twice.
func TestManySessionsShareACommit(t *testing.T) {
	t.Parallel()
	const goroutines, each = 64, 20
	e, w := shop(t)
	var all sync.WaitGroup
	for g := range goroutines {
		all.Go(func() {
			for i := range each {
				s, err := e.Begin(t.Context(), engine.Options{})
				if err == nil {
					err = adds(g*each+i)(t.Context(), s)
				}
				if got := end(t.Context(), s, err); got.err != nil {
					t.Error(got.err)
				}
			}
		})
	}
	all.Wait()
	commits := w.count("COMMIT")
	t.Logf("%d sessions, %d commits", goroutines*each, commits)
	if goroutines*each < 8*commits {
		t.Errorf("sessions a commit: got %d in %d, want at least 8", goroutines*each, commits)
	}
	for text, n := range w.prepared {
		same(t, text, n, 1)
	}
	same(t, "rows", len(inT(t, e)), goroutines*each)
}

// Each of these is the second of three sessions that share a transaction, and fails alone.
func TestAMemberFailsAlone(t *testing.T) {
	t.Parallel()
	cancelled := func(ctx context.Context, s engine.Session) error {
		if err := adds(2)(ctx, s); err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		return adds(4)(ctx, s)
	}
	for name, test := range map[string]struct {
		run  func(context.Context, engine.Session) error
		want error
	}{
		"an error":         {func(ctx context.Context, s engine.Session) error { return errors.Join(adds(2)(ctx, s), errOwn) }, errOwn},
		"a constraint":     {runs("INSERT INTO t VALUES (2)", "INSERT INTO t VALUES (1)"), engine.ErrUnique},
		"a foreign key":    {runs("INSERT INTO t VALUES (2)", "INSERT INTO child VALUES (9)"), engine.ErrForeignKey},
		"a syntax error":   {runs("INSERT INTO t VALUES (2)", "INSERT INTO"), nil},
		"a context":        {cancelled, context.Canceled},
		"transaction text": {runs("INSERT INTO t VALUES (2)", "COMMIT"), engine.ErrTxControl},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, w := shop(t)
			all := members{adds(1), test.run, adds(3)}.run(t, e)
			committedAll(t, all, 0, 2)
			if all[1].err == nil || all[1].outcome != engine.RolledBack {
				t.Errorf("got %v, %v, want that it failed", all[1].outcome, all[1].err)
			}
			if test.want != nil {
				is(t, all[1].err, test.want)
			}
			wantRows(t, e, 1, 3)
			if n := w.count("BEGIN IMMEDIATE"); n != 1 {
				t.Errorf("transactions: got %d, want 1", n)
			}
		})
	}
}

// A member's ctx ends before each call of the driver, one after the other: it is there as a whole or not at all, and
// the others are there.
func TestAMemberIsCancelledAnywhere(t *testing.T) {
	t.Parallel()
	const most = 100
	for at := int64(1); ; at++ {
		e, w := shop(t)
		var calls atomic.Int64
		all := members{adds(1), func(ctx context.Context, s engine.Session) error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			before := func() {
				if calls.Add(1) == at {
					cancel()
				}
			}
			w.before.Store(&before)
			err := errors.Join(adds(2)(ctx, s), nested(adds(20))(ctx, s), adds(21)(ctx, s))
			w.before.Store(nil)
			return errors.Join(err, ctx.Err()) // as WithSession looks before it commits
		}, adds(3)}.run(t, e)
		committedAll(t, all, 0, 2)
		if calls.Load() < at {
			committedAll(t, all, 1)
			wantRows(t, e, 1, 2, 3, 20, 21)
			t.Logf("%d points", calls.Load())
			return
		}
		if at == most {
			t.Fatalf("calls: got %d and no end", at)
		}
		is(t, all[1].err, context.Canceled)
		same(t, "outcome", all[1].outcome, engine.RolledBack)
		same(t, "transactions", w.count("BEGIN IMMEDIATE"), 1)
		wantRows(t, e, 1, 3)
	}
}

// A deferred foreign key that is in order again by the end is nobody's failure.
func TestDeferredForeignKeyInAGroup(t *testing.T) {
	t.Parallel()
	e, w := shop(t)
	all := members{
		runs("INSERT INTO child VALUES (1)", "INSERT INTO t VALUES (1)"),
		runs("INSERT INTO child VALUES (2)", "INSERT INTO t VALUES (2)"),
		adds(3),
	}.run(t, e)
	committedAll(t, all, 0, 1, 2)
	same(t, "commits", w.count("COMMIT"), 1)

	all = members{runs("INSERT INTO child VALUES (9)"), adds(4)}.run(t, e)
	is(t, all[0].err, engine.ErrForeignKey)
	committedAll(t, all, 1)
	wantRows(t, e, 1, 2, 3, 4)
}

// Who comes last fails, and commits what the others did.
func TestTheLastMemberFails(t *testing.T) {
	t.Parallel()
	e, _ := shop(t)
	all := members{adds(1), adds(2), func(ctx context.Context, s engine.Session) error {
		if err := adds(3)(ctx, s); err != nil {
			return err
		}
		return errOwn
	}}.run(t, e)
	committedAll(t, all, 0, 1)
	if all[2].err != errOwn {
		t.Errorf("got %v, want its own error", all[2].err)
	}
	wantRows(t, e, 1, 2)
}

// A write that others would be lost with runs to its end. A read is interrupted.
func TestAWriteWithPredecessorsIsNotInterrupted(t *testing.T) {
	t.Parallel()
	const numbers = "WITH RECURSIVE n (i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) "
	for name, text := range map[string]string{
		"write": numbers + "INSERT INTO t SELECT i FROM n WHERE step(i)",
		"read":  numbers + "SELECT count(*) FROM n WHERE step(i)",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			cfg := file(t)
			steps := 0
			cfg.Driver = func(d *sqlite.Driver) error {
				return d.RegisterScalarFunction("step", 1, func(*sqlite.FunctionContext, []driver.Value) (driver.Value, error) {
					if steps++; steps == 1 {
						cancel()
						time.Sleep(20 * time.Millisecond) // so that the driver sees it
					}
					return int64(1), nil
				})
			}
			e := open(t, cfg)
			run(t, e, "CREATE TABLE t (a INTEGER PRIMARY KEY)")
			all := members{adds(1), func(_ context.Context, s engine.Session) error {
				if _, err := s.ExecContext(ctx, text, nil); err != nil {
					return s.Failed(ctx, err)
				}
				return nil
			}, adds(3)}.run(t, e)
			committedAll(t, all, 0, 2)
			is(t, all[1].err, context.Canceled)
			if toTheEnd := steps == 2901; toTheEnd != (name == "write") {
				t.Errorf("it ran to its end: got %t after %d steps", toTheEnd, steps)
			}
			wantRows(t, e, 1, 3)
		})
	}
}

// What ends the whole transaction is told to all who share it, and to nobody else.
func TestAGroupIsLost(t *testing.T) {
	t.Parallel()
	e, _ := shop(t)
	got := members{
		adds(1),
		func(ctx context.Context, s engine.Session) error { return errors.Join(adds(2)(ctx, s), errOwn) },
		runs("INSERT INTO t VALUES (3)", "INSERT OR ROLLBACK INTO t VALUES (1)"),
		adds(4),
	}.run(t, e)
	for i := range 3 {
		is(t, got[i].err, engine.ErrTxAborted)
		same(t, "outcome", got[i].outcome, engine.RolledBack)
	}
	is(t, got[2].err, engine.ErrUnique)
	if errors.Is(got[0].err, engine.ErrUnique) {
		t.Errorf("got %v, want nothing that the session could take for its own failure", got[0].err)
	}
	same(t, "retry", explained(t, got[0].err).Retry, engine.RetryAsked)
	same(t, "code", explained(t, got[0].err).Code, "SQLITE_CONSTRAINT_PRIMARYKEY")
	if errors.Is(got[1].err, errOwn) {
		t.Errorf("got %v, want no verdict on work that is gone", got[1].err)
	}
	committedAll(t, got, 3)
	wantRows(t, e, 4)
}

// A COMMIT that fails is told to all, and a session that had failed by itself isn't told of its own error.
func TestCommitOfAGroupFails(t *testing.T) {
	t.Parallel()
	e, w := shop(t)
	all := members{
		adds(1),
		func(ctx context.Context, s engine.Session) error { return errors.Join(adds(2)(ctx, s), errOwn) },
		func(ctx context.Context, s engine.Session) error {
			w.RegisterCommitHook(func() int32 { return 1 })
			return adds(3)(ctx, s)
		},
	}.run(t, e)
	w.RegisterCommitHook(nil)
	for i := range all {
		same(t, "outcome", all[i].outcome, engine.RolledBack)
		if !hasCode(all[i].err, sqlite3.SQLITE_CONSTRAINT) || errors.Is(all[i].err, errOwn) {
			t.Errorf("member %d: got %v, want why COMMIT failed", i, all[i].err)
		}
	}
	is(t, all[0].err, engine.ErrTxAborted)
	is(t, all[1].err, engine.ErrTxAborted)
	wantRows(t, e)
	committedAll(t, members{adds(4), adds(5)}.run(t, e), 0, 1)
}

// Something that ended the transaction behind our back leaves open what became of all of it.
func TestAGroupEndsBehindOurBack(t *testing.T) {
	t.Parallel()
	e, w := shop(t)
	all := members{adds(1), func(ctx context.Context, s engine.Session) error {
		if err := adds(2)(ctx, s); err != nil {
			return err
		}
		_, err := w.driverConn.ExecContext(ctx, "COMMIT; BEGIN", nil)
		return err
	}}.run(t, e)
	for i := range all {
		same(t, "outcome", all[i].outcome, engine.Unknown)
		is(t, all[i].err, engine.ErrTxControl)
	}
}

// Who could undo the work of others, or could be interrupted, shares no transaction that they have begun.
func TestWhoDoesNotJoin(t *testing.T) {
	t.Parallel()
	second := func(o engine.Options) []engine.Options { return []engine.Options{{}, o} }
	for name, test := range map[string]struct {
		run  func(context.Context, engine.Session) error
		opts []engine.Options
	}{
		"OR ROLLBACK":         {run: runs("INSERT OR ROLLBACK INTO t VALUES (2)")},
		"OR ROLLBACK, nested": {run: nested(runs("INSERT OR ROLLBACK INTO t VALUES (2)"))},
		"a Timeout":           {adds(2), second(engine.Options{Timeout: time.Minute})},
		"a StatementTimeout":  {adds(2), second(engine.Options{StatementTimeout: time.Minute})},
		"defer_foreign_keys":  {run: runs("PRAGMA defer_foreign_keys = 1", "INSERT INTO t VALUES (2)")},
		"a trigger of ROLLBACK": {run: runs("CREATE TEMP TRIGGER tr BEFORE DELETE ON t BEGIN SELECT RAISE (ROLLBACK, 'no'); END",
			"INSERT INTO t VALUES (2)")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, w := shop(t)
			committedAll(t, members{adds(1), test.run}.run(t, e, test.opts...), 0, 1)
			want := []string{"BEGIN IMMEDIATE", "COMMIT", "BEGIN IMMEDIATE", "COMMIT"}
			var got []string
			for _, text := range w.take() {
				if text == "BEGIN IMMEDIATE" || text == "COMMIT" || text == "SAVEPOINT "+savepoint {
					got = append(got, text)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("transactions (-want +got):\n%s", diff)
			}
			wantRows(t, e, 1, 2)
			w.take()
			committedAll(t, members{adds(3), adds(4)}.run(t, e), 0, 1)
			if n, alone := w.count("COMMIT"), strings.Contains(name, "trigger"); (n == 2) != alone {
				t.Errorf("later transactions: got %d", n)
			}
		})
	}
}

// nested is a member that does all in a savepoint.
func nested(run func(context.Context, engine.Session) error) func(context.Context, engine.Session) error {
	return func(ctx context.Context, s engine.Session) error {
		return errors.Join(s.Savepoint(ctx, false), run(ctx, s), s.Release(ctx))
	}
}

// A session with a timeout doesn't wait for who comes behind it.
func TestWhoIsNotJoined(t *testing.T) {
	t.Parallel()
	for _, opts := range []engine.Options{{Timeout: time.Minute}, {StatementTimeout: time.Minute}} {
		e, w := shop(t)
		committedAll(t, members{adds(1), adds(2)}.run(t, e, opts), 0, 1)
		same(t, "commits", w.count("COMMIT"), 2)
	}
	e, log := openLogged(t, file(t))
	run(t, e, "CREATE TABLE t (a INTEGER PRIMARY KEY)")
	s, err := e.BeginMigration(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		_, err := auto(t, e).ExecContext(t.Context(), "INSERT INTO t VALUES (1)", nil)
		ended <- err
	}()
	queued(t, e.writer.line, 1)
	commit(t, s)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	same(t, "log", log.String(), "")
}

// What is attached may have triggers of its own, and the pragma makes LIKE another one.
func TestSchemasThatRollBack(t *testing.T) {
	t.Parallel()
	for _, setUp := range []string{
		"ATTACH ':memory:' AS other",
		"PRAGMA case_sensitive_like = 1; CREATE TABLE u (a UNIQUE ON CONFLICT ROLLBACK)",
	} {
		e, w := shop(t)
		committedAll(t, members{adds(1), adds(2)}.run(t, e), 0, 1)
		same(t, "commits", w.count("COMMIT"), 1)
		for text := range strings.SplitSeq(setUp, "; ") {
			run(t, e, text)
		}
		w.take()
		committedAll(t, members{adds(3), adds(4)}.run(t, e), 0, 1)
		same(t, "commits", w.count("COMMIT"), 2)
	}
}

// A full disk is told to all, whoever has filled it.
func TestAFullDiskIsToldToAll(t *testing.T) {
	t.Parallel()
	e, _ := shop(t)
	run(t, e, "CREATE TABLE large (a)")
	run(t, e, "PRAGMA max_page_count = 10")
	first := leads(t, e)
	culprit := make(chan error, 1)
	go func() {
		_, err := auto(t, e).ExecContext(t.Context(), "INSERT INTO large VALUES (zeroblob(1000000))", nil)
		culprit <- err
	}()
	queued(t, e.writer.line, 1)
	innocent := end(t.Context(), first, nil)
	for who, err := range map[string]error{"culprit": <-culprit, "innocent": innocent.err} {
		if !hasCode(err, sqlite3.SQLITE_FULL) || !strings.Contains(err.Error(), "disk is full") {
			t.Errorf("%s: got %v, want that the disk is full", who, err)
		}
	}
	is(t, innocent.err, engine.ErrTxAborted)
}

// Savepoints are made when there is something to do in them.
func TestSavepointsBeforeTheFirstStatement(t *testing.T) {
	t.Parallel()
	e, w := shop(t)
	s, err := e.Begin(t.Context(), engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	steps := errors.Join(
		s.Savepoint(ctx, false), s.Release(ctx), s.Savepoint(ctx, true), s.RollbackTo(ctx),
		s.Savepoint(ctx, false), s.Savepoint(ctx, true),
	)
	if steps != nil {
		t.Fatal(steps)
	}
	is(t, fails(t, s, "INSERT INTO t VALUES (1)"), engine.ErrReadOnly)
	if err := s.RollbackTo(ctx); err != nil {
		t.Error(err)
	}
	exec(t, s, "INSERT INTO t VALUES (2)")
	if err := s.Release(ctx); err != nil {
		t.Error(err)
	}
	commit(t, s)
	want := []string{
		"BEGIN IMMEDIATE", "SAVEPOINT thole_1", "SAVEPOINT thole_2",
		"ROLLBACK TO thole_2", "RELEASE thole_2", "INSERT INTO t VALUES (2)", "RELEASE thole_1", "COMMIT",
	}
	if diff := cmp.Diff(want, w.take()); diff != "" {
		t.Errorf("statements (-want +got):\n%s", diff)
	}
	wantRows(t, e, 2)
}

// The statement of InsertRows is kept for the next one.
func TestInsertRowsKeepsItsStatement(t *testing.T) {
	t.Parallel()
	e, w := shop(t)
	s := begin(t, e, engine.Options{})
	for i := range 3 {
		rows := engine.Rows{Table: []string{"t"}, Columns: []string{"a"}, Len: 1, Row: func(_ int, values []driver.NamedValue) error {
			values[0].Value = int64(i)
			return nil
		}}
		if err := s.InsertRows(t.Context(), rows); err != nil {
			t.Fatal(err)
		}
	}
	commit(t, s)
	for text, n := range w.prepared {
		same(t, text, n, 1)
	}
	wantRows(t, e, 0, 1, 2)
}

// What a session is told whose transaction others have lost says nothing of what became of it.
func TestSharedError(t *testing.T) {
	t.Parallel()
	err := shared(&engine.Error{Kind: engine.ErrCommitUnknown, Code: "SQLITE_IOERR", Message: "disk I/O error", Retry: engine.RetryForbidden})
	is(t, err, engine.ErrTxAborted)
	if errors.Is(err, engine.ErrCommitUnknown) {
		t.Errorf("got %v, want nothing that is unknown", err)
	}
	same(t, "code", err.Code, "SQLITE_IOERR")
	same(t, "retry", err.Retry, engine.RetryAsked)
}

// A session that could not begin can't go on.
func TestASessionThatCouldNotBegin(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *Engine) {
		holder := begin(t, e, engine.Options{})
		s, err := e.Begin(t.Context(), engine.Options{LockTimeout: time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		first := fails(t, s, "SELECT 1")
		is(t, first, engine.ErrLocked)
		same(t, "aborts", first.Aborts, engine.AbortsSession)
		rollback(t, holder)
		for what, err := range map[string]error{
			"statement": fails(t, s, "SELECT 1"),
			"savepoint": s.Savepoint(t.Context(), false),
			"commit":    second(s.Commit(t.Context(), true)),
		} {
			if !errors.Is(err, error(first)) {
				t.Errorf("%s: got %v, want the first failure", what, err)
			}
		}
		rollback(t, s)
		run(t, e, "CREATE TABLE t (a)") // the writer is free
	})
}

// The timeout of statements ends with its session, also when the writer is handed on.
func TestStatementTimeoutIsNotHandedOn(t *testing.T) {
	t.Parallel()
	e, _ := shop(t)
	all := members{adds(1), func(ctx context.Context, s engine.Session) error {
		err := adds(2)(ctx, s)
		same(t, "timeout", e.writer.slot.conn.timeout, time.Duration(0))
		return err
	}}.run(t, e, engine.Options{StatementTimeout: time.Minute})
	committedAll(t, all, 0, 1)
}

// The pragma of one session says nothing about the next.
func TestDeferForeignKeysEndsWithItsSession(t *testing.T) {
	t.Parallel()
	e := open(t, file(t))
	run(t, e, "CREATE TABLE t (a INTEGER PRIMARY KEY)")
	run(t, e, "CREATE TABLE child (a REFERENCES t)")
	all := members{
		adds(1),
		runs("INSERT INTO t VALUES (2)", "PRAGMA defer_foreign_keys = 1", "INSERT INTO child VALUES (9)", "INSERT INTO t VALUES (9)"),
		runs("INSERT INTO child VALUES (8)", "INSERT INTO t VALUES (8)"),
	}.run(t, e)
	committedAll(t, all, 0, 1)
	is(t, all[2].err, engine.ErrForeignKey)
}

// Where the schema itself says ROLLBACK, also since another process has changed it, each session is alone.
func TestSchemaThatRollsBack(t *testing.T) {
	t.Parallel()
	e, w := shop(t)
	committedAll(t, members{adds(1), adds(2)}.run(t, e), 0, 1)
	same(t, "commits", w.count("COMMIT"), 1)

	other := open(t, e.cfg)
	run(t, other, "CREATE TABLE u (a UNIQUE ON CONFLICT ROLLBACK)")
	w.take()
	committedAll(t, members{adds(3), adds(4)}.run(t, e), 0, 1)
	same(t, "commits", w.count("COMMIT"), 2)

	run(t, other, "DROP TABLE u")
	w.take()
	committedAll(t, members{adds(5), adds(6)}.run(t, e), 0, 1)
	same(t, "commits", w.count("COMMIT"), 1)

	run(t, e, "CREATE TEMP TRIGGER tr BEFORE DELETE ON t BEGIN SELECT RAISE (ROLLBACK, 'no'); END")
	w.take()
	committedAll(t, members{adds(7), adds(8)}.run(t, e), 0, 1)
	same(t, "commits", w.count("COMMIT"), 2)
}

// Those who are in a transaction that has lasted don't wait for yet another session.
func TestAnOldTransactionIsNotJoined(t *testing.T) {
	t.Parallel()
	e, w := shop(t)
	all := members{func(ctx context.Context, s engine.Session) error {
		e.writer.cost, e.writer.began = 0, time.Now().Add(-time.Second)
		return adds(1)(ctx, s)
	}, adds(2)}.run(t, e)
	committedAll(t, all, 0, 1)
	same(t, "commits", w.count("COMMIT"), 2)
}

// Nobody has to wait for one of those that were slow before, until they aren't any more.
func TestASlowSessionDoesNotJoin(t *testing.T) {
	t.Parallel()
	e, w := shop(t)
	info := &engine.Info{Caller: engine.Here(), Began: time.Now()}
	n := 0
	shared := func() bool {
		n += 2
		w.take()
		committedAll(t, members{adds(n), adds(n + 1)}.run(t, e, engine.Options{}, engine.Options{Info: info}), 0, 1)
		return w.count("COMMIT") == 1
	}
	same(t, "unknown", shared(), true)
	if got := e.writer.pace.of(info); got <= 0 || got > time.Minute {
		t.Errorf("pace: got %s, want what it took", got)
	}
	for range 20 {
		e.writer.pace.note(info, 1000*time.Hour)
	}
	same(t, "slow", shared(), false)
	for range 100 {
		e.writer.pace.note(info, 0)
	}
	same(t, "fast again", shared(), true)
}

// As many places are kept, and no more.
func TestPaceIsBounded(t *testing.T) {
	t.Parallel()
	p := pace{}
	for i := range 3 * keptPlaces {
		p.note(&engine.Info{Query: strconv.Itoa(i)}, time.Second)
		if len(p) > keptPlaces {
			t.Fatalf("places: got %d, want %d at most", len(p), keptPlaces)
		}
	}
	same(t, "pace", p.of(&engine.Info{Query: strconv.Itoa(3*keptPlaces - 1)}), time.Second)
	same(t, "pace of another", p.of(nil), time.Duration(0))
}

// A session that waits for long to be told that it is committed says for whom.
func TestALongWaitForTheGroupIsLogged(t *testing.T) {
	t.Parallel()
	e, log := openLogged(t, file(t))
	run(t, e, "CREATE TABLE t (a INTEGER PRIMARY KEY)")
	e.groupPatience = 10 * time.Millisecond
	info := &engine.Info{Label: "slow", Caller: engine.Here(), Began: time.Now()}
	all := members{adds(1), func(ctx context.Context, s engine.Session) error {
		if err := adds(2)(ctx, s); err != nil {
			return err
		}
		for since := time.Now(); !strings.Contains(log.String(), "wait for one that shares their transaction") && time.Since(since) < 10*time.Second; {
			time.Sleep(time.Millisecond)
		}
		return nil
	}}.run(t, e, engine.Options{}, engine.Options{Info: info})
	committedAll(t, all, 0, 1)
	if !strings.Contains(log.String(), `session \"slow\" opened at`) {
		t.Errorf("log: got %s, want the session that is waited for", log)
	}
}

// A session that gives up waiting as its turn comes leaves the others theirs.
func TestAMemberLeavesTheLine(t *testing.T) {
	t.Parallel()
	e, w := shop(t)
	e.writer.cost = time.Hour
	first := begin(t, e, engine.Options{})
	exec(t, first, "INSERT INTO t VALUES (1)")
	ended := make(chan told)
	turn := make(chan *slot, 1)
	e.writer.line.mu.Lock()
	e.writer.line.waiting.PushBack(turn) // somebody waits
	e.writer.line.mu.Unlock()
	go func() { ended <- end(t.Context(), first, nil) }()
	e.handBack(<-turn) // and does not want it any more
	committedAll(t, []told{<-ended}, 0)
	same(t, "commits", w.count("COMMIT"), 1)

	e.writer.line.mu.Lock()
	e.writer.line.out = 0
	e.writer.line.mu.Unlock()
	wantRows(t, e, 1)
	committedAll(t, members{adds(2), adds(3)}.run(t, e), 0, 1)
}

// A transaction that has ended as somebody was about to join it is not handed on.
func TestATransactionEndsBeforeItIsJoined(t *testing.T) {
	t.Parallel()
	e, w := shop(t)
	first := leads(t, e)
	joined, waits := make(chan struct{}), make(chan told)
	go func() {
		defer close(joined)
		s, err := e.Begin(t.Context(), engine.Options{})
		if err == nil {
			err = adds(2)(t.Context(), s)
		}
		if err != nil {
			t.Error(err)
		}
		e.writer.slot.conn.undone = true // as SQLite's hook tells
		e.handBack(e.writer.slot)        // as who could not join does
	}()
	queued(t, e.writer.line, 1)
	go func() { waits <- end(t.Context(), first, nil) }()
	<-joined
	got := <-waits
	is(t, got.err, engine.ErrTxAborted)
	same(t, "outcome", got.outcome, engine.RolledBack)
	if n := w.count("COMMIT"); n != 0 {
		t.Errorf("commits: got %d, want none", n)
	}
	if _, err := e.writer.slot.conn.rollback(t.Context()); err != nil {
		t.Error(err)
	}
	wantRows(t, e)
}

// Close ends who waits; those who have the writer commit.
func TestCloseWithAGroup(t *testing.T) {
	t.Parallel()
	cfg := file(t)
	e := open(t, cfg)
	run(t, e, "CREATE TABLE t (a INTEGER PRIMARY KEY)")
	closed := make(chan error, 1)
	all := members{adds(1), func(ctx context.Context, s engine.Session) error {
		if err := adds(2)(ctx, s); err != nil {
			return err
		}
		go func() { closed <- e.Close(ctx) }()
		queued(t, e.writer.line, 0) // the third has been told
		return nil
	}, adds(3)}.run(t, e)
	committedAll(t, all, 0, 1)
	is(t, all[2].err, engine.ErrClosed)
	if err := <-closed; err != nil {
		t.Error(err)
	}
	wantRows(t, open(t, cfg), 1, 2)
}

// foreignVar makes the test binary write to a database as a program does that knows nothing of thole.
const foreignVar = "THOLE_TEST_FOREIGN"

// foreignSessions is how many transactions it makes.
const foreignSessions = 200

func writeByHand(path string) int {
	ctx := context.Background()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(10000)&_txlock=immediate")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	for range foreignSessions {
		tx, err := db.BeginTx(ctx, nil)
		if err == nil {
			_, err = tx.ExecContext(ctx, "INSERT INTO t DEFAULT VALUES")
		}
		if err == nil {
			err = tx.Commit()
		}
		if err != nil {
			fmt.Println(err)
			return 1
		}
	}
	return 0
}

// Other processes that write in a loop see nothing of us but that they wait, nor do we of them.
func TestOtherProcessesWrite(t *testing.T) {
	t.Parallel()
	const processes, goroutines = 2, 16
	e, _ := shop(t)
	var others, ours sync.WaitGroup
	done := make(chan struct{})
	for range processes {
		others.Go(func() {
			cmd := osexec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), foreignVar+"="+e.cfg.Path)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("process: got %v, %s", err, out)
			}
		})
	}
	var n atomic.Int64
	for range goroutines {
		ours.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				s, err := e.Begin(t.Context(), engine.Options{LockTimeout: time.Minute})
				if err == nil {
					_, err = s.ExecContext(t.Context(), "INSERT INTO t DEFAULT VALUES", nil)
				}
				if got := end(t.Context(), s, err); got.err != nil {
					t.Error(got.err)
					return
				}
				n.Add(1)
			}
		})
	}
	others.Wait()
	close(done)
	ours.Wait()
	t.Logf("%d sessions of theirs, %d of ours", processes*foreignSessions, n.Load())
	same(t, "rows", len(inT(t, e)), processes*foreignSessions+int(n.Load()))
}

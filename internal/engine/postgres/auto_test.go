package postgres

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tholedb/thole/internal/engine"
)

func take(tb testing.TB, e *Engine) engine.AutoConn {
	tb.Helper()
	c, err := e.Conn(testContext(tb))
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func TestAutoConn(t *testing.T) {
	t.Parallel()
	e := open(t, maxConns(2))
	c := take(t, e)
	mustExec(t, c, "create table t (id int primary key)")
	mustExec(t, c, "insert into t values ($1)", 1)
	if got := count(t, e, "t"); got != 1 {
		t.Errorf("rows: got %d, want 1: each statement commits", got)
	}
	failed := wantKind(t, exec(testContext(t), c, "insert into t values (1)"), engine.ErrUnique)
	if failed.Aborts != engine.AbortsNothing {
		t.Errorf("extent: got %d, want %d", failed.Aborts, engine.AbortsNothing)
	}
	wantKind(t, exec(testContext(t), c, "insert into t values (2); insert into t values (2)"), engine.ErrUnique)
	if got := count(t, e, "t"); got != 1 {
		t.Errorf("rows: got %d, want 1: two statements in one text are one transaction", got)
	}
	if diff := cmp.Diff([]any{int64(1)}, mustQuery(t, c, "select id from t")); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestAutoConnPreparedStatement(t *testing.T) {
	t.Parallel()
	e := open(t, maxConns(2))
	setUp(t, e, "create table t (id int)")
	c := take(t, e)
	defer c.Close()
	prepared, err := c.PrepareContext(testContext(t), "insert into t values (1)")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := prepared.(*stmt).ExecContext(testContext(t), nil); err != nil {
		t.Fatal(err)
	}
	if err := prepared.Close(); err != nil {
		t.Error(err)
	}
	if got := count(t, e, "t"); got != 1 {
		t.Errorf("rows: got %d, want 1", got)
	}
}

// TestAutoConnLost has a link that breaks under a statement, which may be
// committed, and runs it once at most.
func TestAutoConnLost(t *testing.T) {
	t.Parallel()
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeSimpleProtocol} {
		for name, run := range map[string]func(context.Context, engine.Conn) error{
			"exec": func(ctx context.Context, c engine.Conn) error {
				return exec(ctx, c, "insert into t values (1) /* cut */")
			},
			"exec with arguments": func(ctx context.Context, c engine.Conn) error {
				return exec(ctx, c, "insert into t values ($1) /* cut */", 1)
			},
			"query": func(ctx context.Context, c engine.Conn) error {
				_, err := query(ctx, c, "insert into t values (1) returning id /* cut */")
				return err
			},
		} {
			t.Run(fmt.Sprintf("%s, %s", name, mode), func(t *testing.T) {
				t.Parallel()
				cut := &cutter{answer: true}
				e := open(t, cut.configure, maxConns(1), execMode(mode))
				setUp(t, e, "create table t (id int)")
				c := take(t, e)
				ctx := testContext(t)
				if err := run(ctx, c); err != nil { // what is not known is parsed before it is executed
					t.Fatal(err)
				}
				if mode == pgx.QueryExecModeCacheStatement && name != "exec" {
					cut.arm("thole_") // its name
				} else {
					cut.arm("cut */")
				}
				failed := wantKind(t, run(ctx, c), engine.ErrCommitUnknown)
				if failed.Retry != engine.RetryForbidden {
					t.Errorf("retry: got %d, want %d", failed.Retry, engine.RetryForbidden)
				}
				wantKind(t, run(ctx, c), engine.ErrConnLost) // was never sent
				if err := c.Close(); err != nil {
					t.Error(err)
				}
				if got := count(t, e, "t"); got > 2 {
					t.Errorf("rows: got %d, want 1 and at most 1 more", got)
				}
			})
		}
	}
}

// TestAutoConnExecutedOnce is the regression test for pgx 5.9.0 to 5.12.0, which
// report a lost answer of the simple protocol as "nothing was sent".
func TestAutoConnExecutedOnce(t *testing.T) {
	t.Parallel()
	cut := &cutter{answer: true}
	e := open(t, cut.configure, maxConns(1))
	setUp(t, e, "create table t (id int)")
	c := take(t, e)
	cut.arm("cut */")
	wantKind(t, exec(testContext(t), c, "insert into t values (1) /* cut */"), engine.ErrCommitUnknown)
	c.Close()
	if got := count(t, e, "t"); got != 1 {
		t.Errorf("rows: got %d, want 1", got)
	}
}

func TestAutoConnPrepareLost(t *testing.T) {
	t.Parallel()
	cut := &cutter{answer: true}
	e := open(t, cut.configure, maxConns(1))
	c := take(t, e)
	defer c.Close()
	cut.arm("cut */")
	_, err := c.PrepareContext(testContext(t), "select 1 /* cut */")
	wantKind(t, c.Failed(testContext(t), err), engine.ErrConnLost)
}

func TestAutoConnTerminated(t *testing.T) {
	t.Parallel()
	e := open(t, maxConns(2))
	c := take(t, e)
	defer c.Close()
	mustQuery(t, c, "select 1") // and is known from then on
	terminate(t, e, c.(*auto).wire.PID())
	_, err := query(testContext(t), c, "select 1")
	if failed := wantKind(t, err, engine.ErrCommitUnknown); failed.Code != "57P01" {
		t.Errorf("got %v, want SQLSTATE 57P01", err)
	}
}

func TestAutoConnDoneContext(t *testing.T) {
	t.Parallel()
	e := open(t, maxConns(1))
	before := once(t, e, "select pg_backend_pid()")
	for range 20 {
		c := take(t, e)
		ctx, cancel := context.WithTimeout(testContext(t), 2*time.Millisecond)
		_, err := query(ctx, c, "select pg_sleep(60)")
		wantKind(t, err, engine.ErrTimeout)
		_, err = query(ctx, c, "select 1")
		wantKind(t, err, engine.ErrTimeout) // never sent
		cancel()
		c.Close()
		once(t, e, "select pg_sleep(0.002)")
	}
	if diff := cmp.Diff(before, once(t, e, "select pg_backend_pid()")); diff != "" {
		t.Errorf("backend (-want +got):\n%s", diff)
	}
}

func TestAutoConnCloseCleansUp(t *testing.T) {
	t.Parallel()
	e := open(t, maxConns(1))
	setUp(t, e, "create table t (id int)")
	before := once(t, e, "select pg_backend_pid()")

	c := take(t, e)
	if _, err := c.QueryContext(testContext(t), "select generate_series(1, 100000)", nil); err != nil {
		t.Fatal(err)
	}
	c.Close()

	if diff := cmp.Diff(before, once(t, e, "select pg_backend_pid()")); diff != "" {
		t.Errorf("backend (-want +got):\n%s", diff)
	}
}

// TestAutoConnWithTransaction begins one behind the back of thole: nothing more
// runs on the connection, which nobody else gets.
func TestAutoConnWithTransaction(t *testing.T) {
	t.Parallel()
	e := open(t, maxConns(1))
	setUp(t, e, "create table t (id int)")
	c := take(t, e)
	for _, text := range []string{"begin", "insert into t values (1)"} {
		if err := exec(testContext(t), c, text); !errors.Is(err, engine.ErrTxControl) {
			t.Errorf("%s: got error %v, want %v", text, err, engine.ErrTxControl)
		}
	}
	c.Close()
	if got := count(t, e, "t"); got != 0 {
		t.Errorf("rows: got %d, want 0", got)
	}
	if got := e.pool.Stat().NewConnsCount(); got != 2 {
		t.Errorf("connections made: got %d, want 2", got)
	}
}

// TestAutoConnRefused has the server refuse a statement by errors of the class of
// lost connections, on a connection that goes on: nothing was executed.
func TestAutoConnRefused(t *testing.T) {
	t.Parallel()
	e := open(t, maxConns(1))
	for code, unknown := range map[string]bool{"08P01": false, "08006": true, "40003": true, "57P01": true, "23505": false} {
		c := take(t, e)
		mustExec(t, c, "select 1")
		failed := c.Failed(testContext(t), &pgconn.PgError{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: code})
		if got := errors.Is(failed, engine.ErrCommitUnknown); got != unknown {
			t.Errorf("%s: got %v, is it unknown? want %t", code, failed, unknown)
		}
		c.Close()
	}
}

package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"testing"
	"time"

	"modernc.org/sqlite"

	"github.com/tholedb/thole/internal/engine"
)

func TestAutoConn(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *Engine) {
		c := auto(t, e)
		exec(t, c, "CREATE TABLE t (a INTEGER PRIMARY KEY, b)")
		result := exec(t, c, "INSERT INTO t (b) VALUES (?)", "x")
		if id, err := result.LastInsertId(); id != 1 || err != nil {
			t.Errorf("last insert id: got %d, %v, want 1", id, err)
		}
		same(t, "returned rows", rowsOf(t, c, "INSERT INTO t (b) VALUES ('y'), ('z') RETURNING a"), [][]driver.Value{{int64(2)}, {int64(3)}})
		same(t, "rows", count(t, c), int64(3))
		err := fails(t, c, "INSERT INTO t VALUES (9, 9), (1, 1) RETURNING a")
		is(t, err, engine.ErrUnique)
		_, failed := c.ExecContext(t.Context(), "INSERT INTO t VALUES (9, 9), (1, 1)", nil)
		is(t, failed, engine.ErrUnique)
		same(t, "rows after the failures", count(t, c), int64(3))
	})
}

// Several statements in one text happen together.
func TestAutoScript(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *Engine) {
		c := auto(t, e)
		exec(t, c, "CREATE TABLE t (a UNIQUE); INSERT INTO t VALUES (1)")
		for _, script := range []string{
			"INSERT INTO t VALUES (2); INSERT INTO t VALUES (1)",
			"INSERT INTO t VALUES (2) RETURNING a; INSERT INTO t VALUES (1) RETURNING a",
			"SELECT 1; INSERT INTO t VALUES (2); SELECT nothing",
		} {
			fails(t, c, script)
			if _, err := c.ExecContext(t.Context(), script, nil); err == nil {
				t.Errorf("%s: got no error, want one", script)
			}
			same(t, "rows", count(t, c), int64(1))
		}
		same(t, "rows of the last", rowsOf(t, c, "INSERT INTO t VALUES (2); SELECT a FROM t ORDER BY a"), [][]driver.Value{{int64(1)}, {int64(2)}})
	})
}

func TestAutoRowsHoldTheConnection(t *testing.T) {
	t.Parallel()
	e := open(t, file(t))
	run(t, e, "CREATE TABLE t (a)")
	short := engine.Options{LockTimeout: time.Millisecond}
	c := auto(t, e)
	rows, err := c.QueryContext(t.Context(), "INSERT INTO t VALUES (1), (2) RETURNING a", nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = started(t.Context(), e, short)
	is(t, err, engine.ErrLocked)
	contains(t, err, "holds it")
	if err := rows.Next(make([]driver.Value, 1)); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := rows.Next(make([]driver.Value, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("row of closed rows: got %v, want %v", err, io.EOF)
	}
	same(t, "rows that QueryRow would have left", count(t, auto(t, e)), int64(2))
	rollback(t, begin(t, e, short))
}

// Behind the last row the statement is committed, or says why not.
func TestAutoCommitsAtTheLastRow(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *Engine) {
		c := auto(t, e)
		exec(t, c, "CREATE TABLE t (a INTEGER PRIMARY KEY, up INT REFERENCES t DEFERRABLE INITIALLY DEFERRED)")
		rows, err := c.QueryContext(t.Context(), "INSERT INTO t VALUES (1, 77) RETURNING a", nil)
		if err != nil {
			t.Fatal(err)
		}
		row := make([]driver.Value, 1)
		if err := rows.Next(row); err != nil {
			t.Error(err)
		}
		is(t, rows.Next(row), engine.ErrForeignKey)
		if err := rows.Close(); err != nil {
			t.Error(err)
		}
		_, err = c.ExecContext(t.Context(), "INSERT INTO t VALUES (1, 77)", nil)
		is(t, err, engine.ErrForeignKey)
		same(t, "rows", count(t, c), int64(0))

		rows, err = c.QueryContext(t.Context(), "INSERT INTO t VALUES (1, 77) RETURNING a", nil)
		if err != nil {
			t.Fatal(err)
		}
		is(t, rows.Close(), engine.ErrForeignKey)
		same(t, "rows", count(t, c), int64(0))
	})
}

func TestAutoContextEndsAmongRows(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *Engine) {
		c := auto(t, e)
		exec(t, c, "CREATE TABLE t (a)")
		ctx, cancel := context.WithCancel(t.Context())
		rows, err := c.QueryContext(ctx, "INSERT INTO t VALUES (1), (2) RETURNING a", nil)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		is(t, rows.Next(make([]driver.Value, 1)), context.Canceled)
		if err := rows.Close(); err != nil {
			t.Error(err)
		}
		same(t, "rows of what failed", count(t, c), int64(0))
	})
}

// TestAutoContextEndsAtClose closes the rows as database/sql does when ctx has
// ended: who reads them is told an error.
func TestAutoContextEndsAtClose(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *Engine) {
		c := auto(t, e)
		exec(t, c, "CREATE TABLE t (a)")
		ctx, cancel := context.WithCancel(t.Context())
		rows, err := c.QueryContext(ctx, "INSERT INTO t VALUES (1), (2) RETURNING a", nil)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		is(t, rows.Close(), context.Canceled)
		same(t, "rows of what failed", count(t, c), int64(0))
	})
}

// TestAutoScriptWithPragma is one transaction, whatever it begins with.
func TestAutoScriptWithPragma(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *Engine) {
		c := auto(t, e)
		exec(t, c, "CREATE TABLE t (a PRIMARY KEY)")
		_, err := c.ExecContext(t.Context(), "PRAGMA user_version=3; INSERT INTO t VALUES (1); INSERT INTO t VALUES (1)", nil)
		is(t, err, engine.ErrUnique)
		same(t, "rows of what failed", count(t, c), int64(0))
	})
}

func TestAutoInterrupted(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *Engine) {
		c := auto(t, e)
		exec(t, c, "CREATE TABLE t (a)")
		for _, query := range []string{endless, endlessWrite, endlessWrite + " RETURNING a"} {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			_, err := readAll(ctx, c, query)
			is(t, c.Failed(ctx, err), engine.ErrTimeout, context.DeadlineExceeded)
			cancel()
			ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
			_, err = c.ExecContext(ctx, query, nil)
			is(t, c.Failed(ctx, err), engine.ErrTimeout, context.DeadlineExceeded)
			cancel()
		}
		same(t, "rows", count(t, c), int64(0))
	})
}

func TestAutoPrepare(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *Engine) {
		c := auto(t, e)
		exec(t, c, "CREATE TABLE t (a)")
		insert, err := c.PrepareContext(t.Context(), "INSERT INTO t VALUES (?) RETURNING a")
		if err != nil {
			t.Fatal(err)
		}
		for i := range 2 {
			if _, err := insert.(driver.StmtExecContext).ExecContext(t.Context(), values([]any{int64(i)})); err != nil {
				t.Error(err)
			}
		}
		rows, err := insert.(driver.StmtQueryContext).QueryContext(t.Context(), values([]any{int64(2)}))
		if err != nil {
			t.Fatal(err)
		}
		same(t, "columns", rows.Columns(), []string{"a"})
		if err := rows.Close(); err != nil {
			t.Error(err)
		}
		if err := insert.Close(); err != nil {
			t.Error(err)
		}
		same(t, "rows", count(t, c), int64(3))
		_, err = c.PrepareContext(t.Context(), "SELECT missing FROM t")
		contains(t, c.Failed(t.Context(), err), "no such column: missing")
		_, err = c.PrepareContext(t.Context(), "COMMIT")
		is(t, err, engine.ErrTxControl)
	})
}

// No text leaves a transaction open on a connection that goes back.
func TestAutoRefusesControl(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *Engine) {
		c := auto(t, e)
		for _, query := range []string{"BEGIN", "/* a */ begin immediate", "SAVEPOINT x", "COMMIT", "END", "ROLLBACK", "RELEASE x", "SELECT 1; BEGIN"} {
			err := fails(t, c, query)
			is(t, err, engine.ErrTxControl)
			_, execErr := c.ExecContext(t.Context(), query, nil)
			is(t, execErr, engine.ErrTxControl)
		}
		run(t, e, "CREATE TABLE t (a)")
		s := begin(t, e, engine.Options{})
		is(t, fails(t, s, "COMMIT"), engine.ErrTxControl)
		commit(t, s)
	})
}

// What doesn't run in a transaction runs without one.
func TestAutoStandsAlone(t *testing.T) {
	t.Parallel()
	e := open(t, file(t))
	c := auto(t, e)
	for _, query := range []string{
		"VACUUM", "PRAGMA user_version = 3", "PRAGMA wal_checkpoint(TRUNCATE)", "ANALYZE", "REINDEX",
	} {
		exec(t, c, query)
		rowsOf(t, c, query)
	}
	same(t, "user_version", value(t, c, "PRAGMA user_version"), driver.Value(int64(3)))

	rowsOf(t, c, "ATTACH ':memory:' AS other") // to the writer, not to one of the readers
	exec(t, c, "CREATE TABLE other.t (a)")
	exec(t, c, "DROP TABLE other.t")
	exec(t, c, "DETACH other")
}

func TestSettingsCantBeChanged(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *Engine) {
		s := begin(t, e, engine.Options{ReadOnly: true})
		contains(t, fails(t, s, "SELECT 1; PRAGMA main.query_only(off)"), "PRAGMA query_only")
		rollback(t, s)
		c := auto(t, e)
		contains(t, fails(t, c, "PRAGMA foreign_keys = OFF"), "set PRAGMA foreign_keys: thole keeps it as it is on every connection")
		contains(t, fails(t, c, "PRAGMA journal_mode = DELETE"), "PRAGMA journal_mode")
		contains(t, fails(t, c, "PRAGMA defer_foreign_keys = ON"), "run it in a session")
		same(t, "foreign_keys", value(t, c, "PRAGMA foreign_keys"), driver.Value(int64(1)))
	})
}

// A function of the caller's that panics takes no connection with it.
func TestAutoPanic(t *testing.T) {
	t.Parallel()
	for _, cfg := range []Config{{}, file(t)} {
		cfg.Readers = 1
		cfg.Driver = func(d *sqlite.Driver) error {
			return d.RegisterScalarFunction("boom", 0, func(*sqlite.FunctionContext, []driver.Value) (driver.Value, error) {
				panic("boom")
			})
		}
		e := open(t, cfg)
		c := auto(t, e)
		exec(t, c, "CREATE TABLE t (a)")
		for _, query := range []string{"SELECT boom()", "INSERT INTO t VALUES (1), (boom())", "INSERT INTO t VALUES (1), (boom()) RETURNING a"} {
			panics(t, func() { _, _ = c.ExecContext(t.Context(), query, nil) })
			panics(t, func() { _, _ = readAll(t.Context(), c, query) })
		}
		same(t, "rows", count(t, c), int64(0))
		exec(t, c, "INSERT INTO t VALUES (1)")
	}
}

func panics(t *testing.T, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Error("panic: got none, want one")
		}
	}()
	f()
}

// A statement of a script runs once, though a reader would run the first and refuse the second.
func TestAutoScriptRunsOnce(t *testing.T) {
	t.Parallel()
	calls := 0
	cfg := file(t)
	cfg.Driver = func(d *sqlite.Driver) error {
		return d.RegisterScalarFunction("called", 0, func(*sqlite.FunctionContext, []driver.Value) (driver.Value, error) {
			calls++
			return int64(calls), nil
		})
	}
	e := open(t, cfg)
	run(t, e, "CREATE TABLE t (a)")
	if _, err := readAll(t.Context(), auto(t, e), "SELECT called(); INSERT INTO t VALUES (1)"); err != nil {
		t.Error(err)
	}
	same(t, "calls", calls, 1)
	same(t, "rows", len(inT(t, e)), 1)
}

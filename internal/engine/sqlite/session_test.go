package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"modernc.org/sqlite"

	"github.com/tholedb/thole/internal/engine"
)

// endless is a query that ends with its context only.
const endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT count(*) FROM c"

// endlessWrite is a write that does.
const endlessWrite = "INSERT INTO t " + endless

func count(t *testing.T, c engine.Conn) int64 {
	t.Helper()
	return value(t, c, "SELECT count(*) FROM t").(int64)
}

func TestSession(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *Engine) {
		s := begin(t, e, engine.Options{})
		exec(t, s, "CREATE TABLE t (a)")
		result := exec(t, s, "INSERT INTO t VALUES (?), (?)", int64(1), "x")
		if n, err := result.RowsAffected(); n != 2 || err != nil {
			t.Errorf("rows affected: got %d, %v, want 2", n, err)
		}
		commit(t, s)
		s = begin(t, e, engine.Options{})
		exec(t, s, "DELETE FROM t")
		rollback(t, s)
		same(t, "rows", rowsOf(t, auto(t, e), "SELECT a FROM t"), [][]driver.Value{{int64(1)}, {"x"}})
	})
}

func TestIsolation(t *testing.T) {
	t.Parallel()
	e := open(t, Config{})
	for level := sql.LevelDefault; level <= sql.LevelLinearizable+1; level++ {
		given, err := e.Isolation(level)
		s, beginErr := started(t.Context(), e, engine.Options{Isolation: level})
		switch level {
		case sql.LevelWriteCommitted, sql.LevelLinearizable, sql.LevelLinearizable + 1:
			is(t, err, errors.ErrUnsupported)
			is(t, beginErr, errors.ErrUnsupported)
		default:
			if given != sql.LevelSerializable || err != nil {
				t.Errorf("isolation for %s: got %s, %v, want %s", level, given, err, sql.LevelSerializable)
			}
			if beginErr != nil {
				t.Errorf("begin at %s: got %v, want no error", level, beginErr)
				continue
			}
			rollback(t, s)
		}
	}
	s, err := e.Begin(t.Context(), engine.Options{ReadOnly: true, Isolation: sql.LevelSerializable, Deferrable: true})
	if err != nil {
		t.Fatal(err)
	}
	rollback(t, s)
}

func TestReadOnly(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *Engine) {
		run(t, e, "CREATE TABLE t (a)")
		s := begin(t, e, engine.Options{ReadOnly: true})
		for _, write := range []string{
			"INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (1) RETURNING a", "CREATE TEMP TABLE u (a)", "PRAGMA user_version = 3",
			"WITH c AS (SELECT 1) INSERT INTO t SELECT * FROM c",
		} {
			err := fails(t, s, write)
			if err.Kind != engine.ErrReadOnly || err.Code != "SQLITE_READONLY" || err.Aborts != engine.AbortsNothing {
				t.Errorf("%s: got %v, %s, %d, want %v", write, err.Kind, err.Code, err.Aborts, engine.ErrReadOnly)
			}
		}
		contains(t, fails(t, s, "PRAGMA query_only = 0"), "set PRAGMA query_only")
		same(t, "rows", count(t, s), int64(0))
		commit(t, s)
		run(t, e, "INSERT INTO t VALUES (1)")
		same(t, "rows", count(t, auto(t, e)), int64(1))
	})
}

func TestReadersHaveASnapshot(t *testing.T) {
	t.Parallel()
	e := open(t, file(t))
	run(t, e, "CREATE TABLE t (a)")
	s := begin(t, e, engine.Options{ReadOnly: true})
	same(t, "rows before", count(t, s), int64(0))
	run(t, e, "INSERT INTO t VALUES (1)")
	same(t, "rows of the snapshot", count(t, s), int64(0))
	commit(t, s)
	s = begin(t, e, engine.Options{ReadOnly: true})
	same(t, "rows after", count(t, s), int64(1))
	rollback(t, s)
}

func TestSavepoints(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *Engine) {
		ctx := t.Context()
		s := begin(t, e, engine.Options{})
		exec(t, s, "CREATE TABLE t (a)")
		for i := range 3 {
			if err := s.Savepoint(ctx, false); err != nil {
				t.Fatal(err)
			}
			exec(t, s, "INSERT INTO t VALUES (?)", int64(i))
		}
		for _, end := range []func(context.Context) error{s.RollbackTo, s.Release, s.RollbackTo} {
			if err := end(ctx); err != nil {
				t.Error(err)
			}
		}
		same(t, "rows after RollbackTo of the outermost", count(t, s), int64(0))
		if err := s.(*session).conn.settle(ctx, "RELEASE thole_1"); err == nil {
			t.Error("savepoint after RollbackTo: got one, want none")
		}
		for range 100 {
			if err := s.Savepoint(ctx, false); err != nil {
				t.Fatal(err)
			}
			exec(t, s, "INSERT INTO t VALUES (1)")
			if err := s.Release(ctx); err != nil {
				t.Fatal(err)
			}
		}
		commit(t, s)
		same(t, "rows", count(t, auto(t, e)), int64(100))
	})
}

func TestReadOnlySavepoint(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *Engine) {
		ctx := t.Context()
		s := begin(t, e, engine.Options{})
		exec(t, s, "CREATE TABLE t (a)")
		mustReadOnly := func(want bool) {
			t.Helper()
			_, err := s.ExecContext(ctx, "INSERT INTO t VALUES (1)", nil)
			if got := errors.Is(err, engine.ErrReadOnly); got != want || err != nil && !got {
				t.Errorf("write: got %v, want read-only %v", err, want)
			}
		}
		for _, end := range []func(context.Context) error{s.Release, s.RollbackTo} {
			for _, readOnly := range []bool{true, false} {
				if err := s.Savepoint(ctx, readOnly); err != nil {
					t.Fatal(err)
				}
				mustReadOnly(true) // the inner one takes it over
			}
			mustReadOnly(true)
			if err := s.Release(ctx); err != nil {
				t.Fatal(err)
			}
			mustReadOnly(true)
			if err := end(ctx); err != nil {
				t.Fatal(err)
			}
			mustReadOnly(false)
		}
		if err := s.Savepoint(ctx, true); err != nil {
			t.Fatal(err)
		}
		commit(t, s) // the next session finds the connection as it needs it
		s = begin(t, e, engine.Options{})
		mustReadOnly(false)
		rollback(t, s)
	})
}

// What SQLite says when it can be made to say it.
func TestErrors(t *testing.T) {
	t.Parallel()
	e := open(t, file(t))
	s := begin(t, e, engine.Options{})
	defer rollback(t, s)
	exec(t, s, `CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT UNIQUE, b TEXT, c TEXT NOT NULL DEFAULT '', n INT CHECK (n > 0),
			m INT CONSTRAINT small CHECK (m < 10), UNIQUE (b, c));
		CREATE UNIQUE INDEX low ON t (lower(b));
		CREATE TABLE child (id INTEGER PRIMARY KEY, t INT REFERENCES t);
		CREATE TABLE strict (a INTEGER) STRICT;
		CREATE VIRTUAL TABLE words USING fts5 (a);
		CREATE TRIGGER heavy BEFORE INSERT ON t WHEN NEW.m = 9 BEGIN SELECT RAISE(ABORT, 'too heavy'); END;
		INSERT INTO t (id, a, b) VALUES (1, 'x', 'y'); INSERT INTO child VALUES (1, 1)`)
	const secret = "s3cr3t"
	tests := []struct {
		query string
		args  []any
		want  engine.Error
	}{
		{"INSERT INTO t (a) VALUES ('x')", nil, engine.Error{
			Kind: engine.ErrUnique, Code: "SQLITE_CONSTRAINT_UNIQUE", Table: "t", Column: "a", Message: "UNIQUE constraint failed: t.a",
		}},
		{"INSERT INTO t (b) VALUES ('y')", nil, engine.Error{
			Kind: engine.ErrUnique, Code: "SQLITE_CONSTRAINT_UNIQUE", Constraint: "low", Message: "UNIQUE constraint failed: index 'low'",
		}},
		{"DROP INDEX low; INSERT INTO t (b) VALUES ('y')", nil, engine.Error{
			Kind: engine.ErrUnique, Code: "SQLITE_CONSTRAINT_UNIQUE", Table: "t", Column: "b, c", Message: "UNIQUE constraint failed: t.b, t.c",
			Aborts: engine.AbortsLevel, // the index is gone already
		}},
		{"INSERT INTO t (id) VALUES (1)", nil, engine.Error{
			Kind: engine.ErrUnique, Code: "SQLITE_CONSTRAINT_PRIMARYKEY", Table: "t", Column: "id", Message: "UNIQUE constraint failed: t.id",
		}},
		{"INSERT INTO t (c) VALUES (NULL)", nil, engine.Error{
			Kind: engine.ErrNotNull, Code: "SQLITE_CONSTRAINT_NOTNULL", Table: "t", Column: "c", Message: "NOT NULL constraint failed: t.c",
		}},
		{"INSERT INTO t (n) VALUES (0)", nil, engine.Error{
			Kind: engine.ErrCheck, Code: "SQLITE_CONSTRAINT_CHECK", Constraint: "n > 0", Message: "CHECK constraint failed: n > 0",
		}},
		{"INSERT INTO t (m) VALUES (10)", nil, engine.Error{
			Kind: engine.ErrCheck, Code: "SQLITE_CONSTRAINT_CHECK", Constraint: "small", Message: "CHECK constraint failed: small",
		}},
		{"INSERT INTO child (t) VALUES (77)", nil, engine.Error{
			Kind: engine.ErrForeignKey, Code: "SQLITE_CONSTRAINT_FOREIGNKEY", Message: "FOREIGN KEY constraint failed",
		}},
		{"DELETE FROM t", nil, engine.Error{
			Kind: engine.ErrForeignKey, Code: "SQLITE_CONSTRAINT_FOREIGNKEY", Message: "FOREIGN KEY constraint failed",
		}},
		{"INSERT INTO t (m) VALUES (9)", nil, engine.Error{Code: "SQLITE_CONSTRAINT_TRIGGER", Message: "too heavy"}},
		{"INSERT INTO strict VALUES (?)", []any{secret}, engine.Error{
			Code: "SQLITE_CONSTRAINT_DATATYPE", Message: "cannot store TEXT value in INTEGER column strict.a",
		}},
		{"INSERT INTO t (id) VALUES (?)", []any{secret}, engine.Error{Code: "SQLITE_MISMATCH", Message: "datatype mismatch"}},
		{"SELECT * FROM nowhere", nil, engine.Error{Code: "SQLITE_ERROR", Message: "no such table: nowhere"}},
		{"SELECT 1; SELECT * FROM nowhere", nil, engine.Error{Code: "SQLITE_ERROR", Message: "no such table: nowhere"}},
		{"SELECT missing FROM t WHERE a = ?", []any{secret}, engine.Error{Code: "SQLITE_ERROR", Message: "no such column: missing"}},
		{"SELEKT", nil, engine.Error{Code: "SQLITE_ERROR", Message: `near "SELEKT": syntax error`}},
		{"SELECT json_extract('{}', ?)", []any{secret}, engine.Error{Code: "SQLITE_ERROR", Message: "bad JSON path"}},
		{"SELECT json_extract('{}', a) FROM (SELECT '" + secret + "' a)", nil, engine.Error{Code: "SQLITE_ERROR", Message: "bad JSON path"}},
		{"SELECT json(?)", []any{"{" + secret}, engine.Error{Code: "SQLITE_ERROR", Message: "malformed JSON"}},
		{"SELECT * FROM words WHERE words MATCH ?", []any{`"` + secret}, engine.Error{Code: "SQLITE_ERROR", Message: "unterminated string"}},
		{"SELECT * FROM words WHERE words MATCH ?", []any{"a " + secret + " ,"}, engine.Error{Code: "SQLITE_ERROR", Message: "fts5: syntax error near"}},
		{"SELECT * FROM words WHERE words MATCH ?", []any{secret + ":a"}, engine.Error{Code: "SQLITE_ERROR", Message: "no such column"}},
		{"ATTACH ? AS other", []any{"/nowhere/" + secret}, engine.Error{Message: "ATTACH can't run in a session; run it on the DB, outside one"}},
		{"SELECT 1; detach other", nil, engine.Error{Message: "DETACH can't run in a session; run it on the DB, outside one"}},
		{"SELECT zeroblob(99999999999)", nil, engine.Error{Code: "SQLITE_TOOBIG", Message: "string or blob too big"}},
		{"SELECT 1;\x00DROP TABLE t", nil, engine.Error{Message: "read statement: it has a NUL byte, behind which SQLite would read nothing"}},
		{"SELECT ?", nil, engine.Error{Message: "missing argument with index 1"}},
		{"VACUUM", nil, engine.Error{Message: "VACUUM can't run in a session; run it on the DB, outside one"}},
	}
	for _, test := range tests {
		got := fails(t, s, test.query, test.args...)
		if diff := cmp.Diff(test.want, *got, errorOpts); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.query, diff)
		}
		if strings.Contains(got.Error(), secret) {
			t.Errorf("%s: got %q, want no value in it", test.query, got)
		}
	}
}

// ON DELETE RESTRICT is a trigger to SQLite, and its result code is that of RAISE.
func TestRestrictIsATrigger(t *testing.T) {
	t.Parallel()
	s := begin(t, open(t, Config{}), engine.Options{})
	defer rollback(t, s)
	exec(t, s, `CREATE TABLE t (id INTEGER PRIMARY KEY); CREATE TABLE child (t INT REFERENCES t ON DELETE RESTRICT);
		INSERT INTO t VALUES (1); INSERT INTO child VALUES (1)`)
	err := fails(t, s, "DELETE FROM t")
	if err.Code != "SQLITE_CONSTRAINT_TRIGGER" || err.Kind != nil {
		t.Errorf("error: got %v, %v, want SQLITE_CONSTRAINT_TRIGGER and no kind", err, err.Kind)
	}
}

// Whatever ends the transaction behind the session's back leaves it without a way to commit a part.
func TestTransactionEndedBySQLite(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *Engine) {
		run(t, e, `CREATE TABLE t (a UNIQUE); CREATE TABLE u (a);
			CREATE TRIGGER strict BEFORE INSERT ON u BEGIN SELECT RAISE(ROLLBACK, 'no more'); END`)
		run(t, e, "INSERT INTO t VALUES (1)")
		tests := map[string]struct {
			query   string
			timeout time.Duration
			kind    error
		}{
			"OR ROLLBACK":       {"INSERT OR ROLLBACK INTO t VALUES (1)", time.Minute, engine.ErrUnique},
			"RAISE(ROLLBACK)":   {"INSERT INTO u VALUES (1)", time.Minute, nil},
			"interrupted write": {endlessWrite, 200 * time.Millisecond, engine.ErrTimeout},
		}
		for name, test := range tests {
			s := begin(t, e, engine.Options{})
			exec(t, s, "INSERT INTO t VALUES (2)")
			prepared, err := s.PrepareContext(t.Context(), "INSERT INTO t VALUES (3)")
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), test.timeout)
			_, err = s.ExecContext(ctx, test.query, nil)
			cancel()
			if err == nil {
				t.Fatalf("%s: got no error, want one", name)
			}
			failed := s.Failed(ctx, err)
			if failed.Kind != test.kind || failed.Aborts != engine.AbortsSession {
				t.Errorf("%s: got %v, %d, want %v, %d", name, failed.Kind, failed.Aborts, test.kind, engine.AbortsSession)
			}
			for what, err := range map[string]error{
				"ExecContext": fails(t, s, "INSERT INTO t VALUES (3)"),
				"Savepoint":   s.Savepoint(t.Context(), false),
				"prepared":    second(prepared.(driver.StmtExecContext).ExecContext(t.Context(), nil)),
				"prepare":     second(s.PrepareContext(t.Context(), "SELECT 1")),
			} {
				if !errors.Is(err, engine.ErrTxAborted) || !errors.Is(err, failed) {
					t.Errorf("%s after %s: got %v, want %v", what, name, err, engine.ErrTxAborted)
				}
			}
			if err := prepared.Close(); err != nil {
				t.Error(err)
			}
			outcome, err := s.Commit(t.Context(), true)
			if outcome != engine.RolledBack || !errors.Is(err, engine.ErrTxAborted) || !errors.Is(err, failed) {
				t.Errorf("commit after %s: got %v, %v, want %v, %v", name, outcome, err, engine.RolledBack, engine.ErrTxAborted)
			}
			same(t, "rows after "+name, count(t, auto(t, e)), int64(1))

			s = begin(t, e, engine.Options{})
			_, _ = s.ExecContext(t.Context(), "INSERT OR ROLLBACK INTO t VALUES (1)", nil)
			rollback(t, s)
		}
	})
}

func second[T any](_ T, err error) error { return err }

// An interrupt takes neither the connection nor, if it met a read, the transaction.
func TestInterruptedRead(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *Engine) {
		run(t, e, "CREATE TABLE t (a)")
		s := begin(t, e, engine.Options{})
		before := e.writer.slot.conn
		exec(t, s, "CREATE TEMP TABLE mine (a)")
		exec(t, s, "INSERT INTO t VALUES (1)")
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		_, err := readAll(ctx, s, endless)
		failed := s.Failed(ctx, err)
		is(t, failed, engine.ErrTimeout, context.DeadlineExceeded)
		same(t, "aborts", failed.Aborts, engine.AbortsNothing)
		same(t, "rows of the temporary table", value(t, s, "SELECT count(*) FROM mine"), driver.Value(int64(0)))
		commit(t, s)
		same(t, "rows", count(t, auto(t, e)), int64(1))
		if e.writer.slot.conn != before {
			t.Error("connection of the writer: got another, want the same")
		}
	})
}

// A write that is through when its context ends must not stay in a transaction that goes on.
func TestContextEndsBehindAWrite(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *Engine) {
		run(t, e, "CREATE TABLE t (a)")
		s := begin(t, e, engine.Options{})
		defer rollback(t, s)
		ctx, cancel := context.WithCancel(t.Context())
		rows, err := s.QueryContext(ctx, "INSERT INTO t VALUES (1), (2) RETURNING a", nil)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		err = rows.Next(make([]driver.Value, 1))
		is(t, err, context.Canceled)
		same(t, "aborts", s.Failed(ctx, err).Aborts, engine.AbortsLevel)
		if err := rows.Close(); err != nil {
			t.Error(err)
		}

		_, err = s.ExecContext(ctx, "INSERT INTO t VALUES (3)", nil) // isn't sent
		is(t, err, context.Canceled)
		same(t, "aborts", s.Failed(ctx, err).Aborts, engine.AbortsNothing)
	})
}

func TestStatementTimeout(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *Engine) {
		s := begin(t, e, engine.Options{StatementTimeout: 20 * time.Millisecond})
		_, err := readAll(t.Context(), s, endless)
		failed := s.Failed(t.Context(), err)
		is(t, failed, engine.ErrTimeout, context.DeadlineExceeded)
		contains(t, failed, "StatementTimeout of 20ms ran out")
		prepared, err := s.PrepareContext(t.Context(), endless)
		if err != nil {
			t.Fatal(err)
		}
		_, err = prepared.(driver.StmtQueryContext).QueryContext(t.Context(), nil)
		is(t, err, engine.ErrTimeout)
		if err := prepared.Close(); err != nil {
			t.Error(err)
		}
		commit(t, s)
		next := begin(t, e, engine.Options{})
		defer rollback(t, next)
		same(t, "statement timeout of the next session", e.writer.slot.conn.timeout, time.Duration(0))
	})
}

// The rows of a statement keep its time running.
func TestStatementTimeoutOfRows(t *testing.T) {
	t.Parallel()
	s := begin(t, open(t, Config{}), engine.Options{StatementTimeout: 50 * time.Millisecond})
	defer rollback(t, s)
	rows, err := s.QueryContext(t.Context(), "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT x FROM c", nil)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		err = rows.Next(make([]driver.Value, 1))
	}
	is(t, s.Failed(t.Context(), err), engine.ErrTimeout, context.DeadlineExceeded)
	if err := rows.Close(); err != nil {
		t.Error(err)
	}
	if err := rows.Close(); err != nil {
		t.Errorf("close again: got %v, want no error", err)
	}
}

func TestCommitFails(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *Engine) {
		run(t, e, "CREATE TABLE t (a INTEGER PRIMARY KEY, up INT REFERENCES t DEFERRABLE INITIALLY DEFERRED)")
		s := begin(t, e, engine.Options{})
		exec(t, s, "INSERT INTO t VALUES (1, 77)")
		outcome, err := s.Commit(t.Context(), true)
		same(t, "outcome", outcome, engine.RolledBack)
		is(t, err, engine.ErrForeignKey)
		same(t, "code", explained(t, err).Code, "SQLITE_CONSTRAINT_FOREIGNKEY")
		s = begin(t, e, engine.Options{})
		exec(t, s, "INSERT INTO t VALUES (1, 1)")
		commit(t, s)
		same(t, "rows", count(t, auto(t, e)), int64(1))
	})
}

func TestCommitIsWaitedFor(t *testing.T) {
	t.Parallel()
	e := open(t, file(t))
	s := begin(t, e, engine.Options{})
	exec(t, s, "CREATE TABLE t (a)")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Savepoint(ended, false); err != nil {
		t.Errorf("savepoint: got %v, want no error", err)
	}
	if err := s.Release(ended); err != nil {
		t.Errorf("release: got %v, want no error", err)
	}
	if outcome, err := s.Commit(ended, true); outcome != engine.Committed || err != nil {
		t.Errorf("commit: got %v, %v, want %v", outcome, err, engine.Committed)
	}
	same(t, "rows", count(t, auto(t, e)), int64(0))
}

// Rows that somebody forgot neither block the end of a session nor the next one.
func TestOpenRowsAtTheEnd(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *Engine) {
		run(t, e, "CREATE TABLE t (a); INSERT INTO t VALUES (1), (2)")
		for _, end := range []func(*testing.T, engine.Session){commit, rollback} {
			s := begin(t, e, engine.Options{})
			rows, err := s.QueryContext(t.Context(), "SELECT a FROM t", nil)
			if err != nil {
				t.Fatal(err)
			}
			end(t, s)
			_ = rows.Close()
			run(t, e, "UPDATE t SET a = 3")
		}
	})
}

// Another process is another Engine here: SQLite tells them apart by connection.
func TestLockedByAnotherProcess(t *testing.T) {
	t.Parallel()
	cfg := file(t)
	e, other := open(t, cfg), open(t, cfg)
	s := begin(t, other, engine.Options{})
	exec(t, s, "CREATE TABLE t (a)")

	_, err := started(t.Context(), e, engine.Options{LockTimeout: 20 * time.Millisecond})
	is(t, err, engine.ErrLocked)
	contains(t, err, "begin session: another process holds the lock, gave up after 20ms")
	same(t, "retry", explained(t, err).Retry, engine.RetryUnasked)
	if errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error: got %v, want none of the context, which hasn't ended", err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = started(ctx, e, engine.Options{})
	is(t, err, engine.ErrTimeout, context.DeadlineExceeded)
	_, err = e.BeginMigration(ctx)
	is(t, err, engine.ErrTimeout, context.DeadlineExceeded)

	ready := make(chan error)
	go func() {
		s, err := e.BeginMigration(context.WithoutCancel(t.Context()))
		if err == nil {
			_, err = s.Commit(context.Background(), true)
		}
		ready <- err
	}()
	commit(t, s)
	if err := <-ready; err != nil {
		t.Errorf("migration after the lock is free: got %v, want no error", err)
	}

	short := cfg
	short.BusyTimeout = time.Millisecond
	s = begin(t, other, engine.Options{})
	defer rollback(t, s)
	_, err = started(t.Context(), open(t, short), engine.Options{})
	is(t, err, engine.ErrLocked)
	contains(t, err, "gave up after 1ms")
	same(t, "code", explained(t, err).Code, "SQLITE_BUSY")
	same(t, "retry", explained(t, err).Retry, engine.RetryUnasked)
}

// What runs in no transaction waits for other processes too.
func TestAloneBesideAnotherProcess(t *testing.T) {
	t.Parallel()
	cfg := file(t)
	e, other := open(t, cfg), open(t, cfg)
	run(t, e, "CREATE TABLE t (a)")
	for _, runs := range []func() error{
		func() error { return second(auto(t, e).ExecContext(t.Context(), "VACUUM", nil)) },
		func() error { return second(readAll(t.Context(), auto(t, e), "VACUUM")) },
	} {
		holder := begin(t, other, engine.Options{})
		ended := make(chan error)
		go func() { ended <- runs() }()
		time.Sleep(20 * time.Millisecond) // so that it has to wait
		commit(t, holder)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func TestMigration(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *Engine) {
		for range 2 {
			s, err := e.BeginMigration(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			contains(t, errors.New(e.holds()), `session "migration"`)
			same(t, "versions", value(t, s, "SELECT count(*) FROM schema_migrations WHERE version = 1 AND NOT dirty"), driver.Value(int64(0)))
			commit(t, s)
		}
		same(t, "schema", rowsOf(t, auto(t, e), "SELECT name FROM sqlite_schema ORDER BY name"),
			[][]driver.Value{{"schema_migrations"}, {"version_unique"}})
		run(t, e, "DROP TABLE schema_migrations; CREATE VIEW schema_migrations AS SELECT 1")
		_, err := e.BeginMigration(t.Context())
		contains(t, err, "SQLITE_ERROR")
		run(t, e, "CREATE TABLE t (a)") // the writer is free
	})
}

// Times are text that sorts, and come back as they were, in UTC.
func TestTimes(t *testing.T) {
	t.Parallel()
	s := begin(t, open(t, Config{}), engine.Options{})
	defer rollback(t, s)
	exec(t, s, "CREATE TABLE t (at TIMESTAMP)")
	zone := time.FixedZone("X", 5*3600+1800)
	base := time.Date(2026, 3, 1, 3, 4, 5, 0, zone)
	times := []time.Time{base, base.Add(time.Nanosecond), base.Add(100 * time.Millisecond), base.Add(time.Second), base.Add(time.Hour), time.Now()}
	for _, at := range times {
		exec(t, s, "INSERT INTO t VALUES (?)", at)
	}
	var want [][]driver.Value
	for _, at := range times {
		want = append(want, []driver.Value{at.Round(0).UTC()})
	}
	same(t, "times in order", rowsOf(t, s, "SELECT at FROM t ORDER BY at"), want)
	same(t, "text", value(t, s, "SELECT CAST(at AS TEXT) FROM t LIMIT 1"), driver.Value("2026-02-28 21:34:05+00:00"))
	same(t, "returned time", rowsOf(t, s, "UPDATE t SET at = at WHERE rowid = 1 RETURNING at"), want[:1])
	same(t, "SQLite's reading", value(t, s, "SELECT strftime('%H:%M', at) FROM t LIMIT 1"), driver.Value("21:34"))
}

func TestValues(t *testing.T) {
	t.Parallel()
	c := auto(t, open(t, Config{}))
	for _, want := range []driver.Value{nil, int64(-1), 1.5, "", "a\x00b", []byte{0, 1}, []byte{}, "é"} {
		same(t, fmt.Sprintf("%T", want), value(t, c, "SELECT ?", want), want)
	}
	same(t, "?2, ?1", rowsOf(t, c, "SELECT ?2, ?1", int64(1), int64(2)), [][]driver.Value{{int64(2), int64(1)}})
}

// TestTransactionEndedBehindOurBack ends the transaction by what a connection
// hook was given: what it did may be committed.
func TestTransactionEndedBehindOurBack(t *testing.T) {
	t.Parallel()
	var raw sqlite.ExecQuerierContext
	e, err := Open(t.Context(), Config{Driver: func(d *sqlite.Driver) error {
		d.RegisterConnectionHook(func(c sqlite.ExecQuerierContext, _ string) error { raw = c; return nil })
		return nil
	}}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close(t.Context())
	cause := errors.New("cause")
	for text, want := range map[string]engine.Outcome{
		"COMMIT": engine.Unknown, "COMMIT; BEGIN": engine.Unknown, "ROLLBACK; BEGIN; CREATE TABLE IF NOT EXISTS u (a); INSERT INTO u VALUES (1); COMMIT; BEGIN": engine.Unknown,
		"ROLLBACK": engine.RolledBack, "ROLLBACK; BEGIN": engine.RolledBack,
	} {
		for _, commits := range []bool{true, false} {
			s, err := e.Begin(t.Context(), engine.Options{})
			if err != nil {
				t.Fatal(err)
			}
			exec(t, s, "CREATE TABLE IF NOT EXISTS t (a)")
			if _, err := raw.ExecContext(t.Context(), text, nil); err != nil {
				t.Fatal(err)
			}
			if _, err := s.ExecContext(t.Context(), "INSERT INTO t VALUES (1)", nil); strings.Contains(text, ";") && err == nil {
				t.Errorf("%s: got error nil for a statement behind it: it is another transaction", text)
			}
			var outcome engine.Outcome
			if commits {
				outcome, err = s.Commit(t.Context(), true)
			} else {
				outcome, err = s.Rollback(t.Context(), cause)
			}
			// Of its own ROLLBACK SQLite tells: nothing was committed.
			if outcome != want || (want == engine.Unknown) != errors.Is(err, engine.ErrTxControl) || commits && err == nil {
				t.Errorf("%s, and then commit is %t: got outcome %d and error %v, want %d", text, commits, outcome, err, want)
			}
			if err != nil && !commits && !errors.Is(err, cause) {
				t.Errorf("%s: got error %v, want the cause in it", text, err)
			}
			if open, _ := e.writer.slot.conn.rollback(t.Context()); open {
				t.Errorf("%s, and then commit is %t: a transaction is left open", text, commits)
			}
		}
	}
}

package sqlite

import (
	"context"
	"database/sql/driver"
	"fmt"
	"strings"
	"testing"

	"modernc.org/sqlite"

	"github.com/tholedb/thole/internal/engine"
)

// Statements that are kept are as good as new ones when somebody has changed the tables.
func TestKeptStatementsSurviveSchemaChanges(t *testing.T) {
	t.Parallel()
	e, _ := shop(t)
	other := open(t, e.cfg)
	adds := func(want ...driver.Value) {
		t.Helper()
		run(t, e, "INSERT INTO t DEFAULT VALUES")
		all := rowsOf(t, auto(t, e), "SELECT * FROM t")
		same(t, "columns", fmt.Sprint(all[len(all)-1]), fmt.Sprint(want))
	}
	adds(int64(1))
	run(t, e, "ALTER TABLE t ADD COLUMN b DEFAULT 'own'")
	adds(int64(2), "own")
	run(t, other, "ALTER TABLE t ADD COLUMN c DEFAULT 'of another'")
	adds(int64(3), "own", "of another")
	run(t, other, "ALTER TABLE t DROP COLUMN b")
	adds(int64(4), "of another")
	run(t, other, "DROP TABLE t")
	contains(t, fails(t, auto(t, e), "INSERT INTO t DEFAULT VALUES"), "no such table: t")
	run(t, other, "CREATE TABLE t (x INTEGER PRIMARY KEY, y DEFAULT 'new')")
	same(t, "columns", fmt.Sprint(rowsOf(t, auto(t, e), "SELECT * FROM t")), "[]")
	adds(int64(1), "new")
}

// A statement with open rows, or given out as a prepared one, is not the one that runs next.
func TestLentStatementIsNotTaken(t *testing.T) {
	t.Parallel()
	e, w := shop(t)
	s := begin(t, e, engine.Options{})
	defer rollback(t, s)
	const text = "INSERT INTO t VALUES (?)"
	for range 2 { // both times the first is kept, and the second is not
		prepared, err := s.PrepareContext(t.Context(), text)
		if err != nil {
			t.Fatal(err)
		}
		exec(t, s, text, int64(w.prepared[text]*10))
		if _, err := prepared.(driver.StmtExecContext).ExecContext(t.Context(), values([]any{int64(w.prepared[text]*10 + 1)})); err != nil {
			t.Error(err)
		}
		if err := prepared.Close(); err != nil {
			t.Error(err)
		}
	}
	same(t, "prepared", w.prepared[text], 3)
	kept := &e.writer.slot.conn.statements
	same(t, "kept", kept.recent.Len(), len(kept.byText))
	same(t, "rows", len(rowsOf(t, s, "SELECT a FROM t")), 4)
}

// Statements that are run seldom make room.
func TestFewStatementsAreKept(t *testing.T) {
	t.Parallel()
	e, w := shop(t)
	s := begin(t, e, engine.Options{})
	defer rollback(t, s)
	text := func(i int) string { return fmt.Sprintf("INSERT INTO t VALUES (%d)", i) }
	for i := range keptStatements + 10 {
		exec(t, s, text(i))
		exec(t, s, "DELETE FROM t")
	}
	kept := &e.writer.slot.conn.statements
	same(t, "kept", kept.recent.Len(), keptStatements)
	same(t, "by their text", len(kept.byText), keptStatements)
	same(t, "what is run often", w.prepared["DELETE FROM t"], 1)
	prepared, err := s.PrepareContext(t.Context(), "SELECT 'lent'")
	if err != nil {
		t.Fatal(err)
	}
	for i := range keptStatements + 10 {
		exec(t, s, text(i))
		exec(t, s, "DELETE FROM t")
	}
	if _, err := prepared.(driver.StmtExecContext).ExecContext(t.Context(), nil); err != nil {
		t.Errorf("a statement that is lent: %v", err)
	}
	if err := prepared.Close(); err != nil {
		t.Error(err)
	}
	clear(w.prepared)
	exec(t, s, text(keptStatements+9))
	same(t, "the last", w.prepared[text(keptStatements+9)], 0)
	exec(t, s, text(0))
	same(t, "the first", w.prepared[text(0)], 1)
}

// What takes effect as it is prepared, or runs once, or is long, is not kept.
func TestWhatIsKept(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"SELECT 1": true, "values (1)": true, "WITH a AS (SELECT 1) UPDATE t SET a = 1": true,
		"REPLACE INTO t VALUES (1)": true, "DELETE FROM t;": true, "-- b\nINSERT INTO t VALUES (1)": true,
		"PRAGMA cache_size = 1": false, "CREATE TABLE t (a)": false, "SELECT 1; SELECT 2": false, "": false,
		"SELECT '" + strings.Repeat("a", longestKept) + "'": false, "ATTACH 'a' AS b": false, "EXPLAIN SELECT 1": false,
	} {
		same(t, text[:min(len(text), 50)], isKept(text), want)
	}
}

// A function that panics leaves its statement in the middle: it is not run again.
func TestStatementOfAPanicIsDropped(t *testing.T) {
	t.Parallel()
	cfg := file(t)
	cfg.Driver = func(d *sqlite.Driver) error {
		return d.RegisterScalarFunction("explode", 1, func(_ *sqlite.FunctionContext, args []driver.Value) (driver.Value, error) {
			if args[0] == int64(1) {
				panic("boom")
			}
			return args[0], nil
		})
	}
	e := open(t, cfg)
	run(t, e, "CREATE TABLE t (a)")
	s := begin(t, e, engine.Options{})
	const text = "INSERT INTO t VALUES (explode(?))"
	prepared, err := s.PrepareContext(t.Context(), text)
	if err != nil {
		t.Fatal(err)
	}
	one, two := values([]any{int64(1)}), values([]any{int64(2)})
	panics(t, func() { _, _ = prepared.(driver.StmtExecContext).ExecContext(t.Context(), one) })
	if err := prepared.Close(); err != nil {
		t.Error(err)
	}
	panics(t, func() { _, _ = s.ExecContext(t.Context(), text, one) })
	panics(t, func() { _, _ = s.QueryContext(t.Context(), "SELECT explode(?)", one) })
	if _, err := s.ExecContext(t.Context(), text, two); err != nil {
		t.Error(err)
	}
	commit(t, s)
	same(t, "rows", fmt.Sprint(rowsOf(t, auto(t, e), "SELECT a FROM t")), "[[2]]")
	if err := e.writer.slot.conn.settle(context.Background(), "VACUUM"); err != nil {
		t.Errorf("a statement is still running: %v", err)
	}
}

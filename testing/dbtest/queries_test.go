package dbtest_test

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/testing/dbtest"
)

// path is a way in which statements run, and what is to be seen of it.
type path struct {
	run  func(ctx context.Context, q thole.Querier) error
	want []string // a part of each statement
	rows []int64  // -1 is not known
}

// paths are those of both engines.
var paths = map[string]path{
	"exec": {func(ctx context.Context, q thole.Querier) error {
		_, err := q.ExecContext(ctx, "insert into item (name) values (?), (?)", "a", "b")
		return err
	}, []string{"insert"}, []int64{2}},
	"query": {func(ctx context.Context, q thole.Querier) error {
		rows, err := q.QueryContext(ctx, "select 1 union all select 2")
		if err != nil {
			return err
		}
		for rows.Next() {
		}
		return rows.Close()
	}, []string{"select 1"}, []int64{2}},
	"query row": {func(ctx context.Context, q thole.Querier) error {
		return q.QueryRowContext(ctx, "select 1").Scan(new(int))
	}, []string{"select 1"}, []int64{1}},
	"get and select": {func(ctx context.Context, q thole.Querier) error {
		if err := q.GetContext(ctx, new(int), "select 1"); err != nil {
			return err
		}
		return q.SelectContext(ctx, new([]int), "select 2 union all select 3")
	}, []string{"select 1", "select 2"}, []int64{1, 2}},
	"sqlx": {func(ctx context.Context, q thole.Querier) error {
		rows, err := q.QueryxContext(ctx, "select 1")
		if err != nil {
			return err
		}
		rows.Next()
		return rows.Close()
	}, []string{"select 1"}, []int64{1}},
	"named": {func(ctx context.Context, q thole.Querier) error {
		_, err := q.NamedExecContext(ctx, "insert into item (name) values (:name)", Item{Name: "named"})
		return err
	}, []string{"insert"}, []int64{1}},
	"prepared": {func(ctx context.Context, q thole.Querier) error {
		prepared, err := q.PrepareContext(ctx, "select 1")
		if err != nil {
			return err
		}
		defer prepared.Close()
		for range 2 {
			if err := prepared.QueryRowContext(ctx).Scan(new(int)); err != nil {
				return err
			}
		}
		return nil
	}, []string{"select 1", "select 1"}, []int64{1, 1}},
	"one, all and each": {func(ctx context.Context, q thole.Querier) error {
		if _, err := thole.One[int](ctx, q, "select 1"); err != nil {
			return err
		}
		if _, err := thole.All[int](ctx, q, "select 2"); err != nil {
			return err
		}
		for _, err := range thole.Each[int](ctx, q, "select 3 union all select 4") {
			if err != nil {
				return err
			}
		}
		return nil
	}, []string{"select 1", "select 2", "select 3"}, []int64{1, 1, 2}},
	"insert": {func(ctx context.Context, q thole.Querier) error {
		_, err := thole.Insert(ctx, q, Item{Name: "one"})
		return err
	}, []string{"insert into"}, []int64{1}},
	"insert all": {func(ctx context.Context, q thole.Querier) error {
		return thole.InsertAll(ctx, q, []Item{{Name: "one"}, {Name: "two"}})
	}, []string{"insert into"}, []int64{2}},
}

// Item is a model.
type Item struct {
	Name string
}

// TableName is the name of the table.
func (Item) TableName() string { return "item" }

// pgxPaths are those of PostgreSQL.
var pgxPaths = map[string]func(ctx context.Context, on thole.Pgx) error{
	"pgx": func(ctx context.Context, on thole.Pgx) error {
		if _, err := on.Exec(ctx, "insert into item (name) values ($1)", "pgx"); err != nil {
			return err
		}
		rows, err := on.Query(ctx, "select 2 union all select 3")
		if err != nil {
			return err
		}
		for rows.Next() {
		}
		return rows.Err()
	},
	"batch": func(ctx context.Context, on thole.Pgx) error {
		batch := new(pgx.Batch)
		batch.Queue("insert into item (name) values ($1)", "batch")
		batch.Queue("select 2")
		return on.SendBatch(ctx, batch).Close()
	},
	"copy": func(ctx context.Context, on thole.Pgx) error {
		_, err := on.CopyFrom(ctx, pgx.Identifier{"item"}, []string{"name"}, pgx.CopyFromRows([][]any{{"copy"}}))
		return err
	},
}

// TestB39Paths: the statements of every path are counted, and nothing else.
func TestB39Paths(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, config dbtest.Config) {
		for name, path := range paths {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				db := config.Sandbox(t)
				wantPath(t, db, path, func(ctx context.Context) error { return path.run(ctx, db) })
			})
			t.Run(name+" in a session", func(t *testing.T) {
				t.Parallel()
				db := config.Sandbox(t)
				wantPath(t, db, path, func(ctx context.Context) error {
					return db.WithSession(ctx, func(tx *thole.Tx) error {
						return tx.WithSession(ctx, func(tx *thole.Tx) error { return path.run(ctx, tx) })
					})
				})
			})
		}
	})
}

func wantPath(t *testing.T, db *thole.DB, path path, run func(ctx context.Context) error) {
	t.Helper()
	var err error
	log := dbtest.Queries(t, db, func() { err = run(t.Context()) })
	if err != nil {
		t.Fatal(err)
	}
	log.Count(len(path.want))
	log.Match(path.want...)
	for i, st := range log.Statements() {
		if !strings.HasPrefix(st.Caller, "dbtest/queries_test.go:") {
			t.Errorf("got the call site %q of %q", st.Caller, st.Text)
		}
		if i < len(path.rows) && st.Rows != path.rows[i] {
			t.Errorf("got %d rows of %q, want %d", st.Rows, st.Text, path.rows[i])
		}
	}
}

// TestB39PathsOfPgx: so are those of pgx's own interfaces.
func TestB39PathsOfPgx(t *testing.T) {
	t.Parallel()
	config := stock
	config.Engines = []thole.Engine{thole.Postgres}
	want := map[string]path{
		"pgx":   {want: []string{"insert", "select 2"}, rows: []int64{1, 2}},
		"batch": {want: []string{"insert", "select 2"}, rows: []int64{-1, -1}},
		"copy":  {want: []string{`insert into "item"`}, rows: []int64{-1}},
	}
	for name, run := range pgxPaths {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := config.Sandbox(t)
			wantPath(t, db, want[name], func(ctx context.Context) error { return run(ctx, db.Pgx()) })
		})
		t.Run(name+" in a session", func(t *testing.T) {
			t.Parallel()
			db := config.Sandbox(t)
			wantPath(t, db, want[name], func(ctx context.Context) error {
				return db.WithSession(ctx, func(tx *thole.Tx) error { return run(ctx, tx.Pgx()) })
			})
		})
	}
}

// TestB39Failures: what is not as it is wanted fails the test, which goes on, and
// lists the statements by fingerprint with repeats marked.
func TestB39Failures(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, config dbtest.Config) {
		for name, test := range map[string]struct {
			check func(log *dbtest.QueryLog)
			want  string
		}{
			"count":       {func(l *dbtest.QueryLog) { l.Count(4) }, ""},
			"other count": {func(l *dbtest.QueryLog) { l.Count(3) }, "got 4 statements, want 3"},
			"max":         {func(l *dbtest.QueryLog) { l.Max(4) }, ""},
			"other max":   {func(l *dbtest.QueryLog) { l.Max(1) }, "got 4 statements, want at most 1"},
			"match":       {func(l *dbtest.QueryLog) { l.Match("NAME  from\nItem", "where id") }, ""},
			"other order": {func(l *dbtest.QueryLog) { l.Match("where id", "select name from item order") }, `no statement with "select name from item order" behind that with "where id"`},
			"none":        {func(l *dbtest.QueryLog) { l.None("delete") }, ""},
			"some":        {func(l *dbtest.QueryLog) { l.None("WHERE  id") }, `want no statement with "WHERE  id"`},
			"none at all": {func(l *dbtest.QueryLog) { l.None("") }, "want no statement"},
		} {
			t.Run(name, func(t *testing.T) {
				got := record(t, func(tb testing.TB) {
					tb.Helper()
					db := config.Sandbox(tb)
					test.check(dbtest.Queries(tb, db, func() { listOneByOne(tb, db) }))
				})
				if got.Failed() != (test.want != "") || !strings.Contains(got.output(), test.want) {
					t.Errorf("got %q, want %q", got.output(), test.want)
				}
				if test.want == "" {
					return
				}
				for _, want := range []string{
					"3 × select name from item where id = ?\n\t\tat dbtest/queries_test.go:", ": repeated, 3 times",
					"1 × select name from item order by id\n",
				} {
					if !strings.Contains(got.output(), want) {
						t.Errorf("got %q, want it to contain %q", got.output(), want)
					}
				}
			})
		}
	})
}

// listOneByOne has the N + 1 problem.
func listOneByOne(tb testing.TB, db *thole.DB) {
	tb.Helper()
	if _, err := thole.All[string](tb.Context(), db, "select name from item order by id"); err != nil {
		tb.Fatal(err)
	}
	for id := range 3 {
		if _, err := thole.All[string](tb.Context(), db, "select name from item where id = ?", id); err != nil {
			tb.Fatal(err)
		}
	}
}

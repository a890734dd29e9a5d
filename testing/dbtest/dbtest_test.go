package dbtest_test

import (
	"context"
	"testing"
	"testing/fstest"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/testing/dbtest"
)

var config = dbtest.Config{
	Migrations: fstest.MapFS{
		"1_item.up.sql":   {Data: []byte("create table item (name text primary key)")},
		"1_item.down.sql": {Data: []byte("drop table item")},
	},
	Fixtures: func(ctx context.Context, db *thole.DB) error { return insert(ctx, db, "fixture") },
}

func insert(ctx context.Context, q thole.Querier, name string) error {
	_, err := q.ExecContext(ctx, "insert into item (name) values (?)", name)
	return err
}

func count(t *testing.T, q thole.Querier) int {
	t.Helper()
	var n int
	if err := q.GetContext(t.Context(), &n, "select count(*) from item"); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestEachDatabase runs twice at once: neither sees the other's rows.
func TestEachDatabase(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"one", "another"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config.EachDatabase(t, func(t *testing.T, db *thole.DB) {
				if got, want := string(db.Engine()), t.Name()[len(t.Name())-len(db.Engine()):]; got != want {
					t.Errorf("got engine %s in the subtest %s", got, want)
				}
				err := db.WithSession(t.Context(), func(tx *thole.Tx) error { return insert(t.Context(), tx, name) })
				if err != nil {
					t.Fatal(err)
				}
				if got := count(t, db); got != 2 {
					t.Errorf("got %d rows, want the fixture and the test's own", got)
				}
			})
		})
	}
}

func TestEngines(t *testing.T) {
	t.Parallel()
	only := config
	only.Engines = []thole.Engine{thole.Postgres}
	if got := only.Database(t).Engine(); got != thole.Postgres {
		t.Errorf("Database: got engine %s, want the first of Engines", got)
	}
	only.Each(t, func(t *testing.T, db *thole.DB) {
		if db.Engine() != thole.Postgres {
			t.Errorf("Each: got a subtest on %s, which is not among Engines", db.Engine())
		}
	})
}

func TestSession(t *testing.T) {
	t.Parallel()
	for _, engine := range []thole.Engine{thole.SQLite, thole.Postgres} {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			config := config
			config.Engines = []thole.Engine{engine}
			var ended *thole.Tx
			t.Run("in use", func(t *testing.T) {
				tx := config.Session(t)
				if err := insert(t.Context(), tx, "in the session"); err != nil {
					t.Fatal(err)
				}
				if got := count(t, tx); got != 2 {
					t.Errorf("got %d rows, want the fixture and the test's own", got)
				}
				ended = tx
			})
			if err := insert(t.Context(), ended, "too late"); err == nil {
				t.Error("the session outlived its test")
			}
		})
	}
}

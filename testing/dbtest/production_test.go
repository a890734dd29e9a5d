package dbtest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/testing/dbtest"
)

// Each test of this file wants of a sandbox what a Database does, and was found where
// it did not.

var (
	lite = dbtest.Config{Engines: []thole.Engine{thole.SQLite}}
	pg   = dbtest.Config{
		Engines: []thole.Engine{thole.Postgres},
		Migrations: fstest.MapFS{
			"1_a.up.sql": {Data: []byte(`
create table parent (id integer primary key);
create table item (id integer primary key, parent integer references parent deferrable initially deferred);
create table other (id integer primary key);
create schema hidden;
create table hidden.p (id integer primary key, q integer references hidden.p deferrable initially deferred);`)},
			"1_a.down.sql": {Data: []byte(`drop table item`)},
		},
	}
)

// run runs statements in one session.
func run(db *thole.DB, texts ...string) error {
	return db.WithSession(context.Background(), func(tx *thole.Tx) error {
		for _, text := range texts {
			if _, err := tx.ExecContext(context.Background(), text); err != nil {
				return fmt.Errorf("%s: %w", text, err)
			}
		}
		return nil
	})
}

func ok(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

func want(t *testing.T, q thole.Querier, query, want string) {
	t.Helper()
	if got, err := thole.One[string](context.Background(), q, query); err != nil || got != want {
		t.Errorf("%s: got %q, %v, want %q", query, got, err, want)
	}
}

// Outside a session what is written for pgx is told of deferred constraints.
func TestDeferredByPgx(t *testing.T) {
	t.Parallel()
	db := pg.Sandbox(t)
	for name, exec := range map[string]func() error{
		"QueryRow": func() error {
			var id int
			return db.Pgx().QueryRow(t.Context(), "insert into item values (1, 9) returning id").Scan(&id)
		},
		"Query": func() error {
			rows, err := db.Pgx().Query(t.Context(), "insert into item values (2, 9) returning id")
			if err != nil {
				return err
			}
			_, err = pgx.CollectRows(rows, pgx.RowTo[int])
			return err
		},
		"SendBatch": func() error {
			b := new(pgx.Batch)
			b.Queue("insert into item values (3, 9)")
			return db.Pgx().SendBatch(t.Context(), b).Close()
		},
		"CopyFrom": func() error {
			_, err := db.Pgx().CopyFrom(t.Context(), pgx.Identifier{"item"}, []string{"id", "parent"}, pgx.CopyFromRows([][]any{{4, 9}}))
			return err
		},
	} {
		if err := exec(); !errors.Is(err, thole.ErrForeignKey) {
			t.Errorf("%s: got %v, want ErrForeignKey", name, err)
		}
	}
}

// What COMMIT does to temporary tables is done to no other of that name.
func TestTemporaryByName(t *testing.T) {
	t.Parallel()
	db := pg.Sandbox(t)
	ok(t, "fill", run(db, "insert into other values (1), (2)"))
	ok(t, "session", db.WithSession(t.Context(), func(tx *thole.Tx) error {
		_ = tx.WithSession(t.Context(), func(tx *thole.Tx) error {
			_, err := tx.ExecContext(t.Context(), "create temp table other (n integer) on commit delete rows")
			return errors.Join(err, errors.ErrUnsupported)
		})
		return nil
	}))
	want(t, db, "select count(*)::text from other", "2")
	ok(t, "drop it oneself", run(db, "create temp table other (n integer) on commit drop", "drop table pg_temp.other"))
	want(t, db, "select coalesce(to_regclass('public.other')::text, 'gone')", "other")
	ok(t, "path", run(db, "create table if not exists other (id integer)"))
	ok(t, "path", run(db, "set local search_path = public, pg_temp", "create temp table other (n integer) on commit drop"))
	want(t, db, "select coalesce(to_regclass('public.other')::text, 'gone')", "other")
}

// A statement whose rows were not read is told to be unknown, not rolled back.
func TestOutcomeOfRows(t *testing.T) {
	t.Parallel()
	db := pg.Sandbox(t)
	check := func(what string, err error) {
		n, _ := thole.One[int](context.Background(), db, "select count(*) from other")
		if n > 0 && err != nil && thole.OutcomeOf(err) == thole.RolledBack {
			t.Errorf("%s: %v: told that it is rolled back, and %d rows are there", what, err, n)
		}
		_, _ = db.ExecContext(context.Background(), "delete from other")
	}
	ctx, cancel := context.WithCancel(t.Context())
	rows, err := db.Pgx().Query(ctx, "insert into other select generate_series(1, 3) returning id")
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	_, err = pgx.CollectRows(rows, pgx.RowTo[int])
	check("pgx", err)

	ctx, cancel = context.WithCancel(t.Context())
	read, err := db.QueryContext(ctx, "insert into other select generate_series(1, 3) returning id")
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	time.Sleep(20 * time.Millisecond) // database/sql closes the rows in the background
	for read.Next() {
	}
	check("sql", read.Err())
}

// A hook is not inside the session that another goroutine has opened at the same place.
func TestHookBesideSession(t *testing.T) {
	t.Parallel()
	for _, config := range []dbtest.Config{lite, pg} {
		db := config.Sandbox(t)
		ok(t, "table", run(db, "create table log (n integer)"))
		committed, entered, hook := make(chan bool), make(chan bool), make(chan error, 1)
		sell := func(first bool) error {
			return db.WithSession(context.Background(), func(tx *thole.Tx) error {
				if first {
					tx.OnCommit(func(ctx context.Context) {
						close(committed)
						<-entered
						_, err := db.ExecContext(ctx, "insert into log values (1)")
						hook <- err
					})
				} else {
					<-committed
				}
				_, err := tx.ExecContext(context.Background(), "insert into log values (2)")
				if !first {
					close(entered)
					time.Sleep(20 * time.Millisecond)
				}
				return err
			})
		}
		done := make(chan error)
		for _, first := range []bool{true, false} {
			go func() { done <- sell(first) }()
		}
		ok(t, "session", <-done)
		ok(t, "session", <-done)
		ok(t, "the hook's statement", <-hook)
	}
}

// A role commits beside constraints that it has no right to name.
func TestCommitByRole(t *testing.T) {
	t.Parallel()
	db := pg.Sandbox(t)
	ok(t, "role", run(db, "create role thole_f06", "grant all on other to thole_f06"))
	ok(t, "commit", db.WithSessionOptions(t.Context(), thole.SessionOptions{Settings: map[string]string{"role": "thole_f06"}}, func(tx *thole.Tx) error {
		_, err := tx.ExecContext(t.Context(), "insert into other values (1)")
		return err
	}))
}

// Constraints of temporary tables end with them.
func TestTemporaryConstraint(t *testing.T) {
	t.Parallel()
	db := pg.Sandbox(t)
	ok(t, "first", run(db, "create temp table tt (n integer unique deferrable initially deferred) on commit drop"))
	ok(t, "every later session", run(db, "insert into other values (1)"))
}

// Cursors end with their session.
func TestCursor(t *testing.T) {
	t.Parallel()
	db := pg.Sandbox(t)
	for range 2 {
		ok(t, "cursor", run(db, "declare c cursor for select 1", "fetch all from c"))
	}
}

// Temporary tables are dropped with what depends on them, and emptied by each session.
func TestTemporaryOnCommit(t *testing.T) {
	t.Parallel()
	db := pg.Sandbox(t)
	ok(t, "with a view on it", run(db, "create temp table fv (n integer) on commit drop", "create temp view v as select * from fv"))
	ok(t, "with a foreign key", run(db, "create temp table x8 (n integer primary key) on commit delete rows",
		"create temp table x9 (n integer references x8) on commit delete rows", "insert into x8 values (1)", "insert into x9 values (1)"))
	ok(t, "keep", run(db, "create temp table emptied (n integer) on commit delete rows"))
	ok(t, "a later session", run(db, "insert into emptied values (1)"))
	want(t, db, "select count(*)::text from emptied", "0")
}

// What is prepared in any way is not seen by the next test.
func TestPrepared(t *testing.T) {
	t.Parallel()
	for i, text := range []string{"select 1", "select 2"} {
		t.Run("pgx Prepare "+fmt.Sprint(i), func(t *testing.T) {
			ok(t, "prepare", pg.Sandbox(t).WithSession(t.Context(), func(tx *thole.Tx) error {
				_, err := tx.Pgx().Conn().Prepare(t.Context(), "q", text)
				return err
			}))
		})
	}
	for i := range 2 {
		t.Run("script "+fmt.Sprint(i), func(t *testing.T) {
			ok(t, "prepare", run(pg.Sandbox(t), "select 1; prepare q2 as select 1"))
		})
	}
	for i, text := range []string{"create table tab (n integer)", "create table tab (a text, b text)"} {
		t.Run("pgx's cache "+fmt.Sprint(i), func(t *testing.T) {
			ok(t, "query", pg.Sandbox(t).WithSession(t.Context(), func(tx *thole.Tx) error {
				if _, err := tx.ExecContext(t.Context(), text); err != nil {
					return err
				}
				rows, err := tx.Pgx().Conn().Query(t.Context(), "select * from tab")
				if err != nil {
					return err
				}
				rows.Close()
				return rows.Err()
			}))
		})
	}
	for i, text := range []string{"create table tab (n integer)", "create table tab (a text, b text)"} {
		t.Run("DDL by pgx, then thole's cache "+fmt.Sprint(i), func(t *testing.T) {
			ok(t, "query", pg.Sandbox(t).WithSession(t.Context(), func(tx *thole.Tx) error {
				if _, err := tx.Pgx().Conn().Exec(t.Context(), text); err != nil {
					return err
				}
				rows, err := tx.QueryContext(t.Context(), "select * from tab ")
				if err != nil {
					return err
				}
				return rows.Close()
			}))
		})
	}
}

// The session authorization is reset.
func TestAuthorization(t *testing.T) {
	t.Parallel()
	db := dbtest.Config{Engines: []thole.Engine{thole.Postgres}}.Sandbox(t)
	ok(t, "role", run(db, "create role thole_f11"))
	ok(t, "session", run(db, "set local session authorization thole_f11"))
	want(t, db, "select (session_user = 'thole_f11')::text", "false")
	ok(t, "the next session", run(db, "create table x (n integer)"))
}

// A sandbox may be idle between sessions as long as it likes.
func TestIdleTimeout(t *testing.T) {
	t.Parallel()
	config := pg
	config.Configure = func(cfg *thole.Config) {
		cfg.Postgres.ConnConfig.RuntimeParams["idle_in_transaction_session_timeout"] = "200"
	}
	db := config.Sandbox(t)
	ok(t, "first", run(db, "insert into other values (1)"))
	time.Sleep(500 * time.Millisecond) // what the test does beside the database
	ok(t, "second", run(db, "insert into other values (2)"))
}

// Constraints of one name are each what they are.
func TestSharedName(t *testing.T) {
	t.Parallel()
	db := pg.Sandbox(t)
	ok(t, "tables", run(db, "create table s1 (n integer constraint same unique deferrable initially deferred)",
		"create table s2 (n integer constraint same check (n > 0))"))
	ok(t, "swap", run(db, "insert into s1 values (1)", "insert into s1 values (1)", "delete from s1"))
}

// A constraint that a function has made is checked.
func TestConstraintMadeByFunction(t *testing.T) {
	t.Parallel()
	db := pg.Sandbox(t)
	ok(t, "function", run(db, `create function ddl() returns void language plpgsql as $$ begin
		execute 'create table fc (n integer unique deferrable initially deferred)'; end $$`))
	if err := run(db, "select ddl()", "insert into fc values (1), (1)"); !errors.Is(err, thole.ErrUnique) {
		t.Errorf("got %v, want ErrUnique", err)
	}
}

// Rows of pgx that are open outside a session keep nobody waiting.
func TestPgxRowsOpen(t *testing.T) {
	t.Parallel()
	db := pg.Sandbox(t)
	rows, err := db.Pgx().Query(t.Context(), "select generate_series(1, 3)")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		if _, err := db.Pgx().Exec(t.Context(), "insert into parent values (1) on conflict do nothing"); err != nil {
			t.Fatal(err) // after 5 s
		}
	}
}

// LockTimeout is not about the turns of a sandbox on PostgreSQL.
func TestLockTimeout(t *testing.T) {
	t.Parallel()
	db, began, done := pg.Sandbox(t), make(chan bool), make(chan error)
	go func() {
		done <- db.WithSession(context.Background(), func(tx *thole.Tx) error {
			_, err := tx.ExecContext(context.Background(), "insert into other values (1)")
			close(began)
			time.Sleep(100 * time.Millisecond)
			return err
		})
	}()
	<-began
	ok(t, "another row", db.WithSessionOptions(t.Context(), thole.SessionOptions{LockTimeout: 20 * time.Millisecond}, func(tx *thole.Tx) error {
		_, err := tx.ExecContext(t.Context(), "insert into other values (2)")
		return err
	}))
	ok(t, "first", <-done)
}

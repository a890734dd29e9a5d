package dbtest_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"modernc.org/sqlite"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/testing/dbtest"
)

// The tests of this file are named after the behaviours in CONTRIBUTING.md's list.

// stock is the schema of the tests, one for each engine because SQLite defers
// foreign keys alone.
var stock = dbtest.Config{
	Migrations: fstest.MapFS{
		"sqlite/1_stock.up.sql": {Data: []byte(`
			create table shelf (id integer primary key);
			create table item (
				id integer primary key autoincrement,
				name text not null unique,
				shelf integer references shelf deferrable initially deferred
			);`)},
		"sqlite/1_stock.down.sql": {Data: []byte("drop table item; drop table shelf;")},
		"postgres/1_stock.up.sql": {Data: []byte(`
			create table shelf (id integer primary key);
			create table item (
				id integer generated always as identity primary key,
				name text not null unique,
				shelf integer references shelf deferrable initially deferred
			);
			create table place (n integer constraint place_n unique deferrable initially immediate);`)},
		"postgres/1_stock.down.sql": {Data: []byte("drop table place; drop table item; drop table shelf;")},
	},
}

func add(ctx context.Context, q thole.Querier, name string) error {
	_, err := q.ExecContext(ctx, "insert into item (name) values (?)", name)
	return err
}

func names(tb testing.TB, q thole.Querier) []string {
	tb.Helper()
	found, err := thole.All[string](context.Background(), q, "select name from item order by id")
	if err != nil {
		tb.Fatalf("read items: %v", err)
	}
	return found
}

func wantNames(tb testing.TB, q thole.Querier, want ...string) {
	tb.Helper()
	if diff := cmp.Diff(append([]string{}, want...), names(tb, q)); diff != "" {
		tb.Errorf("items (-want +got):\n%s", diff)
	}
}

// each runs a test on both engines, side by side.
func each(t *testing.T, test func(t *testing.T, config dbtest.Config)) {
	t.Helper()
	for _, engine := range []thole.Engine{thole.SQLite, thole.Postgres} {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			config := stock
			config.Engines = []thole.Engine{engine}
			test(t, config)
		})
	}
}

// onPostgres is stock on PostgreSQL.
func onPostgres() dbtest.Config {
	config := stock
	config.Engines = []thole.Engine{thole.Postgres}
	return config
}

// inSession runs fn in a session with the ctx of the test.
func inSession(tb testing.TB, db *thole.DB, fn func(ctx context.Context, tx *thole.Tx) error) error {
	tb.Helper()
	return db.WithSession(tb.Context(), func(tx *thole.Tx) error { return fn(tx.Context(), tx) })
}

// B1: one body, both engines, as subtests of their names.
func TestB1SameBody(t *testing.T) {
	var ran []string
	stock.Each(t, func(t *testing.T, db *thole.DB) {
		ran = append(ran, t.Name()+" "+string(db.Engine()))
		if err := inSession(t, db, func(ctx context.Context, tx *thole.Tx) error { return add(ctx, tx, "shield") }); err != nil {
			t.Fatal(err)
		}
		wantNames(t, db, "shield")
	})
	if diff := cmp.Diff([]string{"TestB1SameBody/sqlite sqlite", "TestB1SameBody/postgres postgres"}, ran); diff != "" {
		t.Errorf("subtests (-want +got):\n%s", diff)
	}
}

// B1: the engine comes from Config or DBTEST_URL, and never from DATABASE_URL.
func TestB1Engine(t *testing.T) {
	t.Setenv("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none")
	t.Setenv("DBTEST_URL", "")
	if got := stock.Sandbox(t).Engine(); got != thole.SQLite {
		t.Errorf("got engine %s without a configuration, want sqlite", got)
	}
	if got := onPostgres().Sandbox(t).Engine(); got != thole.Postgres {
		t.Errorf("got engine %s, want the first of Engines", got)
	}
}

// B2: nothing of a test is visible to the next.
func TestB2NothingStays(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, config dbtest.Config) {
		leave := func(t *testing.T) int64 {
			t.Helper()
			db := config.Sandbox(t)
			wantNames(t, db)
			err := inSession(t, db, func(ctx context.Context, tx *thole.Tx) error {
				texts := left[db.Engine()]
				if db.Engine() == thole.Postgres && strings.HasSuffix(t.Name(), "/2") {
					texts = []string{forGood}
				}
				for _, text := range texts {
					if _, err := tx.ExecContext(ctx, text); err != nil {
						return fmt.Errorf("%s: %w", text, err)
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			id, err := thole.One[int64](t.Context(), db, "insert into item (name) values ('last') returning id")
			if err != nil {
				t.Fatal(err)
			}
			return id
		}
		var ids []int64
		look := func(t *testing.T) {
			t.Helper()
			db := config.Sandbox(t)
			for query, want := range clean[db.Engine()] {
				if got, err := thole.One[string](t.Context(), db, query); err != nil || got != want {
					t.Errorf("%s: got %q, %v, want %q", query, got, err, want)
				}
			}
		}
		for i := range 3 {
			t.Run(fmt.Sprint(i), func(t *testing.T) { ids = append(ids, leave(t)) })
			t.Run("afterwards", look)
		}
		if config.Engines[0] == thole.SQLite && (ids[0] != ids[1] || ids[1] != ids[2]) {
			t.Errorf("the sequence went on from one test to the next: %v", ids)
		}
	})
}

// left is what a test leaves behind, in a session.
var left = map[thole.Engine][]string{
	thole.SQLite: {
		"insert into item (name) values ('left')",
		"create table more (n integer)",
		"create temp table scratch (n integer)",
		"pragma user_version=7",
	},
	thole.Postgres: {
		"insert into item (name) values ('left')",
		"create table more (n integer)",
		"create temp table scratch (n integer)",
		"create temp table fleeting (n integer) on commit drop",
		"set work_mem = '7MB'",
		"set local statement_timeout = '7h'",
		"select set_config('thole.left', 'yes', false)",
		"select pg_advisory_lock(7)",
		"select pg_advisory_xact_lock(8)",
		"listen something",
	},
}

// forGood is what a connection would keep whatever becomes of its transaction.
const forGood = "prepare kept as select 1"

// clean is what another test must see.
var clean = map[thole.Engine]map[string]string{
	thole.SQLite: {
		"select count(*) from sqlite_schema where name in ('more', 'scratch')": "0",
		"select count(*) from sqlite_temp_schema":                              "0",
		"pragma user_version": "0",
	},
	thole.Postgres: {
		"select count(*)::text from pg_class where relname in ('more', 'scratch', 'fleeting')": "0",
		"select (current_setting('work_mem') = '7MB')::text":                                   "false",
		"select current_setting('statement_timeout')":                                          "0",
		"select coalesce(current_setting('thole.left', true), '')":                             "",
		"select count(*)::text from pg_locks where locktype = 'advisory' and objid in (7, 8)":  "0",
		"select count(*)::text from pg_prepared_statements where name = 'kept'":                "0",
		"select count(*)::text from pg_listening_channels()":                                   "0",
	},
}

// B3: a sandbox on SQLite is a database of its own, which nothing can reach.
func TestB3OwnClone(t *testing.T) {
	t.Parallel()
	config := stock
	config.Engines = []thole.Engine{thole.SQLite}
	other := config.Sandbox(t)
	if err := add(t.Context(), other, "other"); err != nil {
		t.Fatal(err)
	}
	db := config.Sandbox(t)
	if err := add(t.Context(), db, "shield"); err != nil {
		t.Fatal(err)
	}
	err := inSession(t, db, func(ctx context.Context, tx *thole.Tx) error {
		_, err := tx.ExecContext(ctx, "insert or rollback into item (name) values ('shield')")
		return err
	})
	if !errors.Is(err, thole.ErrUnique) {
		t.Errorf("got %v, want ErrUnique", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = db.WithSession(ctx, func(tx *thole.Tx) error {
		time.AfterFunc(time.Millisecond, cancel)
		_, err := tx.ExecContext(ctx, "insert into item (name) with recursive n(i) as (select 1 union all select i + 1 from n) select i from n")
		return err
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	wantNames(t, db, "shield")
	wantNames(t, other, "other")
}

// B4: tests that run side by side don't wait for each other, whatever they insert,
// change or make.
func TestB4SideBySide(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, config dbtest.Config) {
		first, second := config.Sandbox(t), config.Sandbox(t)
		for _, db := range []*thole.DB{first, second, config.Sandbox(t)} {
			err := db.WithSessionOptions(t.Context(), thole.SessionOptions{LockTimeout: time.Second}, func(tx *thole.Tx) error {
				if err := add(t.Context(), tx, "same"); err != nil {
					return err
				}
				_, err := tx.ExecContext(t.Context(), "create table more (n integer)")
				return err
			})
			if err != nil {
				t.Error(err)
			}
			if _, err := db.ExecContext(t.Context(), "alter table item rename to thing"); err != nil {
				t.Error(err)
			}
		}
	})
}

// B5: what leaves the callback by a panic or Goexit rolls back, and the end of a
// test undoes although its ctx has ended.
func TestB5Leaving(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, config dbtest.Config) {
		db := config.Sandbox(t)
		left := func(leave func()) {
			done := make(chan struct{})
			go func() {
				defer close(done)
				defer func() { _ = recover() }()
				_ = inSession(t, db, func(ctx context.Context, tx *thole.Tx) error {
					if err := add(ctx, tx, "left"); err != nil {
						t.Error(err)
					}
					leave()
					return nil
				})
			}()
			<-done
		}
		left(func() { panic("left") })
		left(runtime.Goexit)
		wantNames(t, db)
		if err := add(t.Context(), db, "after"); err != nil {
			t.Errorf("the sandbox is of no use any more: %v", err)
		}
		failed := record(t, func(tb testing.TB) {
			db := config.Sandbox(tb)
			_ = inSession(tb, db, func(ctx context.Context, tx *thole.Tx) error {
				if err := add(ctx, tx, "left by FailNow"); err != nil {
					t.Error(err)
				}
				tb.FailNow()
				return nil
			})
		})
		if strings.Contains(strings.ReplaceAll(failed.output(), "dbtest: what ran on", ""), "dbtest:") {
			t.Errorf("the cleanup failed:\n%s", failed.output())
		}
		wantNames(t, config.Sandbox(t))
	})
}

// B6: serial subtests share a session; what each does in a Sub is undone.
func TestB6Sub(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, config dbtest.Config) {
		tx := config.Session(t)
		if err := add(t.Context(), tx, "before"); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"one", "two"} {
			t.Run(name, func(t *testing.T) {
				sub := dbtest.Sub(t, tx)
				if err := add(t.Context(), sub, name); err != nil {
					t.Fatal(err)
				}
				wantNames(t, sub, "before", name)
			})
		}
		wantNames(t, tx, "before")
		taken := record(t, func(tb testing.TB) {
			dbtest.Sub(tb, tx)
			second := record(tb, func(tb testing.TB) { dbtest.Sub(tb, tx) })
			if !strings.Contains(second.output(), "parallel subtests need a Session each") {
				t.Errorf("a second Sub at the same time: got %q", second.output())
			}
		})
		if taken.Failed() {
			t.Errorf("the first Sub failed: %s", taken.output())
		}
	})
}

// B6: what is said of a Session or a Sub has the place where the test asked for it.
func TestB6Place(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, config dbtest.Config) {
		var session, sub *thole.Tx
		var inUse error
		var line int
		ended := record(t, func(tb testing.TB) {
			_, _, line, _ = runtime.Caller(0)
			session = config.Session(tb)
			sub = dbtest.Sub(tb, session)
			inUse = add(tb.Context(), session, "too early")
			tb.Fail()
		})
		opened := func(after int) string { return fmt.Sprintf("opened at dbtest/sandbox_test.go:%d", line+after) }
		for want, got := range map[string]string{
			"the one nested in it, " + opened(2): fmt.Sprint(inUse),
			"use session " + opened(1):           fmt.Sprint(add(t.Context(), session, "too late")),
			"use session " + opened(2):           fmt.Sprint(add(t.Context(), sub, "too late")),
			"	session " + opened(1):              ended.output(),
			"nested session " + opened(2):        ended.output(),
		} {
			if !strings.Contains(got, want) {
				t.Errorf("got %q, want %q in it", got, want)
			}
		}
	})
}

// B7: a session that fails leaves the sandbox usable.
func TestB7Emulated(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, config dbtest.Config) {
		db := config.Sandbox(t)
		steps := []struct {
			name string
			want error
			fn   func(ctx context.Context, tx *thole.Tx) error
		}{
			{"commits", nil, func(ctx context.Context, tx *thole.Tx) error { return add(ctx, tx, "one") }},
			{"unique", thole.ErrUnique, func(ctx context.Context, tx *thole.Tx) error { return add(ctx, tx, "one") }},
			{"its own error", errors.ErrUnsupported, func(ctx context.Context, tx *thole.Tx) error {
				return errors.Join(errors.ErrUnsupported, add(ctx, tx, "undone"))
			}},
			{"nested rolls back", nil, func(ctx context.Context, tx *thole.Tx) error {
				if err := db.WithSession(ctx, func(tx *thole.Tx) error { return add(ctx, tx, "one") }); !errors.Is(err, thole.ErrUnique) {
					return fmt.Errorf("nested: got %w", err)
				}
				return add(ctx, tx, "two")
			}},
			{"nothing sent", nil, func(context.Context, *thole.Tx) error { return nil }},
			{"nested and then fails", errors.ErrUnsupported, func(ctx context.Context, tx *thole.Tx) error {
				err := tx.WithSession(ctx, func(tx *thole.Tx) error { return add(ctx, tx, "undone") })
				return errors.Join(err, errors.ErrUnsupported)
			}},
			{"commits again", nil, func(ctx context.Context, tx *thole.Tx) error { return add(ctx, tx, "three") }},
		}
		for _, step := range steps {
			err := inSession(t, db, step.fn)
			if !errors.Is(err, step.want) || thole.OutcomeOf(err) != outcome(step.want) {
				t.Errorf("%s: got %v (%s), want %v", step.name, err, thole.OutcomeOf(err), step.want)
			}
		}
		wantNames(t, db, "one", "two", "three")
	})
}

func outcome(err error) thole.Outcome {
	if err == nil {
		return thole.Committed
	}
	return thole.RolledBack
}

// B8: deferred constraints are checked when a session commits, and not before.
func TestB8Deferred(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, config dbtest.Config) {
		db := config.Sandbox(t)
		child := func(shelf int) func(ctx context.Context, tx *thole.Tx) error {
			return func(ctx context.Context, tx *thole.Tx) error {
				_, err := tx.ExecContext(ctx, "insert into item (name, shelf) values (?, ?)", fmt.Sprint("on ", shelf), shelf)
				return err
			}
		}
		for range 2 { // deferred again after it was checked
			committed := false
			err := inSession(t, db, func(ctx context.Context, tx *thole.Tx) error {
				tx.OnCommit(func(context.Context) { committed = true })
				return child(1)(ctx, tx)
			})
			if !errors.Is(err, thole.ErrForeignKey) || thole.OutcomeOf(err) != thole.RolledBack || committed {
				t.Errorf("without the parent: got %v (%s), hook ran: %t", err, thole.OutcomeOf(err), committed)
			}
			err = inSession(t, db, func(ctx context.Context, tx *thole.Tx) error {
				if err := child(1)(ctx, tx); err != nil {
					return fmt.Errorf("the constraint was not deferred: %w", err)
				}
				_, err := tx.ExecContext(ctx, "insert into shelf (id) values (1)")
				return err
			})
			if err != nil {
				t.Errorf("child, then parent: %v", err)
			}
			if _, err := db.ExecContext(t.Context(), "insert into item (name, shelf) values ('alone', 9)"); !errors.Is(err, thole.ErrForeignKey) {
				t.Errorf("outside a session: got %v, want ErrForeignKey", err)
			}
			if _, err := db.ExecContext(t.Context(), "delete from item"); err != nil {
				t.Error(err)
			}
			if _, err := db.ExecContext(t.Context(), "delete from shelf"); err != nil {
				t.Error(err)
			}
		}
	})
}

// B9: constraints that are initially immediate are that in each session, whatever
// the one before has set. And those that a session has made are looked at, too.
func TestB9Immediate(t *testing.T) {
	t.Parallel()
	db := onPostgres().Sandbox(t)
	twice := func(ctx context.Context, tx *thole.Tx) error {
		for range 2 {
			if _, err := tx.ExecContext(ctx, "insert into place (n) values (1)"); err != nil {
				return fmt.Errorf("at once: %w", err)
			}
		}
		return nil
	}
	atOnce := func(err error) bool {
		return errors.Is(err, thole.ErrUnique) && strings.HasPrefix(err.Error(), "at once")
	}
	if err := inSession(t, db, twice); !atOnce(err) {
		t.Errorf("first: got %v", err)
	}
	err := inSession(t, db, func(ctx context.Context, tx *thole.Tx) error {
		if _, err := tx.ExecContext(ctx, "set constraints place_n deferred"); err != nil {
			return err
		}
		return twice(ctx, tx)
	})
	if !errors.Is(err, thole.ErrUnique) || atOnce(err) {
		t.Errorf("deferred by the session: got %v", err)
	}
	err = inSession(t, db, func(ctx context.Context, tx *thole.Tx) error {
		_, err := tx.ExecContext(ctx, "set constraints place_n deferred")
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if err := inSession(t, db, twice); !atOnce(err) {
		t.Errorf("after it: got %v", err)
	}
	err = inSession(t, db, func(ctx context.Context, tx *thole.Tx) error {
		_, err := tx.ExecContext(ctx, "create table late (n integer unique deferrable initially deferred); insert into late values (1), (1)")
		return err
	})
	if !errors.Is(err, thole.ErrUnique) {
		t.Errorf("made by the session: got %v, want ErrUnique", err)
	}
	if err := add(t.Context(), db, "after"); err != nil {
		t.Errorf("after it was undone: %v", err)
	}
}

// B10: hooks run when the outermost session has committed, in order, once, outside
// it, and not for what was rolled back.
func TestB10Hooks(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, config dbtest.Config) {
		db := config.Sandbox(t)
		var ran []string
		hook := func(tx *thole.Tx, name string) {
			tx.OnCommit(func(ctx context.Context) {
				ran = append(ran, name)
				err := db.WithSession(ctx, func(inner *thole.Tx) error { return add(ctx, inner, "by "+name) })
				if err != nil {
					t.Errorf("a session in the hook %s: %v", name, err)
				}
			})
		}
		err := inSession(t, db, func(ctx context.Context, tx *thole.Tx) error {
			hook(tx, "outer")
			_ = tx.WithSession(ctx, func(tx *thole.Tx) error { hook(tx, "undone"); return errors.ErrUnsupported })
			_ = tx.WithSession(ctx, func(tx *thole.Tx) error { hook(tx, "inner"); return nil })
			if len(ran) > 0 {
				t.Errorf("before the end: %v", ran)
			}
			return add(ctx, tx, "work")
		})
		if err != nil {
			t.Fatal(err)
		}
		_ = inSession(t, db, func(_ context.Context, tx *thole.Tx) error { hook(tx, "rolled back"); return errors.ErrUnsupported })
		if diff := cmp.Diff([]string{"outer", "inner"}, ran); diff != "" {
			t.Errorf("hooks (-want +got):\n%s", diff)
		}
		wantNames(t, db, "work", "by outer", "by inner")
	})
}

// B11: a statement outside a session that fails harms nothing.
func TestB11Alone(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, config dbtest.Config) {
		db := config.Sandbox(t)
		for i := range 3 {
			if err := add(t.Context(), db, "same"); i > 0 && !errors.Is(err, thole.ErrUnique) || i == 0 && err != nil {
				t.Errorf("insert %d: got %v", i, err)
			}
		}
		if _, err := db.ExecContext(t.Context(), "insert into item (name) values ('script'); insert into item (name) values ('same')"); !errors.Is(err, thole.ErrUnique) {
			t.Errorf("script: got %v, want ErrUnique", err)
		}
		if _, err := db.QueryContext(t.Context(), "selec 1"); err == nil {
			t.Error("a syntax error was none")
		}
		wantNames(t, db, "same")
		// Rows outside a session leave the next statement alone, as on a file or with a pool.
		rows, err := db.QueryContext(t.Context(), "select name from item")
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			if err := add(t.Context(), db, "within"); err != nil {
				t.Errorf("a statement while rows are open: %v", err)
			}
		}
		if err := rows.Err(); err != nil {
			t.Error(err)
		}
		wantNames(t, db, "same", "within")
	})
}

// B12: read-only sessions are, and the next one writes.
func TestB12ReadOnly(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, config dbtest.Config) {
		db := config.Sandbox(t)
		for range 2 {
			err := db.WithSessionOptions(t.Context(), thole.SessionOptions{ReadOnly: true}, func(tx *thole.Tx) error {
				wantNames(t, tx)
				return add(t.Context(), tx, "refused")
			})
			if !errors.Is(err, thole.ErrReadOnly) {
				t.Errorf("got %v, want ErrReadOnly", err)
			}
		}
		if err := add(t.Context(), db, "written"); err != nil {
			t.Errorf("after it: %v", err)
		}
	})
}

// B13: a session may ask for any isolation level, also when others ran before it, and
// sees nothing that the level excludes. And it keeps no session elsewhere waiting that
// waits for serializable ones.
func TestB13Isolation(t *testing.T) {
	t.Parallel()
	db := onPostgres().Sandbox(t)
	if err := add(t.Context(), db, "before"); err != nil {
		t.Fatal(err)
	}
	serializable := thole.SessionOptions{Isolation: sql.LevelSerializable}
	var all sync.WaitGroup
	for _, name := range []string{"one", "two"} {
		all.Go(func() {
			err := db.WithSessionOptions(t.Context(), serializable, func(tx *thole.Tx) error { return addSeen(t.Context(), tx, name) })
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	all.Wait()
	if got := strings.Join(names(t, db), ", "); got != "before, one after 1, two after 2" && got != "before, two after 1, one after 2" {
		t.Errorf("got %s, want one to have seen the other", got)
	}
	for _, level := range []sql.IsolationLevel{sql.LevelRepeatableRead, sql.LevelSnapshot, sql.LevelReadCommitted, sql.LevelDefault} {
		err := db.WithSessionOptions(t.Context(), thole.SessionOptions{Isolation: level}, func(tx *thole.Tx) error { return add(t.Context(), tx, level.String()) })
		if err != nil {
			t.Errorf("%s: %v", level, err)
		}
	}
	err := db.WithSessionOptions(t.Context(), thole.SessionOptions{Isolation: sql.LevelLinearizable}, func(*thole.Tx) error { return nil })
	if !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("linearizable: got %v, want errors.ErrUnsupported", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	safe := thole.SessionOptions{ReadOnly: true, Deferrable: true, Isolation: sql.LevelSerializable}
	err = onPostgres().Database(t).WithSessionOptions(ctx, safe, func(tx *thole.Tx) error {
		_, err := thole.One[int](ctx, tx, "select 1")
		return err
	})
	if err != nil {
		t.Errorf("a deferrable session in another database: %v", err)
	}
}

// B14: what a session has SET is not seen by the next one.
func TestB14Settings(t *testing.T) {
	t.Parallel()
	config := onPostgres()
	db := config.Sandbox(t)
	err := db.WithSessionOptions(t.Context(), thole.SessionOptions{
		LockTimeout: time.Hour, StatementTimeout: time.Hour, Settings: map[string]string{"app.tenant": "7"},
	}, func(tx *thole.Tx) error {
		for _, text := range []string{
			"set local work_mem = '7MB'",
			"create function pg_temp.tenant() returns void language sql as $$ select set_config('app.hidden', 'yes', true) $$",
			"select pg_temp.tenant()",
			"create role thole_b14",
			"set local role thole_b14",
			"create temp table fleeting (n integer) on commit drop",
			"create temp table emptied (n integer) on commit delete rows",
			"insert into emptied values (1)",
		} {
			if _, err := tx.ExecContext(t.Context(), text); err != nil {
				return fmt.Errorf("%s: %w", text, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for query, want := range map[string]string{
		"select coalesce(current_setting('app.tenant', true), '')":       "",
		"select coalesce(current_setting('app.hidden', true), '')":       "",
		"select (current_setting('work_mem') = '7MB')::text":             "false",
		"show statement_timeout":                                         "0",
		"show lock_timeout":                                              "0",
		"select (current_user = session_user)::text":                     "true",
		"select current_setting('application_name')":                     t.Name(),
		"select count(*)::text from pg_class where relname = 'fleeting'": "0",
		"select count(*)::text from emptied":                             "0",
	} {
		if got, err := thole.One[string](t.Context(), db, query); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", query, got, err, want)
		}
	}
}

// B14: a statement means what the settings of its own session say.
func TestB14SearchPath(t *testing.T) {
	t.Parallel()
	db := onPostgres().Sandbox(t)
	for _, text := range []string{"create schema a; create table a.n (is_a boolean)", "create schema b; create table b.n (is_b integer)"} {
		if _, err := db.ExecContext(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		for _, schema := range []string{"a", "", "b"} {
			opts := thole.SessionOptions{}
			if schema != "" {
				opts.Settings = map[string]string{"search_path": schema}
			}
			err := db.WithSessionOptions(t.Context(), opts, func(tx *thole.Tx) error {
				rows, err := tx.QueryContext(t.Context(), "select * from n where $1::int = 1", 1)
				if err != nil {
					return err
				}
				defer rows.Close()
				if columns, err := rows.Columns(); err != nil || columns[0] != "is_"+schema {
					t.Errorf("in %s: got the columns %q, %v", schema, columns, err)
				}
				return rows.Err()
			})
			if (err == nil) != (schema != "") {
				t.Errorf("in %q: got %v", schema, err)
			}
		}
	}
}

// B16: sessions of several goroutines take turns.
func TestB16Goroutines(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, config dbtest.Config) {
		db := config.Sandbox(t)
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				err := inSession(t, db, func(ctx context.Context, tx *thole.Tx) error {
					if err := add(ctx, tx, fmt.Sprint("a", i)); err != nil {
						return err
					}
					time.Sleep(time.Millisecond)
					err := db.WithSession(ctx, func(tx *thole.Tx) error { return add(ctx, tx, fmt.Sprint("b", i)) })
					if i%2 > 0 {
						err = errors.Join(err, errors.ErrUnsupported)
					}
					return err
				})
				if i%2 == 0 && err != nil || i%2 > 0 && !errors.Is(err, errors.ErrUnsupported) {
					t.Errorf("session %d: %v", i, err)
				}
			})
		}
		all.Wait()
		if got := len(names(t, db)); got != 20 {
			t.Errorf("got %d items, want 20", got)
		}
	})
}

// B16: what uses the DB inside a session, past it, fails at once with both places,
// also where it only reads (L1 of the rules of sessions).
func TestB16Inside(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, config dbtest.Config) {
		db := config.Sandbox(t)
		uses := map[string]func(ctx context.Context) error{
			"statement": func(ctx context.Context) error { return add(ctx, db, "past it") },
			"read": func(ctx context.Context) error {
				_, err := thole.All[string](ctx, db, "select name from item")
				return err
			},
			"session": func(ctx context.Context) error {
				return db.WithSession(ctx, func(tx *thole.Tx) error { return add(ctx, tx, "past it") })
			},
		}
		for name, use := range uses {
			var inner error
			err := inSession(t, db, func(ctx context.Context, tx *thole.Tx) error {
				err := add(ctx, tx, name)
				inner = use(t.Context())
				return err
			})
			if !errors.Is(inner, thole.ErrNested) || strings.Count(inner.Error(), "sandbox_test.go:") < 2 {
				t.Errorf("%s: got %v, want ErrNested with both places", name, inner)
			}
			if err != nil {
				t.Errorf("%s: the session: %v", name, err)
			}
		}
	})
}

// B16: one that waits for its own parent in another goroutine gives up, with both
// places.
func TestB16Waits(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, config dbtest.Config) {
		db := config.Sandbox(t)
		err := inSession(t, db, func(ctx context.Context, tx *thole.Tx) error {
			if err := add(ctx, tx, "parent"); err != nil {
				return err
			}
			told := make(chan error)
			go func() { // on PostgreSQL, where LockTimeout does not bound the wait, its ctx does
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer cancel()
				told <- db.WithSessionOptions(ctx, thole.SessionOptions{LockTimeout: 20 * time.Millisecond},
					func(tx *thole.Tx) error { return add(ctx, tx, "child") })
			}()
			want := thole.ErrLocked
			if db.Engine() == thole.Postgres {
				want = thole.ErrTimeout
			}
			if err := <-told; !errors.Is(err, want) || strings.Count(err.Error(), "sandbox_test.go:") < 2 {
				t.Errorf("got %v, want %v with both places", err, want)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// B17: a second goroutine on one Tx gets the library's error.
func TestB17Busy(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, config dbtest.Config) {
		tx := config.Session(t)
		if err := add(t.Context(), tx, "shield"); err != nil {
			t.Fatal(err)
		}
		rows, err := tx.QueryContext(t.Context(), "select name from item")
		if err != nil {
			t.Fatal(err)
		}
		told := make(chan error)
		go func() { told <- add(t.Context(), tx, "other") }()
		if err := <-told; !errors.Is(err, thole.ErrBusy) {
			t.Errorf("got %v, want ErrBusy", err)
		}
		if err := rows.Close(); err != nil {
			t.Error(err)
		}
	})
}

// B18: what uses the DB after the test gets an error that names the test.
func TestB18Late(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, config dbtest.Config) {
		var late *thole.DB
		var tx *thole.Tx
		ended := record(t, func(tb testing.TB) {
			late = config.Sandbox(tb)
			tx = config.Session(tb)
		})
		if ended.Failed() {
			t.Fatalf("failed: %s", ended.output())
		}
		for name, err := range map[string]error{
			"session":   inSession(t, late, func(ctx context.Context, tx *thole.Tx) error { return add(ctx, tx, "late") }),
			"statement": add(t.Context(), late, "late"),
			"ping":      late.PingContext(t.Context()),
		} {
			if !errors.Is(err, thole.ErrClosed) || !strings.Contains(fmt.Sprint(err), t.Name()) {
				t.Errorf("%s: got %v, want ErrClosed with the name of the test", name, err)
			}
		}
		if err := add(t.Context(), tx, "late"); !errors.Is(err, thole.ErrTxDone) {
			t.Errorf("tx: got %v, want ErrTxDone", err)
		}
	})
}

// B18: the end of a test waits a little for what it has started, and fails for what
// does not end.
func TestB18Waits(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, config dbtest.Config) {
		start := func(tb testing.TB, lasts time.Duration) {
			db, begun := config.Sandbox(tb), make(chan struct{})
			go func() {
				_ = db.WithSession(context.Background(), func(tx *thole.Tx) error {
					err := add(context.Background(), tx, "started")
					close(begun)
					time.Sleep(lasts)
					return err
				})
			}()
			<-begun
		}
		if quick := record(t, func(tb testing.TB) { start(tb, 20*time.Millisecond) }); quick.Failed() {
			t.Errorf("a session that ends soon: %s", quick.output())
		}
		slow := record(t, func(tb testing.TB) { start(tb, 1500*time.Millisecond) })
		if !slow.Failed() || !strings.Contains(slow.output(), "sandbox_test.go:") {
			t.Errorf("a session that does not end: got %q, want its place", slow.output())
		}
	})
}

// B19: rows that are left open fail the test.
func TestB19Left(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, config dbtest.Config) {
		left := record(t, func(tb testing.TB) {
			rows, err := config.Sandbox(tb).QueryContext(context.Background(), "select 1 union all select 2")
			if err != nil || !rows.Next() {
				t.Error(err)
			}
		})
		if !left.Failed() || !strings.Contains(left.output(), "sandbox_test.go:") || !strings.Contains(left.output(), "select 1") {
			t.Errorf("got %q, want the statement and its place", left.output())
		}
	})
}

// B20: a statement that ends the transaction fails the test, and nobody gets what it
// has committed.
func TestB20Escape(t *testing.T) {
	t.Parallel()
	config := onPostgres()
	escaped := record(t, func(tb testing.TB) {
		db := config.Sandbox(tb)
		err := inSession(tb, db, func(ctx context.Context, tx *thole.Tx) error {
			if err := add(ctx, tx, "escaped"); err != nil {
				return err
			}
			_, err := tx.Pgx().Conn().Exec(ctx, "commit")
			return err
		})
		if !errors.Is(err, thole.ErrTxControl) || thole.OutcomeOf(err) != thole.Unknown {
			t.Errorf("got %v (%s), want ErrTxControl, unknown", err, thole.OutcomeOf(err))
		}
		if err := add(context.Background(), db, "more"); !errors.Is(err, thole.ErrTxControl) {
			t.Errorf("afterwards: got %v, want ErrTxControl", err)
		}
	})
	if !escaped.Failed() || !strings.Contains(escaped.output(), "insert into item") {
		t.Errorf("got %q, want the test to fail with the statement", escaped.output())
	}
	wantNames(t, config.Sandbox(t))
	each(t, func(t *testing.T, config dbtest.Config) {
		db := config.Sandbox(t)
		for _, text := range []string{"commit", "rollback", "begin", "savepoint a"} {
			err := inSession(t, db, func(ctx context.Context, tx *thole.Tx) error {
				_, err := tx.ExecContext(ctx, text)
				return err
			})
			if !errors.Is(err, thole.ErrTxControl) {
				t.Errorf("%s: got %v, want ErrTxControl", text, err)
			}
		}
		wantNames(t, db)
	})
}

// B21: on SQLite a COMMIT on the connection itself fails the test and reaches no other,
// and the session's own can be refused.
func TestB21SQLite(t *testing.T) {
	t.Parallel()
	var raw sqlite.ExecQuerierContext // of the sandbox that was opened last
	config := stock
	config.Engines = []thole.Engine{thole.SQLite}
	config.Configure = func(cfg *thole.Config) {
		cfg.SQLite.Driver = func(d *sqlite.Driver) error {
			d.RegisterConnectionHook(func(conn sqlite.ExecQuerierContext, _ string) error { raw = conn; return nil })
			return nil
		}
	}
	escaped := record(t, func(tb testing.TB) {
		err := inSession(tb, config.Sandbox(tb), func(ctx context.Context, tx *thole.Tx) error {
			if err := add(ctx, tx, "escaped"); err != nil {
				return err
			}
			_, err := raw.ExecContext(ctx, "commit", nil)
			return err
		})
		if !errors.Is(err, thole.ErrTxControl) || thole.OutcomeOf(err) != thole.Unknown {
			t.Errorf("got %v (%s), want ErrTxControl, unknown", err, thole.OutcomeOf(err))
		}
	})
	if !escaped.Failed() || !strings.Contains(escaped.output(), "insert into item") {
		t.Errorf("got %q, want the test to fail with the statement", escaped.output())
	}
	db := config.Sandbox(t)
	dbtest.Faults(t, db).FailCommit()
	err := inSession(t, db, func(ctx context.Context, tx *thole.Tx) error { return add(ctx, tx, "refused") })
	var told *thole.Error
	if !errors.As(err, &told) || told.Code != "SQLITE_CONSTRAINT_COMMITHOOK" || thole.OutcomeOf(err) != thole.RolledBack {
		t.Errorf("got %v (%s), want SQLITE_CONSTRAINT_COMMITHOOK, rolled back", err, thole.OutcomeOf(err))
	}
	wantNames(t, db)
}

// B22: what can't run in a transaction names what can.
func TestB22NeedsDatabase(t *testing.T) {
	t.Parallel()
	db := onPostgres().Sandbox(t)
	for _, text := range []string{
		"vacuum", "create index concurrently i on item (name)", "alter system set work_mem = '7MB'", "create database nowhere",
	} {
		if _, err := db.ExecContext(t.Context(), text); err == nil || !strings.Contains(err.Error(), "dbtest.Database") {
			t.Errorf("%s: got %v, want advice", text, err)
		}
	}
	if err := add(t.Context(), db, "after"); err != nil {
		t.Error(err)
	}
	pooled := record(t, func(tb testing.TB) { onPostgres().Sandbox(tb).Pool() })
	if !pooled.Failed() || !strings.Contains(pooled.output(), "dbtest.Database") {
		t.Errorf("Pool: got %q, want advice", pooled.output())
	}
	if db := onPostgres().Database(t); db.Pool() == nil {
		t.Error("a Database has no Pool")
	}
}

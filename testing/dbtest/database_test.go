package dbtest_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/testing/dbtest"
)

// B23: a Database has real commits, on several connections.
func TestB23RealCommits(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, config dbtest.Config) {
		db := config.Database(t)
		err := inSession(t, db, func(ctx context.Context, tx *thole.Tx) error {
			if err := add(ctx, tx, "committed"); err != nil {
				return err
			}
			wantNames(t, db) // beside the session, which has not committed
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		wantNames(t, db, "committed")
		wantNames(t, config.Database(t))
		wantNames(t, config.Sandbox(t))
	})
}

// B23: on PostgreSQL notifications arrive, now() moves, and SERIALIZABLE sessions
// can fail for what others have done.
func TestB23Postgres(t *testing.T) {
	t.Parallel()
	db := onPostgres().Database(t)
	conn, err := db.Pool().Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	if _, err := conn.Exec(t.Context(), "listen news"); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "notify news, 'shield'"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if news, err := conn.Conn().WaitForNotification(ctx); err != nil || news.Payload != "shield" {
		t.Errorf("notification: got %v, %v", news, err)
	}
	now := func() time.Time {
		at, err := thole.One[time.Time](t.Context(), db, "select now()")
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	if first, second := now(), now(); !second.After(first) {
		t.Errorf("now() stands still: %s, %s", first, second)
	}
	serializable := thole.SessionOptions{Isolation: sql.LevelSerializable, MaxAttempts: 1}
	skewed := db.WithSessionOptions(t.Context(), serializable, func(one *thole.Tx) error {
		if err := addSeen(t.Context(), one, "one"); err != nil {
			return err
		}
		return db.WithSessionOptions(t.Context(), serializable, func(two *thole.Tx) error { return addSeen(t.Context(), two, "two") })
	})
	if !errors.Is(skewed, thole.ErrSerialization) {
		t.Errorf("write skew: got %v, want ErrSerialization", skewed)
	}
}

// addSeen adds an item by what it has seen of all.
func addSeen(ctx context.Context, tx *thole.Tx, name string) error {
	n, err := thole.One[int](ctx, tx, "select count(*) from item")
	if err != nil {
		return err
	}
	return add(ctx, tx, fmt.Sprintf("%s after %d", name, n))
}

// B24: migrations and fixtures run once, whatever the number of tests; other
// migrations are another template.
func TestB24Templates(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, config dbtest.Config) {
		ran := 0
		config.Fixtures = func(ctx context.Context, db *thole.DB) error {
			ran++
			return add(ctx, db, "fixture")
		}
		for range 3 {
			wantNames(t, config.Database(t), "fixture")
			wantNames(t, config.Sandbox(t), "fixture")
			wantNames(t, config.Session(t), "fixture")
		}
		if ran != 1 {
			t.Errorf("Fixtures ran %d times, want once", ran)
		}
		for i := range 2 { // closures of one literal are different fixtures
			config.Fixtures = func(ctx context.Context, db *thole.DB) error { return add(ctx, db, fmt.Sprint("closure ", i)) }
			wantNames(t, config.Sandbox(t), fmt.Sprint("closure ", i))
		}
		files := fstest.MapFS{"1_more.up.sql": {Data: []byte("create table more (n integer)")}, "1_more.down.sql": {Data: []byte("drop table more")}}
		other := dbtest.Config{Engines: config.Engines, Migrations: files}
		if _, err := other.Sandbox(t).ExecContext(t.Context(), "insert into more values (1)"); err != nil {
			t.Errorf("other migrations: %v", err)
		}
		files["1_more.up.sql"] = &fstest.MapFile{Data: []byte("create table other (n integer)")}
		if _, err := other.Sandbox(t).ExecContext(t.Context(), "insert into other values (1)"); err != nil {
			t.Errorf("a file that has changed: %v", err)
		}
		files["1_more.up.sql"] = &fstest.MapFile{Data: []byte("create table more (n integer)")}
		files["2_less.up.sql"] = &fstest.MapFile{Data: []byte("drop table more")}
		files["2_less.down.sql"] = &fstest.MapFile{Data: []byte("select 1")}
		if _, err := other.Sandbox(t).ExecContext(t.Context(), "insert into more values (1)"); err == nil {
			t.Error("a file that was added was not applied")
		}
	})
}

// B24: a migration or a fixture that fails, fails each test that asks for it.
func TestB24Broken(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, config dbtest.Config) {
		config.Fixtures = func(context.Context, *thole.DB) error { return errors.ErrUnsupported }
		for range 2 {
			for name, open := range map[string]func(testing.TB){
				"Sandbox":  func(tb testing.TB) { config.Sandbox(tb) },
				"Database": func(tb testing.TB) { config.Database(tb) },
			} {
				if broken := record(t, open); !broken.Failed() || !strings.Contains(broken.output(), "run Fixtures: unsupported operation") {
					t.Errorf("%s: got %q, want the error of Fixtures", name, broken.output())
				}
			}
		}
	})
}

// B27: the databases of tests that have ended go.
func TestB27Dropped(t *testing.T) {
	t.Parallel()
	count := "select count(*)::text from pg_database where datname = ?"
	var name string
	t.Run("in use", func(t *testing.T) {
		db := onPostgres().Database(t)
		var err error
		if name, err = thole.One[string](t.Context(), db, "select current_database()"); err != nil {
			t.Fatal(err)
		}
	})
	for until := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		left, err := thole.One[string](t.Context(), onPostgres().Sandbox(t), count, name)
		if err == nil && left == "0" {
			return
		}
		if err != nil || time.Now().After(until) {
			t.Fatalf("the database %s is left: %v", name, err)
		}
	}
}

// B24: what panics, or ends its goroutine, where a template is made fails each test
// that asks for it, and says so.
func TestB24Ends(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, config dbtest.Config) {
		ends := map[string]func(){
			"panicked: oh no\n":                  func() { panic("oh no") },
			"called runtime.Goexit (t.FailNow?)": runtime.Goexit,
		}
		for what, end := range ends {
			fixtures, migrations := config, config
			fixtures.Fixtures = func(context.Context, *thole.DB) error { end(); return nil }
			migrations.Migrations = &endingFS{stock.Migrations, end}
			for name, config := range map[string]dbtest.Config{"Fixtures": fixtures, "Migrations": migrations} {
				for range 2 {
					for _, open := range []func(tb testing.TB) *thole.DB{config.Sandbox, config.Database} {
						got := record(t, func(tb testing.TB) { open(tb) }).output()
						if !strings.Contains(got, name+" "+what) {
							t.Errorf("got %q, want %q in it", got, name+" "+what)
						}
						if strings.Contains(what, "panicked") && !strings.Contains(got, "database_test.go:") {
							t.Errorf("got %q, want the place in it", got)
						}
					}
				}
			}
		}
	})
}

// endingFS calls end when a file is opened.
type endingFS struct {
	fs.FS
	end func()
}

func (f *endingFS) Open(name string) (fs.File, error) {
	f.end()
	return f.FS.Open(name)
}

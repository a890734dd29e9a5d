// Package dbtest gives a test a database of its own, on SQLite and on
// PostgreSQL.
//
//	var testdb = dbtest.Config{Migrations: migrations.FS}
//
//	func TestForge(t *testing.T) {
//		testdb.EachDatabase(t, func(t *testing.T, db *thole.DB) { // subtests sqlite and postgres
//			err := forge(t.Context(), db, "Dragon Scale Shield")
//			…
//
// # Where PostgreSQL comes from
//
// From the server that DBTEST_URL names; else from the programs of PostgreSQL
// on this machine (in PATH, or where Debian, Homebrew and the like put them),
// of which a private server is started, one for a test binary, that ends with
// it in whatever way that ends. It needs no account: as root it runs as nobody.
// Where there is neither, the test is skipped and says what was looked for. In
// CI set DBTEST_REQUIRE=postgres, and the test fails instead.
//
// DBTEST_URL must name a database with "test" in its name, because databases
// are made and dropped beside it; DBTEST_UNSAFE=1 allows any. DATABASE_URL is
// never read.
package dbtest

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/testdb"
)

// Config says what the databases of tests are like. The zero value is an empty
// database.
type Config struct {
	// Migrations are applied to each database. Default: none.
	Migrations fs.FS

	// Engines are those that Each and EachDatabase run on; the first is the one
	// of Session and Database. Default: SQLite and PostgreSQL for the former;
	// for the latter the engine of DBTEST_URL, or SQLite.
	Engines []thole.Engine

	// Fixtures fills each database, after the migrations. Default: nothing.
	Fixtures func(ctx context.Context, db *thole.DB) error
}

// Session is [Config.Session] of an empty database.
func Session(tb testing.TB) *thole.Tx {
	tb.Helper()
	return Config{}.Session(tb)
}

// Database is [Config.Database] of an empty database.
func Database(tb testing.TB) *thole.DB {
	tb.Helper()
	return Config{}.Database(tb)
}

// Each is [Config.Each] with empty databases.
func Each(t *testing.T, test func(t *testing.T, db *thole.DB)) {
	t.Helper()
	Config{}.Each(t, test)
}

// EachDatabase is [Config.EachDatabase] with empty databases.
func EachDatabase(t *testing.T, test func(t *testing.T, db *thole.DB)) {
	t.Helper()
	Config{}.EachDatabase(t, test)
}

// Session opens a session that is undone when the test ends. On SQLite its
// database is in memory. The session is for the goroutine of the test; code
// that opens sessions of its own on a *DB takes Database.
func (c Config) Session(tb testing.TB) *thole.Tx {
	tb.Helper()
	url := "sqlite://"
	if c.engine() == thole.Postgres {
		url = testdb.Postgres(tb)
	}
	db := c.open(tb, url)
	opened, undo, ended := make(chan *thole.Tx), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- db.WithSession(context.WithoutCancel(tb.Context()), func(tx *thole.Tx) error {
			opened <- tx
			<-undo
			return errUndo
		})
	}()
	select {
	case tx := <-opened:
		tb.Cleanup(func() {
			close(undo)
			if err := <-ended; !errors.Is(err, errUndo) {
				tb.Errorf("dbtest: undo the session: %v", err)
			}
		})
		return tx
	case err := <-ended:
		tb.Fatalf("dbtest: open a session: %v", err)
		return nil
	}
}

// errUndo makes a session roll back.
var errUndo = errors.New("the test has ended")

// Database opens a private database, with real commits, that is gone when the
// test has ended. On SQLite it is a file. It takes some milliseconds on SQLite,
// some tens on PostgreSQL, and the migrations.
func (c Config) Database(tb testing.TB) *thole.DB {
	tb.Helper()
	return c.database(tb, c.engine())
}

// Each runs test on every engine, as the subtests sqlite and postgres. What the
// sessions of the test did is gone when it has ended. Today it does so as
// EachDatabase does; a test that needs real commits asks for that.
func (c Config) Each(t *testing.T, test func(t *testing.T, db *thole.DB)) {
	t.Helper()
	c.EachDatabase(t, test)
}

// EachDatabase runs test on every engine, as the subtests sqlite and postgres,
// each with a [Config.Database].
func (c Config) EachDatabase(t *testing.T, test func(t *testing.T, db *thole.DB)) {
	t.Helper()
	for _, engine := range []thole.Engine{thole.SQLite, thole.Postgres} {
		if len(c.Engines) > 0 && !slices.Contains(c.Engines, engine) {
			continue
		}
		t.Run(string(engine), func(t *testing.T) {
			t.Helper()
			test(t, c.database(t, engine))
		})
	}
}

// engine is the one that a single database is on.
func (c Config) engine() thole.Engine {
	if len(c.Engines) > 0 {
		return c.Engines[0]
	}
	if strings.HasPrefix(os.Getenv("DBTEST_URL"), "postgres") {
		return thole.Postgres
	}
	return thole.SQLite
}

func (c Config) database(tb testing.TB, engine thole.Engine) *thole.DB {
	tb.Helper()
	if engine == thole.Postgres {
		return c.open(tb, testdb.Postgres(tb))
	}
	return c.open(tb, testdb.SQLite(tb))
}

// open opens the database and makes it what the Config says.
func (c Config) open(tb testing.TB, url string) *thole.DB {
	tb.Helper()
	ctx := tb.Context()
	db, err := thole.Open(ctx, url)
	if err != nil {
		tb.Fatalf("dbtest: %v", err)
	}
	tb.Cleanup(func() {
		if err := db.Close(); err != nil {
			tb.Errorf("dbtest: %v", err)
		}
	})
	if c.Migrations != nil {
		if err := db.Migrate(ctx, c.Migrations); err != nil {
			tb.Fatalf("dbtest: %v", err)
		}
	}
	if c.Fixtures != nil {
		if err := c.Fixtures(ctx, db); err != nil {
			tb.Fatalf("dbtest: fill the database: %v", err)
		}
	}
	return db
}

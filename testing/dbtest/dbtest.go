// Package dbtest gives a test a database that is as if nobody had used it, on
// SQLite and on PostgreSQL, in less than a millisecond.
//
//	var testdb = dbtest.Config{Migrations: migrations.FS}
//
//	func TestForge(t *testing.T) {
//		testdb.Each(t, func(t *testing.T, db *thole.DB) { // subtests sqlite and postgres
//			err := forge(t.Context(), db, "Dragon Scale Shield")
//			…
//
// # Which one
//
// [Sandbox] is for code that opens sessions of its own: they commit as far as it
// can tell, with commit hooks and deferred constraints, and are undone when the
// test ends. [Session] is for code that is given a [thole.Tx]. [Database] is for
// what needs real commits on several connections: LISTEN, advisory locks, sessions
// that run side by side, VACUUM; it costs some tens of milliseconds on PostgreSQL.
// [Each] and [EachDatabase] run a test on every engine.
//
// On SQLite a sandbox is a database in memory, a copy of one that was migrated
// once. On PostgreSQL it is a transaction that is never committed, in which sessions
// are savepoints, on a connection that is kept, and in a database that no other test
// is in at the same time. So now() stands still there, sequences are not reset, and
// NOTIFY is not delivered.
//
// On both engines sessions of a sandbox take turns. One that is opened inside
// another with the ctx from outside, and a query on the DB there, fail at once,
// with both places: in production they would not see what the session has done,
// and on SQLite wait for it in vain.
//
// # When it fails
//
// [Faults] has a database fail on demand: serialization failures, a connection that
// breaks, the answer to COMMIT lost, a full disk. [Config.Rerun] finds functions
// that are not safe to run again.
//
// # Where PostgreSQL comes from
//
// From the server that DBTEST_URL names; else from the programs of PostgreSQL
// on this machine (in PATH, or where Debian, Homebrew and the like put them),
// of which a private server is started, one for a test binary, that ends with
// it in whatever way that ends. It needs no account: as root it runs as nobody.
// Else from a container, where the test imports dbtest/dockerpg. Where there is
// none the test is skipped and says what was looked for. In CI set
// DBTEST_REQUIRE=postgres, and the test fails instead.
//
// # When a test fails
//
// It logs what ran on each of its databases: the last 200 statements with arguments,
// rows, errors and call sites, in their sessions. DBTEST_ARGS=off leaves the
// arguments out. DBTEST_KEEP=fail keeps the [Database] of a test that has failed,
// DBTEST_KEEP=all each one, and the log has the command that opens it. A test that
// hangs writes what it waits for some seconds before its deadline.
//
// A session that goes on after a statement of it has failed works on SQLite alone.
// Under [Each] that is logged on both engines, and fails the test where there is no
// PostgreSQL to refuse it.
//
// [Queries], [Sessions] and [Hooks] are for assertions about what ran.
//
// # Rules for DBTEST_URL
//
// DBTEST_URL must name a database with "test" in its name, because databases
// are made and dropped beside it; DBTEST_UNSAFE=1 allows any. DATABASE_URL is
// never read.
package dbtest

import (
	"context"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/tholedb/thole"
)

// Config says what the databases of tests are like. The zero value is an empty
// database. Make it a variable of the package: what was migrated for one is used
// again where the fields are the same.
type Config struct {
	// Migrations are applied to each database. Default: none.
	Migrations fs.FS

	// Engines are those that Each and EachDatabase run on; the first is the one
	// of Session, Sandbox and Database. Default: SQLite and PostgreSQL for the
	// former; for the latter the engine of DBTEST_URL, or SQLite.
	Engines []thole.Engine

	// Fixtures fills each database, after the migrations. It runs once for a test
	// binary; each test has a copy. Default: nothing.
	Fixtures func(ctx context.Context, db *thole.DB) error

	// Configure changes the configuration that each database is opened with, as
	// the program does with its own: Session, Logger, types and functions. It
	// must not change which database it is. What AfterConnect SETs is reset after
	// each session of a sandbox: use RuntimeParams. Default: as [thole.ParseURL]
	// has it.
	Configure func(cfg *thole.Config)

	// Rerun makes the first attempt of every session fail when it commits, with a
	// serialization failure, so that fn runs twice: one that is not safe to run
	// again is found by the tests that there are. Sessions with MaxAttempts 1, and
	// those that are ended by hand, are left alone. Default: nothing fails.
	Rerun bool

	twins *twins // of Each
}

// Session is [Config.Session] of an empty database.
func Session(tb testing.TB) *thole.Tx {
	tb.Helper()
	return Config{}.Session(tb)
}

// Sandbox is [Config.Sandbox] of an empty database.
func Sandbox(tb testing.TB) *thole.DB {
	tb.Helper()
	return Config{}.Sandbox(tb)
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

// Session opens a session in a [Config.Sandbox], which is rolled back when the test
// ends: its OnCommit hooks never run. The session is for the goroutine of the test;
// code that opens sessions of its own on a *DB takes Sandbox.
func (c Config) Session(tb testing.TB) *thole.Tx {
	tb.Helper()
	db := c.Sandbox(tb)
	return keepOpen(tb, func(ctx context.Context, fn func(tx *thole.Tx) error) error {
		return db.WithSession(ctx, fn)
	})
}

// Sandbox returns a DB whose sessions commit as far as the code under test can
// tell, and are all undone when the test ends. Statements outside a session, too.
// It must not be used after that ([thole.ErrClosed]): a session that is open then,
// and rows that were not closed, fail the test.
func (c Config) Sandbox(tb testing.TB) *thole.DB {
	tb.Helper()
	return c.sandbox(tb, c.engine())
}

// Database opens a private database, with real commits, that is gone when the
// test has ended. On SQLite it is a file. It takes some milliseconds on SQLite,
// some tens on PostgreSQL.
func (c Config) Database(tb testing.TB) *thole.DB {
	tb.Helper()
	return c.database(tb, c.engine())
}

// Each runs test on every engine, as the subtests sqlite and postgres, each with a
// [Config.Sandbox].
func (c Config) Each(t *testing.T, test func(t *testing.T, db *thole.DB)) {
	t.Helper()
	c.each(t, test, Config.sandbox)
}

// EachDatabase runs test on every engine, as the subtests sqlite and postgres,
// each with a [Config.Database].
func (c Config) EachDatabase(t *testing.T, test func(t *testing.T, db *thole.DB)) {
	t.Helper()
	c.each(t, test, Config.database)
}

func (c Config) each(t *testing.T, test func(t *testing.T, db *thole.DB), open func(Config, testing.TB, thole.Engine) *thole.DB) {
	t.Helper()
	c.twins = newTwins(t)
	for _, engine := range []thole.Engine{thole.SQLite, thole.Postgres} {
		if len(c.Engines) > 0 && !slices.Contains(c.Engines, engine) {
			continue
		}
		t.Run(string(engine), func(t *testing.T) {
			t.Helper()
			test(t, c.twins.open(t, engine, func() *thole.DB { return open(c, t, engine) }))
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

func (c Config) sandbox(tb testing.TB, engine thole.Engine) *thole.DB {
	tb.Helper()
	if engine == thole.Postgres {
		return c.postgresSandbox(tb)
	}
	return c.sqliteSandbox(tb)
}

func (c Config) database(tb testing.TB, engine thole.Engine) *thole.DB {
	tb.Helper()
	if engine == thole.Postgres {
		return c.postgresDatabase(tb)
	}
	return c.sqliteDatabase(tb)
}

// Package testdb gives a test a database of its own, which is gone when the
// test has ended.
package testdb

import (
	"context"
	"crypto/rand"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tholedb/thole/internal/pgserver"
)

// SQLite returns the URL of a database file that does not exist yet.
func SQLite(tb testing.TB) string {
	tb.Helper()
	return "sqlite:///" + url.PathEscape(filepath.Join(tb.TempDir(), "test.db"))
}

// Postgres returns the URL of an empty database. Without a server the test is
// skipped and says why, or fails when DBTEST_REQUIRE is postgres.
func Postgres(tb testing.TB) string {
	tb.Helper()
	server := find(tb, pgserver.Find)
	name := newDatabase(tb, server)
	return within(tb, server, name)
}

// PostgresWaiting returns the URL of an empty database whose server waits, with
// synchronous_commit=on, for a standby that never comes. Without the programs
// for one it does as [Postgres] does.
func PostgresWaiting(tb testing.TB) string {
	tb.Helper()
	server := find(tb, pgserver.FindWaiting)
	return within(tb, server, newDatabase(tb, server))
}

// PgBouncer returns the URL of an empty database behind a PgBouncer in
// transaction mode. Without one, or without a server, it does as [Postgres]
// does.
func PgBouncer(tb testing.TB) string {
	tb.Helper()
	name := newDatabase(tb, find(tb, pgserver.Find))
	return within(tb, find(tb, pgserver.FindPooler), name)
}

// PostgresToKill returns a server of the test's own that keeps what it has
// acknowledged when it is killed. Without the programs for one it does as
// [Postgres] does.
func PostgresToKill(tb testing.TB) *pgserver.Server {
	tb.Helper()
	server := findServer(tb, func(ctx context.Context) (*pgserver.Server, error) {
		return pgserver.Start(ctx, "synchronous_commit=on", "full_page_writes=on")
	})
	tb.Cleanup(func() { runtime.KeepAlive(server) })
	return server
}

// find returns the URL of a server, or skips or fails the test.
func find(tb testing.TB, in func(context.Context) (*pgserver.Server, error)) string {
	tb.Helper()
	return findServer(tb, in).URL
}

func findServer(tb testing.TB, in func(context.Context) (*pgserver.Server, error)) *pgserver.Server {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), time.Minute)
	defer cancel()
	required := os.Getenv("DBTEST_REQUIRE")
	if required != "" && required != "postgres" {
		tb.Fatalf("DBTEST_REQUIRE is %q: it is postgres or not set", required)
	}
	server, err := in(ctx)
	if _, missing := errors.AsType[*pgserver.NotFoundError](err); missing && required == "" {
		tb.Skip(err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return server
}

// newDatabase makes a database that is dropped when the test has ended, and
// returns its name.
func newDatabase(tb testing.TB, server string) string {
	tb.Helper()
	name := "thole_test_" + strings.ToLower(rand.Text())
	execute(tb, server, "create database "+name+" template template0 strategy file_copy")
	tb.Cleanup(func() { execute(tb, server, "drop database if exists "+name+" with (force)") })
	return name
}

// within is the URL of a database of a server.
func within(tb testing.TB, server, name string) string {
	tb.Helper()
	own, err := url.Parse(server)
	if err != nil {
		tb.Fatal("read the URL of the test server: it is not a URL")
	}
	own.Path = "/" + name
	return own.String()
}

// execute runs a statement on a connection of its own.
func execute(tb testing.TB, server, statement string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, statement); err != nil {
		tb.Fatalf("%s: %v", statement, err)
	}
}

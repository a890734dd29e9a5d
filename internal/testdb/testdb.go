// Package testdb gives a test a database of its own, which is gone when the
// test has ended.
package testdb

import (
	"context"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/tholedb/thole/internal/pgclone"
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
	return newDatabase(tb, find(tb, pgserver.Find)).URL
}

// PostgresWaiting returns the URL of an empty database whose server waits, with
// synchronous_commit=on, for a standby that never comes. Without the programs
// for one it does as [Postgres] does.
func PostgresWaiting(tb testing.TB) string {
	tb.Helper()
	return newDatabase(tb, find(tb, pgserver.FindWaiting)).URL
}

// PgBouncer returns the URL of an empty database behind a PgBouncer in
// transaction mode. Without one, or without a server, it does as [Postgres]
// does.
func PgBouncer(tb testing.TB) string {
	tb.Helper()
	db := newDatabase(tb, find(tb, pgserver.Find))
	pooler, err := pgclone.Within(find(tb, pgserver.FindPooler), db.Name)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := db.Disconnect(context.WithoutCancel(tb.Context())); err != nil {
			tb.Error(err)
		}
	})
	return pooler
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

// Server returns the server of this process. Without one the test is skipped or
// fails, as with [Postgres].
func Server(tb testing.TB) *pgserver.Server {
	tb.Helper()
	return findServer(tb, pgserver.Find)
}

// find returns the URL of a server, or skips or fails the test.
func find(tb testing.TB, in func(context.Context) (*pgserver.Server, error)) string {
	tb.Helper()
	return findServer(tb, in).URL
}

func findServer(tb testing.TB, in func(context.Context) (*pgserver.Server, error)) *pgserver.Server {
	tb.Helper()
	required := os.Getenv("DBTEST_REQUIRE")
	if required != "" && required != "postgres" {
		tb.Fatalf("DBTEST_REQUIRE is %q: it is postgres or not set", required)
	}
	// It bounds itself; an image that is pulled may take minutes.
	server, err := in(context.WithoutCancel(tb.Context()))
	if _, missing := errors.AsType[*pgserver.NotFoundError](err); missing && required == "" {
		tb.Skip(err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return server
}

// newDatabase makes an empty database that is dropped in the background when the
// test has ended.
func newDatabase(tb testing.TB, server string) *pgclone.Database {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), time.Minute)
	defer cancel()
	s, err := pgclone.On(ctx, server)
	if err != nil {
		tb.Fatal(err)
	}
	db, err := s.Clone(ctx, pgclone.Template{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(db.Drop)
	return db
}

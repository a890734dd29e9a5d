package postgres

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tholedb/thole/internal/engine"
	"github.com/tholedb/thole/internal/sqltext"
)

func TestEngine(t *testing.T) {
	t.Parallel()
	own := testURL(t)
	e := openURL(t, own)
	u, err := url.Parse(own)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := e.String(), u.Host+u.Path; got != want {
		t.Errorf("String() = %q, want %q", got, want)
	}
	if e.Name() != "postgres" || e.DriverName() != "pgx" || e.Dialect() != sqltext.Postgres {
		t.Errorf("got %q, %q, %v", e.Name(), e.DriverName(), e.Dialect())
	}
	if err := e.CheckNamedValue(nil); err != nil {
		t.Error(err)
	}
	if err := e.Ping(testContext(t)); err != nil {
		t.Error(err)
	}
}

func TestIsolation(t *testing.T) {
	t.Parallel()
	tests := map[sql.IsolationLevel]sql.IsolationLevel{
		sql.LevelDefault:         sql.LevelReadCommitted,
		sql.LevelReadUncommitted: sql.LevelReadCommitted,
		sql.LevelReadCommitted:   sql.LevelReadCommitted,
		sql.LevelRepeatableRead:  sql.LevelSnapshot,
		sql.LevelSnapshot:        sql.LevelSnapshot,
		sql.LevelSerializable:    sql.LevelSerializable,
	}
	for asked, want := range tests {
		if got, err := new(Engine).Isolation(asked); got != want || err != nil {
			t.Errorf("Isolation(%s) = %s, %v, want %s", asked, got, err, want)
		}
	}
	for _, asked := range []sql.IsolationLevel{sql.LevelWriteCommitted, sql.LevelLinearizable} {
		if _, err := new(Engine).Isolation(asked); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("Isolation(%s): got %v, want errors.ErrUnsupported", asked, err)
		}
	}
}

// changed is the URL of a database of the test's own, changed.
func changed(t *testing.T, change func(*url.URL)) string {
	t.Helper()
	u, err := url.Parse(testURL(t))
	if err != nil {
		t.Fatal(err)
	}
	change(u)
	return u.String()
}

func TestOpenFails(t *testing.T) {
	t.Parallel()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	tests := []struct {
		name  string
		url   string
		kind  error
		retry engine.Retry
		want  string
	}{
		{
			"nobody listens",
			"postgres://u:" + secret + "@" + closed.Addr().String() + "/db?sslmode=disable",
			engine.ErrConnLost, engine.RetryAsked, "open postgres: ping: connect to " + closed.Addr().String() + "/db: connection refused",
		},
		{
			"nobody answers",
			"postgres://u:" + secret + "@" + silent.Addr().String() + "/db?sslmode=disable&connect_timeout=1",
			engine.ErrConnLost, engine.RetryAsked, "open postgres: ping: connect to " + silent.Addr().String() + "/db: no answer in time",
		},
		{
			"no such database",
			changed(t, func(u *url.URL) { u.Path = "/nosuch" }),
			nil, engine.RetryNever, `database "nosuch" does not exist (3D000)`,
		},
		{
			"a setting that the server does not know",
			changed(t, func(u *url.URL) { u.RawQuery = "sslmode=disable&nosuch=1" }),
			nil, engine.RetryNever, `unrecognized configuration parameter "nosuch" (42704)`,
		},
		{
			"a setting with a wrong value",
			changed(t, func(u *url.URL) { u.RawQuery = "sslmode=disable&work_mem=nonsense" }),
			nil, engine.RetryNever, `invalid value for parameter "…" (22023)`,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			cfg, _, err := ParseURL(test.url)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Open(testContext(t), cfg, testEnv(t.Output()))
			failed := wantKind(t, err, test.kind)
			if !strings.HasSuffix(err.Error(), test.want) || failed.Retry != test.retry {
				t.Errorf("got %v, retry %d, want %s, %d", err, failed.Retry, test.want, test.retry)
			}
			for ; err != nil; err = errors.Unwrap(err) {
				wantNoSecret(t, err)
				if encoded, _ := json.Marshal(err); bytes.Contains(encoded, []byte(secret)) {
					t.Errorf("JSON shows the secret: %s", encoded)
				}
			}
			if _, ok := errors.AsType[*pgconn.ConnectError](failed); ok {
				t.Error("the error holds the configuration, and the password with it")
			}
		})
	}
}

func TestOpenUnderContext(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	cfg, _, err := ParseURL("postgres://u@" + silent.Addr().String() + "/db?sslmode=disable&connect_timeout=1")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(testContext(t), 20*time.Millisecond)
	defer cancel()
	_, err = Open(ctx, cfg, testEnv(t.Output()))
	wantKind(t, err, engine.ErrTimeout)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no answer in time") {
		t.Errorf("got %v", err)
	}
}

func TestOpenWarnsOnce(t *testing.T) {
	t.Parallel()
	own := changed(t, func(u *url.URL) { u.RawQuery = "" })
	for name, test := range map[string]struct {
		url  string
		warn bool
	}{
		"loopback":       {own, false},
		"remote":         {strings.Replace(own, "127.0.0.1", "db.example", 1), true},
		"remote, chosen": {strings.Replace(own, "127.0.0.1", "db.example", 1) + "?sslmode=prefer", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, _, err := ParseURL(test.url)
			if err != nil {
				t.Fatal(err)
			}
			cfg.ConnConfig.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"127.0.0.1"}, nil }
			var log bytes.Buffer
			e, err := Open(testContext(t), cfg, testEnv(&log))
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close(testContext(t))
			if got := strings.Count(log.String(), "TLS"); got != map[bool]int{true: 1}[test.warn] {
				t.Errorf("log: %s", &log)
			}
		})
	}
}

func TestAdopt(t *testing.T) {
	t.Parallel()
	pool, err := pgxpool.New(testContext(t), testURL(t))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	e, err := Adopt(testContext(t), pool, testEnv(t.Output()))
	if err != nil {
		t.Fatal(err)
	}
	once(t, e, "select 1")

	s := begin(t, e, engine.Options{})
	ctx, cancel := context.WithTimeout(testContext(t), 10*time.Millisecond)
	defer cancel()
	failed := wantKind(t, exec(ctx, s, "select pg_sleep(60)"), engine.ErrConnLost) // as pgx has it
	if !errors.Is(failed, context.DeadlineExceeded) || failed.Retry != engine.RetryNever {
		t.Errorf("got %v, retry %d, want context.DeadlineExceeded and no retry", failed, failed.Retry)
	}
	s.Rollback(testContext(t), failed)

	if err := e.Close(testContext(t)); err != nil {
		t.Error(err)
	}
	wantKind(t, exec(testContext(t), openSession(t, e, engine.Options{}), "select 1"), engine.ErrClosed)
	if err := pool.Ping(testContext(t)); err != nil {
		t.Errorf("the pool was closed: %v", err)
	}
}

func TestClose(t *testing.T) {
	t.Parallel()
	cfg, _, err := ParseURL(testURL(t))
	if err != nil {
		t.Fatal(err)
	}
	e, err := Open(testContext(t), cfg, testEnv(t.Output()))
	if err != nil {
		t.Fatal(err)
	}
	s := begin(t, e, engine.Options{})
	ctx, cancel := context.WithTimeout(testContext(t), 10*time.Millisecond)
	defer cancel()
	err = e.Close(ctx)
	wantKind(t, err, engine.ErrTimeout)
	if want := "close postgres: 1 connections are still in use"; !strings.Contains(err.Error(), want) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close = %v, want %s", err, want)
	}
	_, err = e.Conn(testContext(t))
	wantKind(t, err, engine.ErrClosed)
	wantKind(t, e.Ping(testContext(t)), engine.ErrClosed)
	if out, err := s.Commit(testContext(t), true); out != engine.Committed || err != nil {
		t.Errorf("Commit after Close = %d, %v", out, err)
	}
	for range 2 {
		if err := e.Close(testContext(t)); err != nil {
			t.Error(err)
		}
	}
}

func TestBeginMigration(t *testing.T) {
	t.Parallel()
	e := open(t)
	first, err := e.BeginMigration(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	mustExec(t, first, "insert into schema_migrations values (1, false)")

	ctx, cancel := context.WithTimeout(testContext(t), 20*time.Millisecond)
	defer cancel()
	_, err = e.BeginMigration(ctx)
	wantKind(t, err, engine.ErrTimeout)

	second := make(chan engine.Session)
	go func() {
		s, err := e.BeginMigration(testContext(t))
		if err != nil {
			t.Error(err)
		}
		second <- s
	}()
	if out, err := first.Commit(testContext(t), true); out != engine.Committed || err != nil {
		t.Fatalf("Commit = %d, %v", out, err)
	}
	s := <-second
	defer s.Rollback(testContext(t), nil)
	if diff := cmp.Diff([]any{int64(1)}, mustQuery(t, s, "select version from schema_migrations")); diff != "" {
		t.Errorf("versions (-want +got):\n%s", diff)
	}
}

func TestBeginMigrationWaitsForTheLock(t *testing.T) {
	t.Parallel()
	e := open(t)
	s := begin(t, e, engine.Options{})
	defer s.Rollback(testContext(t), nil)
	mustExec(t, s, "select pg_advisory_xact_lock($1)", migrationLock)
	ctx, cancel := context.WithTimeout(testContext(t), 100*time.Millisecond)
	defer cancel()
	_, err := e.BeginMigration(ctx)
	wantKind(t, err, engine.ErrTimeout)
	deadline := testContext(t)
	for e.pool.Stat().AcquiredConns() != 1 { // the pool closes the migration's in a goroutine
		if deadline.Err() != nil {
			t.Fatalf("connections in use: got %d, want 1", e.pool.Stat().AcquiredConns())
		}
		time.Sleep(time.Millisecond)
	}
}

// TestBeginMigrationAtOnce has several processes make the table: without the
// lock, "create table if not exists" fails for all but one.
func TestBeginMigrationAtOnce(t *testing.T) {
	t.Parallel()
	e := open(t, maxConns(8))
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			s, err := e.BeginMigration(testContext(t))
			if err != nil {
				t.Error(err)
				return
			}
			if out, err := s.Commit(testContext(t), true); out != engine.Committed || err != nil {
				t.Errorf("Commit = %d, %v", out, err)
			}
		})
	}
	all.Wait()
}

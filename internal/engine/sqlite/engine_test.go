package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/tholedb/thole/internal/engine"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(openerVar); path != "" {
		os.Exit(openAndWrite(path))
	}
	if path := os.Getenv(foreignVar); path != "" {
		os.Exit(writeByHand(path))
	}
	goleak.VerifyTestMain(m)
}

// testLog is a log that tests read.
type testLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *testLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *testLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// open opens a database that is closed when the test has ended.
func open(t *testing.T, cfg Config) *Engine {
	t.Helper()
	e, _ := openLogged(t, cfg)
	return e
}

func openLogged(t *testing.T, cfg Config) (*Engine, *testLog) {
	t.Helper()
	log := &testLog{}
	env := engine.Env{Log: slog.New(slog.NewTextHandler(log, nil)), Sessions: &engine.Registry{}}
	e, err := Open(t.Context(), cfg, env)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := e.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return e, log
}

// file is the configuration of a new file.
func file(t *testing.T) Config {
	t.Helper()
	return Config{Path: filepath.Join(t.TempDir(), "test.db")}
}

// both runs a test on a file and in memory.
func both(t *testing.T, test func(*testing.T, *Engine)) {
	t.Helper()
	t.Run("file", func(t *testing.T) {
		t.Parallel()
		test(t, open(t, file(t)))
	})
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		test(t, open(t, Config{}))
	})
}

func values(args []any) []driver.NamedValue {
	named := make([]driver.NamedValue, len(args))
	for i, arg := range args {
		named[i] = driver.NamedValue{Ordinal: i + 1, Value: arg}
	}
	return named
}

// exec runs a text that must not fail.
func exec(t *testing.T, c engine.Conn, query string, args ...any) driver.Result {
	t.Helper()
	result, err := c.ExecContext(t.Context(), query, values(args))
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return result
}

// fails runs a text that must fail, and returns the explained error.
func fails(t *testing.T, c engine.Conn, query string, args ...any) *engine.Error {
	t.Helper()
	_, err := readAll(t.Context(), c, query, args...)
	if err == nil {
		t.Fatalf("%s: got no error, want one", query)
	}
	return c.Failed(t.Context(), err)
}

// rowsOf returns what a query answers.
func rowsOf(t *testing.T, c engine.Conn, query string, args ...any) [][]driver.Value {
	t.Helper()
	all, err := readAll(t.Context(), c, query, args...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return all
}

func readAll(ctx context.Context, c engine.Conn, query string, args ...any) (all [][]driver.Value, err error) {
	rows, err := c.QueryContext(ctx, query, values(args))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for {
		row := make([]driver.Value, len(rows.Columns()))
		if err := rows.Next(row); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all = append(all, row)
	}
}

// value returns the only value that a query answers.
func value(t *testing.T, c engine.Conn, query string, args ...any) driver.Value {
	t.Helper()
	all := rowsOf(t, c, query, args...)
	if len(all) != 1 || len(all[0]) != 1 {
		t.Fatalf("%s: got %v, want one value", query, all)
	}
	return all[0][0]
}

func auto(t *testing.T, e *Engine) engine.AutoConn {
	t.Helper()
	c, err := e.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func begin(t *testing.T, e *Engine, opts engine.Options) engine.Session {
	t.Helper()
	s, err := started(t.Context(), e, opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// started is a session that has begun, as it does with its first statement.
func started(ctx context.Context, e *Engine, opts engine.Options) (engine.Session, error) {
	s, err := e.Begin(ctx, opts)
	if err == nil {
		err = s.(*session).begin(ctx, "")
	}
	return s, err
}

func commit(t *testing.T, s engine.Session) {
	t.Helper()
	if outcome, err := s.Commit(t.Context(), true); outcome != engine.Committed || err != nil {
		t.Errorf("commit: got %v, %v, want %v", outcome, err, engine.Committed)
	}
}

func rollback(t *testing.T, s engine.Session) {
	t.Helper()
	if _, err := s.Rollback(context.WithoutCancel(t.Context()), nil); err != nil {
		t.Errorf("roll back: got %v, want no error", err)
	}
}

// is checks the kind of an error, and what else it matches.
func is(t *testing.T, err error, targets ...error) {
	t.Helper()
	for _, target := range targets {
		if !errors.Is(err, target) {
			t.Errorf("error: got %v, want one that matches %v", err, target)
		}
	}
}

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	e := open(t, Config{})
	same(t, "names", []string{e.Name(), e.DriverName(), e.String()}, []string{"sqlite", "sqlite3", "in-memory"})
	cfg := file(t)
	same(t, "name of a file", open(t, cfg).String(), cfg.Path)
}

func TestCheckNamedValue(t *testing.T) {
	t.Parallel()
	e := open(t, Config{})
	at := time.Date(2026, 11, 27, 20, 4, 5, 123456789, time.FixedZone("", 3600))
	for _, test := range []struct {
		value any
		want  driver.Value
	}{
		{1, int64(1)},
		{at, "2026-11-27 19:04:05.123456"},
		{&at, "2026-11-27 19:04:05.123456"},
		{sql.NullTime{Time: at.Truncate(time.Second), Valid: true}, "2026-11-27 19:04:05"},
		{sql.NullTime{}, nil},
	} {
		value := driver.NamedValue{Value: test.value}
		if err := e.CheckNamedValue(&value); err != nil || value.Value != test.want {
			t.Errorf("%v: got %v and error %v, want %v", test.value, value.Value, err, test.want)
		}
	}
	for _, wrong := range []any{time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), []int{1}, struct{}{}} {
		if err := e.CheckNamedValue(&driver.NamedValue{Value: wrong}); err == nil {
			t.Errorf("%T: got no error", wrong)
		}
	}
}

func TestPing(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *Engine) {
		if err := e.Ping(t.Context()); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		is(t, e.Ping(ctx), context.Canceled)
	})
}

func TestCloseRefusesAtOnce(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *Engine) {
		s := begin(t, e, engine.Options{})
		waiting := make(chan error)
		go func() {
			_, err := started(context.WithoutCancel(t.Context()), e, engine.Options{})
			waiting <- err
		}()
		queued(t, e.writer.line, 1)

		ended, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		err := e.Close(ended)
		is(t, err, engine.ErrTimeout, context.DeadlineExceeded)
		same(t, "message", err.Error(), "close database, 1 connections in use, no session open: context deadline exceeded")
		is(t, <-waiting, engine.ErrClosed)
		_, err = started(t.Context(), e, engine.Options{ReadOnly: true})
		is(t, err, engine.ErrClosed)
		is(t, e.Ping(t.Context()), engine.ErrClosed)
		_, err = auto(t, e).ExecContext(t.Context(), "SELECT 1", nil)
		is(t, err, engine.ErrClosed)

		exec(t, s, "CREATE TABLE t (a)") // what is open goes on
		commit(t, s)
		if err := e.Close(t.Context()); err != nil {
			t.Errorf("close again: got %v, want no error", err)
		}
		if e.writer.slot.conn != nil {
			t.Error("connection of the writer: got one, want none")
		}
	})
}

// The wait for a connection says who has it, in each way in which it can end.
func TestWaitNamesTheHolder(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *Engine) {
		info := &engine.Info{Label: "forge", Caller: engine.Here(), Began: time.Now()}
		s := begin(t, e, engine.Options{Info: info})
		defer rollback(t, s)

		_, err := started(t.Context(), e, engine.Options{LockTimeout: time.Millisecond})
		is(t, err, engine.ErrLocked)
		contains(t, err, `wait for the writer, session "forge" opened at`, "holds it: gave up after 1ms")
		same(t, "retry", explained(t, err).Retry, engine.RetryAsked)

		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err = started(ctx, e, engine.Options{})
		is(t, err, engine.ErrTimeout, context.DeadlineExceeded)
		contains(t, err, `"forge"`)

		reason := errors.New("shutting down")
		cancelled, stop := context.WithCancelCause(t.Context())
		waiting := make(chan error)
		go func() {
			_, err := auto(t, e).ExecContext(cancelled, "CREATE TABLE t (a)", nil)
			waiting <- err
		}()
		queued(t, e.writer.line, 1)
		stop(reason)
		err = <-waiting
		is(t, err, context.Canceled, reason)
		contains(t, err, `"forge"`, "context canceled")
		if errors.Is(err, engine.ErrTimeout) || explained(t, err).Kind != nil {
			t.Errorf("kind: got %v, want none", explained(t, err).Kind)
		}
	})
}

func TestWaitForAReader(t *testing.T) {
	t.Parallel()
	cfg := file(t)
	cfg.Readers = 1
	e := open(t, cfg)
	s := begin(t, e, engine.Options{ReadOnly: true})
	defer rollback(t, s)
	_, err := started(t.Context(), e, engine.Options{ReadOnly: true, LockTimeout: time.Millisecond})
	is(t, err, engine.ErrLocked)
	contains(t, err, "wait for a reader, all 1 are in use, no session open: gave up after 1ms")
}

func contains(t *testing.T, err error, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !bytes.Contains([]byte(err.Error()), []byte(part)) {
			t.Errorf("message: got %q, want %q in it", err, part)
		}
	}
}

// explained returns the explanation in an error.
func explained(t *testing.T, err error) *engine.Error {
	t.Helper()
	var e *engine.Error
	if !errors.As(err, &e) {
		t.Fatalf("error: got %v, want an explained one", err)
	}
	return e
}

package thole_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"modernc.org/sqlite"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/testdb"
	"github.com/tholedb/thole/testing/dbtest"
)

// These are ways, found by a review, to be told the wrong thing.

// waiting is a destination whose Scan returns when its ctx has ended and the
// rows are closed.
type waiting struct{ ctx context.Context }

func (w waiting) Scan(any) error {
	<-w.ctx.Done()
	time.Sleep(50 * time.Millisecond) // they are closed in another goroutine
	return nil
}

// TestContextEndsInScan ends ctx after a row was read and before the rows are
// closed: nil would say that the row is there.
func TestContextEndsInScan(t *testing.T) {
	t.Parallel()
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		run(t, db, "create table late (id integer primary key)")
		for id := range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			err := db.QueryRowContext(ctx, "insert into late (id) values (?) returning id", id).Scan(waiting{ctx})
			cancel()
			rows, countErr := thole.One[int](t.Context(), db, "select count(*) from late where id = ?", id)
			if countErr != nil {
				t.Fatal(countErr)
			}
			if err == nil || thole.OutcomeOf(err) == thole.RolledBack && rows != 0 {
				t.Errorf("got error %v, outcome %s and %d rows", err, thole.OutcomeOf(err), rows)
			}
		}
	})
}

// TestPreparedStatementExpires ends the ctx of a prepared statement's rows on a
// pool of one connection, which somebody else has when they are closed.
func TestPreparedStatementExpires(t *testing.T) {
	t.Parallel()
	cfg, err := thole.ParseURL(testdb.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Postgres.MaxConns = 1
	db, err := thole.OpenConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	for range 20 {
		stmt, err := db.PrepareContext(t.Context(), "select i from generate_series(1, 3) i")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		rows, err := stmt.QueryContext(ctx)
		if err != nil {
			t.Fatal(err)
		}
		rows.Next()
		var all sync.WaitGroup
		all.Go(func() {
			err := db.WithSession(t.Context(), func(tx *thole.Tx) error {
				for range 20 {
					if _, err := tx.ExecContext(t.Context(), "select 1"); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Errorf("the session that has the connection next: got error %v, want nil", err)
			}
		})
		cancel()
		_ = rows.Close() //nolint:sqlclosecheck // at this moment
		_ = stmt.Close() //nolint:sqlclosecheck // at this moment
		all.Wait()
		if err := rows.Err(); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("rows: got error %v", err)
		}
	}
}

// TestStatementsThatCommit fails behind a COMMIT of the statement's own.
func TestStatementsThatCommit(t *testing.T) {
	t.Parallel()
	dbtest.Config{Engines: []thole.Engine{thole.Postgres}}.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		run(t, db, "create table kept (id integer)")
		_, err := db.ExecContext(t.Context(), "do $$ begin insert into kept values (1); commit; raise unique_violation; end $$")
		if !errors.Is(err, thole.ErrUnique) || !errors.Is(err, thole.ErrCommitUnknown) || thole.OutcomeOf(err) != thole.Unknown {
			t.Errorf("got error %v, want it unknown, and its kind", err)
		}
		_, err = db.ExecContext(t.Context(), "insert into kept values ('x')")
		if errors.Is(err, thole.ErrCommitUnknown) || thole.OutcomeOf(err) != thole.RolledBack {
			t.Errorf("got error %v, want it rolled back", err)
		}
		_, err = db.ExecContext(t.Context(), "select lo_get(?)", 987654321)
		if err == nil || strings.Contains(err.Error(), "987654321") {
			t.Errorf("got error %v, want one without the argument", err)
		}
	})
}

// TestCauseOfAnotherSession cancels by the error of a session whose outcome is
// unknown, as errgroup does.
func TestCauseOfAnotherSession(t *testing.T) {
	t.Parallel()
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		other := errors.Join(thole.ErrCommitUnknown, thole.ErrAlreadyCommitted, errors.New("bad card 4111"))
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(other)
		refused := func() error { _, err := db.ExecContext(ctx, "select 1"); return err }()
		opened := db.WithSession(ctx, func(*thole.Tx) error { t.Error("fn ran"); return nil })
		inside := db.WithSession(t.Context(), func(tx *thole.Tx) error {
			_, err := tx.ExecContext(ctx, "select 1")
			return err
		})
		for name, err := range map[string]error{"refused": refused, "not opened": opened, "inside": inside} {
			if !errors.Is(err, context.Canceled) || errors.Is(err, thole.ErrCommitUnknown) ||
				errors.Is(err, thole.ErrAlreadyCommitted) || thole.OutcomeOf(err) != thole.RolledBack {
				t.Errorf("%s: got error %v, outcome %s, want it rolled back", name, err, thole.OutcomeOf(err))
			}
		}
	})
}

// TestCauseIsNotLogged cancels a statement of SQLite's with words of the
// program's.
func TestCauseIsNotLogged(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	cfg := &thole.Config{SQLite: &thole.SQLiteConfig{}, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	db, err := thole.OpenConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	ctx, cancel := context.WithCancelCause(t.Context())
	err = db.WithSession(ctx, func(tx *thole.Tx) error {
		time.AfterFunc(20*time.Millisecond, func() { cancel(errors.New("bad card 4111")) })
		_, err := tx.ExecContext(ctx, "with recursive n (i) as (select 1 union all select i + 1 from n) select count(*) from n")
		return err
	})
	if !errors.Is(err, context.Canceled) || strings.Contains(log.String(), "4111") || log.Len() == 0 {
		t.Errorf("got error %v, and in the log %q", err, log.String())
	}
}

// TestOnCommitWhileItCommits registers a hook from another goroutine when fn has
// returned.
func TestOnCommitWhileItCommits(t *testing.T) {
	t.Parallel()
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		for range 50 {
			var all sync.WaitGroup
			err := db.WithSession(t.Context(), func(tx *thole.Tx) error {
				all.Go(func() {
					for range 2000 {
						tx.OnCommit(func(context.Context) {})
					}
				})
				_, err := tx.ExecContext(t.Context(), "select 1")
				return err
			})
			if err != nil {
				t.Error(err)
			}
			all.Wait()
		}
	})
}

var _ sql.Scanner = waiting{}

// TestNestedFirst opens a session inside one that has sent nothing yet, and waits
// for SQLite's writer no longer than its ctx and LockTimeout let it.
func TestNestedFirst(t *testing.T) {
	t.Parallel()
	db, err := thole.Open(t.Context(), testdb.SQLite(t))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	run(t, db, "create table first (id integer primary key)")
	nested := func(ctx context.Context, opts thole.SessionOptions) error {
		return db.WithSessionOptions(ctx, opts, func(tx *thole.Tx) error {
			return tx.WithSession(tx.Context(), func(tx *thole.Tx) error {
				_, err := tx.ExecContext(tx.Context(), "insert into first default values")
				return err
			})
		})
	}
	err = db.WithSession(t.Context(), func(tx *thole.Tx) error {
		if err := begin(tx); err != nil {
			return err
		}
		ended := make(chan error, 2)
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			ended <- nested(ctx, thole.SessionOptions{LockTimeout: time.Minute})
			ended <- nested(t.Context(), thole.SessionOptions{LockTimeout: 20 * time.Millisecond})
		}()
		for _, want := range []error{context.DeadlineExceeded, thole.ErrLocked} {
			if err := <-ended; !errors.Is(err, want) {
				t.Errorf("got error %v, want %v", err, want)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := nested(t.Context(), thole.SessionOptions{}); err != nil {
			t.Error(err)
		}
	}
}

// TestRecoveredPanic has fn go on after a function of the program's has panicked
// in the middle of a statement.
func TestRecoveredPanic(t *testing.T) {
	t.Parallel()
	cfg, err := thole.ParseURL("sqlite://")
	if err != nil {
		t.Fatal(err)
	}
	cfg.SQLite.Driver = func(d *sqlite.Driver) error {
		return d.RegisterScalarFunction("boom", 1, func(_ *sqlite.FunctionContext, args []driver.Value) (driver.Value, error) {
			if args[0] == int64(3) {
				panic("boom")
			}
			return args[0], nil
		})
	}
	db, err := thole.OpenConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	run(t, db, "create table t (a)")
	for name, query := range map[string]func(tx *thole.Tx) error{
		"Exec": func(tx *thole.Tx) error {
			_, err := tx.ExecContext(t.Context(), "insert into t select boom(value) from json_each('[1,2,3]')")
			return err
		},
		"Query": func(tx *thole.Tx) error {
			_, err := thole.All[int](t.Context(), tx, "insert into t select boom(value) from json_each('[1,2,3]') returning a")
			return err
		},
	} {
		err := db.WithSession(t.Context(), func(tx *thole.Tx) error {
			defer func() { _ = recover() }()
			return query(tx)
		})
		if !errors.Is(err, thole.ErrTxAborted) || thole.OutcomeOf(err) != thole.RolledBack {
			t.Errorf("%s: got error %v (%s), want %v", name, err, thole.OutcomeOf(err), thole.ErrTxAborted)
		}
	}
	if n, err := thole.One[int](t.Context(), db, "select count(*) from t"); n != 0 || err != nil {
		t.Errorf("got %d rows, %v, want none", n, err)
	}
}

// exploding is a destination that panics.
type exploding struct{}

func (*exploding) Scan(any) error { panic("boom") }

// TestScannerPanics outside a session, in each function that reads: the
// connection is back, and the writer too.
func TestScannerPanics(t *testing.T) {
	t.Parallel()
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		run(t, db, "create table t (a integer)")
		const query = "insert into t values (1) returning a"
		for name, read := range map[string]func(){
			"GetContext":    func() { _ = db.GetContext(t.Context(), new(exploding), query) },
			"SelectContext": func() { _ = db.SelectContext(t.Context(), new([]exploding), query) },
			"One":           func() { _, _ = thole.One[exploding](t.Context(), db, query) },
		} {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%s: no panic", name)
					}
				}()
				read()
			}()
			run(t, db, "delete from t")
		}
	})
}

// TestUnreadRows has rows of a statement that writes, outside a session, go
// nowhere: what is told is what became of it.
func TestUnreadRows(t *testing.T) {
	t.Parallel()
	type other struct{ B int }
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		run(t, db, "create table unread (a integer)")
		const query = "insert into unread values (1), (2) returning a"
		for name, read := range map[string]func() error{
			"One, two rows": func() error { _, err := thole.One[int](t.Context(), db, query); return err },
			"One, no field": func() error { _, err := thole.One[other](t.Context(), db, query); return err },
			"All, a value":  func() error { _, err := thole.All[bool](t.Context(), db, query); return err },
			"GetContext":    func() error { return db.GetContext(t.Context(), new(other), query) },
			"SelectContext": func() error { return db.SelectContext(t.Context(), new([]other), query) },
			"Each": func() (err error) {
				for _, err = range thole.Each[other](t.Context(), db, query) {
					break
				}
				return err
			},
		} {
			err := read()
			rows, countErr := thole.One[int](t.Context(), db, "select count(*) from unread")
			if countErr != nil {
				t.Fatal(countErr)
			}
			want := map[bool]thole.Outcome{true: thole.Committed, false: thole.RolledBack}[rows > 0]
			if err == nil || thole.OutcomeOf(err) != want {
				t.Errorf("%s: got error %v and outcome %s, and %d rows are there", name, err, thole.OutcomeOf(err), rows)
			}
			if db.Engine() == thole.SQLite && rows > 0 {
				t.Errorf("%s: %d rows are there, want none on SQLite", name, rows)
			}
			run(t, db, "delete from unread")
		}
	})
}

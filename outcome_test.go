package thole_test

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

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
		other := errors.Join(thole.ErrCommitUnknown, errors.New("bad card 4111"))
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(other)
		refused := func() error { _, err := db.ExecContext(ctx, "select 1"); return err }()
		opened := db.WithSession(ctx, func(*thole.Tx) error { t.Error("fn ran"); return nil })
		inside := db.WithSession(t.Context(), func(tx *thole.Tx) error {
			_, err := tx.ExecContext(ctx, "select 1")
			return err
		})
		for name, err := range map[string]error{"refused": refused, "not opened": opened, "inside": inside} {
			if !errors.Is(err, context.Canceled) || errors.Is(err, thole.ErrCommitUnknown) || thole.OutcomeOf(err) != thole.RolledBack {
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

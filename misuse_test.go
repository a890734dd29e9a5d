package thole_test

import (
	"context"
	"database/sql"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/testing/dbtest"
)

// These are mistakes, and habits from database/sql, that a review found to
// break a promise.

// TestViewPoolSettings sets what every database/sql program sets: no connection
// of a session may come to anybody else.
func TestViewPoolSettings(t *testing.T) {
	t.Parallel()
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		openForErrors(t, db)
		db.Sqlx().SetMaxIdleConns(2)
		db.Sqlx().SetMaxOpenConns(1)
		for range 3 {
			err := db.WithSession(t.Context(), func(tx *thole.Tx) error {
				_, err := db.Sqlx().ExecContext(tx.Context(), "insert into parent values (2, 'bronze', 1)")
				return errors.Join(err, errUndo)
			})
			if !errors.Is(err, errUndo) || errors.Is(err, thole.ErrTxDone) {
				t.Errorf("got error %v, want fn's own", err)
			}
		}
		var rows int
		if err := db.Sqlx().GetContext(t.Context(), &rows, "select count(*) from parent"); err != nil || rows != 1 {
			t.Errorf("got %d rows, error %v, want 1: each session was rolled back", rows, err)
		}
	})
}

var errUndo = errors.New("undo")

// TestRowsAfterEnd asks rows about their columns when their connection is
// somebody else's: on SQLite the driver would read freed memory.
func TestRowsAfterEnd(t *testing.T) {
	t.Parallel()
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		var rows *sql.Rows
		err := db.WithSession(t.Context(), func(tx *thole.Tx) (err error) {
			rows, err = tx.QueryContext(t.Context(), "select 1 as one, 'x' as two") //nolint:sqlclosecheck,rowserrcheck // left open
			return err
		})
		if !errors.Is(err, thole.ErrRowsOpen) {
			t.Errorf("got error %v, want ErrRowsOpen", err)
		}
		if _, err := rows.ColumnTypes(); err != nil {
			t.Error(err)
		}
		if rows.Next() || !errors.Is(rows.Err(), thole.ErrTxDone) {
			t.Errorf("got error %v, want ErrTxDone", rows.Err())
		}
	})
}

// TestNilContext is an error, and leaves the DB as it was.
func TestNilContext(t *testing.T) {
	t.Parallel()
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		if _, err := db.ExecContext(nil, "select 1"); err == nil { //nolint:staticcheck // what is tested
			t.Error("got no error for a nil ctx")
		}
		if err := db.GetContext(t.Context(), new(int), "select 1"); err != nil {
			t.Error(err)
		}
	})
}

func TestEmptyText(t *testing.T) {
	t.Parallel()
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		result, err := db.ExecContext(t.Context(), "-- nothing")
		if err != nil {
			t.Fatal(err)
		}
		if n, err := result.RowsAffected(); n != 0 || err != nil {
			t.Errorf("got %d rows affected, error %v, want 0", n, err)
		}
	})
}

// TestIsolationTwoLevelsDown asks for the level that the outermost session has.
func TestIsolationTwoLevelsDown(t *testing.T) {
	t.Parallel()
	serializable := thole.SessionOptions{Isolation: sql.LevelSerializable}
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		err := db.WithSessionOptions(t.Context(), serializable, func(tx *thole.Tx) error {
			return tx.WithSession(t.Context(), func(tx *thole.Tx) error {
				return tx.WithSessionOptions(t.Context(), serializable, func(*thole.Tx) error { return nil })
			})
		})
		if err != nil {
			t.Errorf("got error %v, want nil", err)
		}
	})
}

// TestRowsCutShortOutsideSession cancels a statement that writes among the rows
// that it returns: what the error says of the outcome must be so.
func TestRowsCutShortOutsideSession(t *testing.T) {
	t.Parallel()
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		openForErrors(t, db)
		for name, cut := range map[string]func(rows *sql.Rows, cancel func()){
			"read on": func(rows *sql.Rows, cancel func()) {
				rows.Next()
				cancel()
			},
			"left": func(_ *sql.Rows, cancel func()) { cancel() },
		} {
			ctx, cancel := context.WithCancel(t.Context())
			rows, err := db.QueryContext(ctx, "insert into parent values (2, 'bronze', 1), (3, 'gold', 1), (4, 'tin', 1) returning id")
			if err != nil {
				t.Fatal(err)
			}
			cut(rows, cancel)
			for rows.Next() {
			}
			err = rows.Err()
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s: got error %v, want %v", name, err, context.Canceled)
			}
			_ = rows.Close() //nolint:sqlclosecheck // now, before the next look
			var kept int
			if err := db.GetContext(t.Context(), &kept, "select count(*) from parent where id > 1"); err != nil {
				t.Fatal(err)
			}
			outcome := thole.OutcomeOf(err)
			if kept > 0 && outcome == thole.RolledBack || errors.Is(err, thole.ErrCommitUnknown) != (outcome == thole.Unknown) {
				t.Errorf("%s: got outcome %v of %v, with %d rows in the table", name, outcome, err, kept)
			}
			if _, err := db.ExecContext(t.Context(), "delete from parent where id > 1"); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestScriptOutsideSession happens as a whole or not at all.
func TestScriptOutsideSession(t *testing.T) {
	t.Parallel()
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		openForErrors(t, db)
		count := func() (rows int) {
			if err := db.GetContext(t.Context(), &rows, "select count(*) from parent"); err != nil {
				t.Error(err)
			}
			return rows
		}
		_, err := db.ExecContext(t.Context(), "insert into parent values (2, 'bronze', 1); insert into parent values (2, 'gold', 1)")
		if !errors.Is(err, thole.ErrUnique) || thole.OutcomeOf(err) != thole.RolledBack || count() != 1 {
			t.Errorf("got error %v and %d rows, want ErrUnique, and no row more than the one before", err, count())
		}
		if _, err := db.ExecContext(t.Context(), "insert into parent values (2, 'bronze', 1); insert into parent values (3, 'gold', 1);"); err != nil || count() != 3 {
			t.Errorf("got error %v and %d rows, want nil and 3", err, count())
		}
	})
}

// TestBeginInside has code that takes a *sqlx.DB ask, inside a session, for more
// than that gives.
func TestBeginInside(t *testing.T) {
	t.Parallel()
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		err := db.WithSession(t.Context(), func(tx *thole.Tx) error {
			_, err := db.Sqlx().BeginTxx(tx.Context(), &sql.TxOptions{ReadOnly: true})
			if !errors.Is(err, thole.ErrNested) {
				t.Errorf("read-only: got error %v, want %v", err, thole.ErrNested)
			}
			_, err = db.Sqlx().BeginTxx(tx.Context(), &sql.TxOptions{Isolation: sql.LevelSerializable})
			if db.Engine() == thole.Postgres && !errors.Is(err, thole.ErrNested) { // SQLite is serializable already
				t.Errorf("serializable: got error %v, want %v", err, thole.ErrNested)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		err = db.WithSessionOptions(t.Context(), thole.SessionOptions{ReadOnly: true}, func(tx *thole.Tx) error {
			_, err := db.Sqlx().BeginTxx(tx.Context(), nil)
			return err
		})
		if err != nil {
			t.Errorf("without options: got error %v, want nil", err)
		}
	})
}

// TestDefaultsOfNestedSessions has Config.Session stand in where they say
// nothing.
func TestDefaultsOfNestedSessions(t *testing.T) {
	t.Parallel()
	cfg, err := thole.ParseURL("sqlite://")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Session = thole.SessionOptions{Nested: thole.NestedForbidden, Timeout: time.Hour, MaxAttempts: 7}
	db, err := thole.OpenConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.WithSession(t.Context(), func(tx *thole.Tx) error {
		for _, q := range []thole.Querier{tx, db} {
			if err := q.WithSession(tx.Context(), func(*thole.Tx) error { return nil }); !errors.Is(err, thole.ErrNested) {
				t.Errorf("got error %v, want %v as the default says", err, thole.ErrNested)
			}
		}
		return tx.WithSessionOptions(tx.Context(), thole.SessionOptions{Nested: thole.NestedJoin}, func(*thole.Tx) error { return nil })
	})
	if err != nil {
		t.Error(err)
	}
	view, err := db.Sqlx().BeginTxx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := view.Commit(); err != nil {
		t.Error(err)
	}
	cfg.Session = thole.SessionOptions{Timeout: time.Nanosecond}
	short, err := thole.OpenConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer short.Close()
	if _, err := short.Sqlx().BeginTxx(t.Context(), nil); !errors.Is(err, thole.ErrTimeout) {
		t.Errorf("got error %v, want %v as the default says", err, thole.ErrTimeout)
	}
}

// TestClosing refuses statements while Close waits for a session.
func TestClosing(t *testing.T) {
	t.Parallel()
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		closed := make(chan error, 1)
		err := db.WithSession(t.Context(), func(tx *thole.Tx) error {
			go func() { closed <- db.Close() }()
			for db.WithSession(t.Context(), func(*thole.Tx) error { return nil }) == nil {
				time.Sleep(time.Millisecond)
			}
			_, err := db.ExecContext(t.Context(), "create table late (id integer)")
			if !errors.Is(err, thole.ErrClosed) {
				t.Errorf("statement outside: got error %v, want %v", err, thole.ErrClosed)
			}
			_, err = tx.ExecContext(t.Context(), "create table early (id integer)")
			return err
		})
		if err := errors.Join(err, <-closed); err != nil {
			t.Errorf("got error %v, want nil: the session goes on", err)
		}
	})
}

// TestRowsOpenBeforeHooks leaves rows open where a hook would stumble over them,
// and a ctx that is done besides.
func TestRowsOpenBeforeHooks(t *testing.T) {
	t.Parallel()
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		ctx, cancel := context.WithCancel(t.Context())
		for _, end := range []func(){func() {}, cancel} {
			err := db.WithSession(ctx, func(tx *thole.Tx) error {
				tx.BeforeCommit(func(ctx context.Context) error {
					_, err := tx.ExecContext(ctx, "select 1")
					return err
				})
				_, err := tx.QueryContext(t.Context(), "select 1") //nolint:sqlclosecheck,rowserrcheck // left open
				end()
				return err
			})
			if !errors.Is(err, thole.ErrRowsOpen) || errors.Is(err, thole.ErrBusy) || errors.Is(err, context.Canceled) != (ctx.Err() != nil) {
				t.Errorf("got error %v, want ErrRowsOpen and the end of ctx, if any", err)
			}
		}
	})
}

// TestCopyOverConnection would wait for rows that nobody sends.
func TestCopyOverConnection(t *testing.T) {
	t.Parallel()
	dbtest.Config{Engines: []thole.Engine{thole.Postgres}}.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		openForErrors(t, db)
		for _, text := range []string{
			"copy parent from stdin", "COPY parent (id) FROM STDIN WITH (format csv)", "copy (select 1) to stdout",
			"select 1; /* x */ copy parent to stdout",
		} {
			_, err := db.ExecContext(t.Context(), text)
			inside := db.WithSession(t.Context(), func(tx *thole.Tx) error {
				_, err := tx.ExecContext(t.Context(), text)
				return err
			})
			if !errors.Is(err, errors.ErrUnsupported) || !errors.Is(inside, errors.ErrUnsupported) {
				t.Errorf("%s: got errors %v and %v, want ErrUnsupported", text, err, inside)
			}
			if err := db.Pgx().SendBatch(t.Context(), queued(text)).Close(); !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("%s in a batch: got error %v, want ErrUnsupported", text, err)
			}
		}
		if _, err := db.ExecContext(t.Context(), "select 'copy parent from stdin'"); err != nil {
			t.Error(err)
		}
	})
}

// TestPreparedStatementsAreShared closes statements, and leaves some to a session
// that was left open in a goroutine: the connection keeps one of each text.
func TestPreparedStatementsAreShared(t *testing.T) {
	t.Parallel()
	dbtest.Config{Engines: []thole.Engine{thole.Postgres}}.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		count := func(q thole.Querier) (n int) {
			err := q.GetContext(t.Context(), &n, "select count(*) from pg_prepared_statements where statement like '%needle%' and statement not like '%pg_prepared%'")
			if err != nil {
				t.Error(err)
			}
			return n
		}
		err := db.WithSession(t.Context(), func(tx *thole.Tx) error {
			for range 3 {
				stmt, err := tx.PrepareContext(t.Context(), "select 'needle'")
				if err := errors.Join(err, stmt.Close()); err != nil { //nolint:sqlclosecheck // is what is tested
					return err
				}
			}
			if n := count(tx); n > 1 {
				t.Errorf("prepared statements of one text: got %d, want at most the one that the connection keeps", n)
			}
			inside, leave := make(chan error), make(chan struct{})
			go func() {
				_ = tx.WithSession(tx.Context(), func(inner *thole.Tx) error {
					_, err := inner.PrepareContext(t.Context(), "select 'needle'") //nolint:sqlclosecheck // left to the session
					inside <- err
					<-leave
					return nil
				})
			}()
			defer close(leave)
			return <-inside
		})
		if !errors.Is(err, thole.ErrNested) {
			t.Errorf("got error %v, want %v", err, thole.ErrNested)
		}
		err = db.WithSession(t.Context(), func(tx *thole.Tx) error {
			if n := count(tx); n > 1 {
				t.Errorf("prepared statements of one text: got %d, want at most the one that the connection keeps", n)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// TestForgottenRowsOutsideSession closes with their ctx rows that nobody closed,
// which would keep SQLite's writer, and a connection of the pool's.
func TestForgottenRowsOutsideSession(t *testing.T) {
	t.Parallel()
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		openForErrors(t, db)
		ctx, done := context.WithTimeout(t.Context(), time.Minute)
		defer done()
		for range 20 {
			forgotten, cancel := context.WithCancel(ctx)
			_, err := db.QueryContext(forgotten, "update parent set id = id returning id") //nolint:sqlclosecheck,rowserrcheck // forgotten
			cancel()
			if err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestRowsExpireWhileRead has the race detector look on while the ctx of rows
// outside a session ends at any time.
func TestRowsExpireWhileRead(t *testing.T) {
	t.Parallel()
	const many = "with recursive n (i) as (select 1 union all select i + 1 from n where i < 5000) select i from n"
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		openForErrors(t, db)
		var readers sync.WaitGroup
		for _, query := range []string{many, "select id from parent", "update parent set id = id returning id", many} {
			readers.Go(func() {
				for i := range 100 {
					ctx, cancel := context.WithCancel(t.Context())
					time.AfterFunc(time.Duration(rand.IntN(1000))*time.Microsecond, cancel)
					rows, err := db.QueryContext(ctx, query)
					if err != nil {
						cancel()
						continue
					}
					for rows.Next() {
					}
					if err := rows.Err(); err != nil && !errors.Is(err, context.Canceled) {
						t.Errorf("got error %v, want none or that of ctx", err)
					}
					if i%2 == 0 {
						_ = rows.Close() //nolint:sqlclosecheck // the others are left to the end of ctx
					}
					cancel()
				}
			})
		}
		readers.Wait()
		if _, err := db.ExecContext(t.Context(), "update parent set id = id"); err != nil {
			t.Errorf("got error %v, want nil: everything was given back", err)
		}
	})
}

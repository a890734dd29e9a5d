package thole_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/link"
	"github.com/tholedb/thole/internal/testdb"
)

// counting is a database with one connection, on which round trips are counted.
type counting struct {
	*thole.DB
	link link.Link
}

func count(t *testing.T, url string) *counting {
	t.Helper()
	c := new(counting)
	c.DB = onPostgres(t, url, func(cfg *thole.Config) {
		single(cfg)
		c.link.Stand(cfg.Postgres)
	})
	mustRun(t, c, "create table t (id int primary key, n int not null)", "insert into t select i, 0 from generate_series(1, 10) i")
	return c
}

// wait lets what is ended in the background end, on the one connection.
func (c *counting) wait(t *testing.T) {
	t.Helper()
	mustRun(t, c, "select 1")
}

// want checks how often run waits for the server.
func (c *counting) want(t *testing.T, what string, want int, run func() error) {
	t.Helper()
	c.wait(t)
	mark := c.link.Mark()
	if err := run(); err != nil {
		t.Errorf("%s: %v", what, err)
	}
	if got := c.link.RoundTrips(mark); got != want {
		t.Errorf("%s: got %d round trips, want %d:\n%s", what, got, want, c.link.Since(mark))
	}
}

// The statements of the sessions that are counted.
const (
	updateOne = "update t set n = n + 1 where id = ? returning n"
	selectOne = "select n from t where id = ?"
)

// times runs a statement so often.
func times(n int, text string) func(*thole.Tx) error {
	return func(tx *thole.Tx) error {
		for id := range n {
			if err := tx.GetContext(tx.Context(), new(int), text, id+1); err != nil {
				return err
			}
		}
		return nil
	}
}

// TestRoundTrips counts those of sessions, on a connection that knows their
// statements.
func TestRoundTrips(t *testing.T) {
	t.Parallel()
	for name, url := range map[string]func(testing.TB) string{"direct": testdb.Postgres, "pgbouncer": testdb.PgBouncer} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := count(t, url(t))
			session := func(opts thole.SessionOptions, fn func(*thole.Tx) error) func() error {
				return func() error { return c.WithSessionOptions(t.Context(), opts, fn) }
			}
			var plain thole.SessionOptions
			c.want(t, "a statement that is not known", 3, session(plain, times(1, updateOne)))
			c.want(t, "a write", 2, session(plain, times(1, updateOne)))
			c.want(t, "three writes", 4, session(plain, times(3, updateOne)))
			c.want(t, "an empty session", 0, session(plain, func(*thole.Tx) error { return nil }))
			c.want(t, "one that fails before its first statement", 0, func() error {
				errOwn := errors.New("own")
				if err := c.WithSession(t.Context(), func(*thole.Tx) error { return errOwn }); !errors.Is(err, errOwn) {
					return err
				}
				return nil
			})
			full := thole.SessionOptions{
				Isolation: sql.LevelSerializable, LockTimeout: time.Second, StatementTimeout: time.Minute,
				Settings: map[string]string{"app.tenant": "one"}, Timeout: time.Hour,
			}
			c.want(t, "options", 4, session(full, times(3, updateOne)))
			c.want(t, "by pgx", 2, session(plain, func(tx *thole.Tx) error {
				return tx.Pgx().QueryRow(tx.Context(), "update t set n = n + 1 where id = $1 returning n", 1).Scan(new(int))
			}))
			insert := func(tx *thole.Tx) error {
				batch := new(pgx.Batch)
				batch.Queue("update t set n = n + 1 where id = $1", 1)
				return errors.Join(times(1, updateOne)(tx), tx.Pgx().SendBatch(tx.Context(), batch).Close(), times(1, updateOne)(tx))
			}
			c.want(t, "a batch that pgx does not know", 5, session(plain, insert))
			c.want(t, "a batch", 4, session(plain, insert))
			c.want(t, "the connection", 2, session(plain, func(tx *thole.Tx) error {
				err := times(1, updateOne)(tx)
				if tx.Pgx().Conn() == nil {
					t.Error("there is none")
				}
				return err
			}))
			c.want(t, "a text without arguments", 2, session(plain, func(tx *thole.Tx) error {
				_, err := tx.ExecContext(tx.Context(), "update t set n = 0 where id = 1")
				return err
			}))
			c.want(t, "an empty nested session", 2, session(plain, func(tx *thole.Tx) error {
				if err := tx.WithSession(tx.Context(), func(*thole.Tx) error { return nil }); err != nil {
					return err
				}
				return times(1, updateOne)(tx)
			}))
			c.want(t, "nested sessions", 4, session(plain, func(tx *thole.Tx) error {
				for range 3 {
					if err := tx.WithSession(tx.Context(), times(1, updateOne)); err != nil {
						return err
					}
				}
				return nil
			}))
			c.want(t, "outside a session", 1, func() error { return c.GetContext(t.Context(), new(int), updateOne, 1) })
		})
	}
}

// TestReadOnlyAwaitsNoCommit holds back the answer to COMMIT.
func TestReadOnlyAwaitsNoCommit(t *testing.T) {
	t.Parallel()
	c := count(t, testdb.Postgres(t))
	readOnly := thole.SessionOptions{ReadOnly: true}
	session := func() error { return c.WithSessionOptions(t.Context(), readOnly, times(3, selectOne)) }
	if err := session(); err != nil {
		t.Fatal(err)
	}
	c.wait(t)
	answered := make(chan struct{})
	c.link.Judge(func(m link.Message) link.Fate {
		if m.Sent && m.Type == 'E' && m.Text == "commit" {
			<-answered
		}
		return link.Fate{}
	})
	mark := c.link.Mark()
	if err := session(); err != nil {
		t.Error(err)
	}
	close(answered)
	c.wait(t)
	// Three reads; a COMMIT that nobody waited for; and the statement of wait.
	if got := c.link.RoundTrips(mark); got != 5 {
		t.Errorf("got %d round trips, want 5:\n%s", got, c.link.Since(mark))
	}
}

// TestCloseAwaitsTheEnd closes the database while nobody waits for a COMMIT.
func TestCloseAwaitsTheEnd(t *testing.T) {
	t.Parallel()
	c := count(t, testdb.Postgres(t))
	answered := make(chan struct{})
	c.link.Judge(func(m link.Message) link.Fate {
		if m.Sent && m.Type == 'E' && m.Text == "commit" {
			<-answered
		}
		return link.Fate{}
	})
	if err := c.WithSessionOptions(t.Context(), thole.SessionOptions{ReadOnly: true}, times(1, selectOne)); err != nil {
		t.Error(err)
	}
	time.AfterFunc(100*time.Millisecond, func() { close(answered) })
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	select {
	case <-answered:
	default:
		t.Error("Close has not waited for the COMMIT that was under way")
	}
}

// TestRoundTripsAfterTrouble counts again when something has gone wrong, and when
// nothing has happened for a while.
func TestRoundTripsAfterTrouble(t *testing.T) {
	t.Parallel()
	c := count(t, testdb.Postgres(t))
	session := func() error { return c.WithSession(t.Context(), times(1, updateOne)) }
	if err := session(); err != nil {
		t.Fatal(err)
	}
	made := c.Pool().Stat().NewConnsCount()
	for what, trouble := range map[string]func(){
		"an SQL error": func() {
			err := c.WithSession(t.Context(), func(tx *thole.Tx) error { return tx.GetContext(tx.Context(), new(int), updateOne, "no number") })
			if err == nil {
				t.Error("an argument that is no number: got no error")
			}
			if err := c.WithSession(t.Context(), times(1, "select 1 / (? - 1)")); err == nil {
				t.Error("a division by zero: got no error")
			}
		},
		"a cancelled session": func() {
			ctx, cancel := context.WithCancel(t.Context())
			err := c.WithSession(ctx, func(tx *thole.Tx) error {
				time.AfterFunc(10*time.Millisecond, cancel)
				_, err := tx.ExecContext(ctx, "select pg_sleep(60)")
				return err
			})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got error %v, want %v", err, context.Canceled)
			}
		},
		"two idle seconds": func() { time.Sleep(2 * time.Second) },
	} {
		trouble()
		if what != "two idle seconds" {
			c.wait(t)
		}
		mark := c.link.Mark()
		if err := session(); err != nil {
			t.Errorf("after %s: %v", what, err)
		}
		if got := c.link.RoundTrips(mark); got != 2 {
			t.Errorf("after %s: got %d round trips, want 2:\n%s", what, got, c.link.Since(mark))
		}
	}
	if now := c.Pool().Stat().NewConnsCount(); now != made {
		t.Errorf("connections made: got %d more", now-made)
	}
}

// TestCancelledSessionsKeepConnections cancels a thousand.
func TestCancelledSessionsKeepConnections(t *testing.T) {
	t.Parallel()
	db := onPostgres(t, testdb.Postgres(t), single)
	mustRun(t, db, "create table t (id int primary key, n int not null)", "insert into t values (1, 0)")
	made := db.Pool().Stat().NewConnsCount()
	for i := range 1000 {
		ctx, cancel := context.WithCancel(t.Context())
		err := db.WithSession(ctx, func(tx *thole.Tx) error {
			if err := times(1, updateOne)(tx); err != nil {
				return err
			}
			if i%100 != 0 {
				cancel()
				return ctx.Err()
			}
			time.AfterFunc(time.Millisecond, cancel)
			_, err := tx.ExecContext(ctx, "select pg_sleep(60)")
			return err
		})
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("session %d: got error %v, want %v", i, err, context.Canceled)
		}
	}
	if n, err := thole.One[int](t.Context(), db, "select n from t"); err != nil || n != 0 {
		t.Errorf("got %d, error %v, want 0", n, err)
	}
	if now := db.Pool().Stat().NewConnsCount(); now != made {
		t.Errorf("connections made: got %d more", now-made)
	}
}

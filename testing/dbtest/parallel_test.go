package dbtest_test

import (
	"cmp"
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/pgserver"
	"github.com/tholedb/thole/testing/dbtest"
)

// manyTests is how many tests run side by side, as many at once as -parallel says.
const manyTests = 1000

// mostServerConnections is how many connections a test binary has at most.
const mostServerConnections = 40

// TestThousand runs tests that each see only what they wrote.
func TestThousand(t *testing.T) {
	each(t, func(t *testing.T, config dbtest.Config) {
		var most func() int
		if config.Engines[0] == thole.Postgres {
			config.Sandbox(t) // skips without a server
			most = countConnections(t)
		}
		began := time.Now()
		t.Run("tests", func(t *testing.T) {
			for i := range manyTests {
				t.Run(fmt.Sprint(i), func(t *testing.T) {
					t.Parallel()
					sees(t, config.Sandbox(t), fmt.Sprint("test ", i))
				})
			}
		})
		t.Logf("%d tests took %s", manyTests, time.Since(began).Round(time.Millisecond))
		if most != nil {
			if got := most(); got > mostServerConnections || got < 2 {
				t.Errorf("got %d connections to the server, want %d at most", got, mostServerConnections)
			} else {
				t.Logf("%d connections at most", got)
			}
		}
	})
}

// sees checks that a test sees what it wrote and nothing else.
func sees(t *testing.T, db *thole.DB, name string) {
	t.Helper()
	for i, step := range []string{" session", " nested"} {
		err := inSession(t, db, func(ctx context.Context, tx *thole.Tx) error {
			if i == 0 {
				return add(ctx, tx, name+step)
			}
			return tx.WithSession(ctx, func(tx *thole.Tx) error { return add(ctx, tx, name+step) })
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := add(t.Context(), db, name+" alone"); err != nil {
		t.Fatal(err)
	}
	wantNames(t, db, name+" session", name+" nested", name+" alone")
}

// countConnections counts the connections of clients to the server, this one
// excepted, until the function that it returns tells the most.
func countConnections(t *testing.T) func() int {
	t.Helper()
	url, err := pgserver.URL(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	most := make(chan int)
	go func() {
		highest := 0
		for !stop.Load() {
			var n int
			err := conn.QueryRow(context.Background(),
				"select count(*) - 1 from pg_stat_activity where backend_type = 'client backend'").Scan(&n)
			if err != nil {
				t.Error(err)
				break
			}
			highest = max(highest, n)
			time.Sleep(time.Millisecond)
		}
		_ = conn.Close(context.Background())
		most <- highest
	}()
	return func() int { stop.Store(true); return <-most }
}

// B26: tests that have a sandbox each, and wait for parallel subtests with another
// one, don't wait for each other for ever.
func TestB26Subtests(t *testing.T) {
	t.Parallel()
	config := onPostgres()
	for i := range mostServerConnections {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			sees(t, config.Sandbox(t), fmt.Sprint("parent ", i))
			t.Run("sub", func(t *testing.T) {
				t.Parallel()
				sees(t, config.Sandbox(t), fmt.Sprint("sub ", i))
			})
		})
	}
}

// A sandbox on SQLite can be used in a bubble of testing/synctest.
func TestBubble(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		config := stock
		config.Engines = []thole.Engine{thole.SQLite}
		db := config.Sandbox(t)
		err := inSession(t, db, func(ctx context.Context, tx *thole.Tx) error {
			time.Sleep(time.Hour)
			return add(ctx, tx, "an hour later")
		})
		if err != nil || time.Since(began) != time.Hour {
			t.Errorf("got %v after %s, want nil after an hour", err, time.Since(began))
		}
		wantNames(t, db, "an hour later")
	})
}

// Configs that each test makes for itself leave no more databases than some.
func TestHomesAreDropped(t *testing.T) {
	t.Parallel()
	const configs = 60
	var first string
	for i := range configs {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			config := onPostgres()
			config.Fixtures = func(ctx context.Context, db *thole.DB) error { return add(ctx, db, fmt.Sprint(i)) }
			name, err := thole.One[string](t.Context(), config.Sandbox(t), "select current_database()")
			if err != nil {
				t.Fatal(err)
			}
			first = cmp.Or(first, name)
		})
	}
	for until := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		left, err := thole.One[int](t.Context(), onPostgres().Sandbox(t), "select count(*) from pg_database where datname = ?", first)
		if err == nil && left == 0 {
			return
		}
		if err != nil || time.Now().After(until) {
			t.Fatalf("the database of the first of %d Configs is left: %v", configs, err)
		}
	}
}

package interop

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverdatabasesql"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/testdb"
	"github.com/tholedb/thole/testing/dbtest"
)

type greeting struct {
	Name string `json:"name" river:"unique"`
}

func (greeting) Kind() string { return "greeting" }

// greeter works on greetings, and completes each in a session of its own.
type greeter struct {
	river.WorkerDefaults[greeting]
	greeted  chan string
	complete func(ctx context.Context, job *river.Job[greeting]) error
}

func (g *greeter) Work(ctx context.Context, job *river.Job[greeting]) error {
	err := g.complete(ctx, job)
	g.greeted <- job.Args.Name
	return err
}

// TestRiver runs River over the views for database/sql.
func TestRiver(t *testing.T) {
	t.Parallel()
	view := func(tx *thole.Tx) *sql.Tx { return tx.Sqlx().Tx }
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		if db.Engine() == thole.SQLite {
			useRiver(t, db, riversqlite.New(db.Sqlx().DB), view, river.Config{})
		} else {
			useRiver(t, db, riverdatabasesql.New(db.Sqlx().DB), view, river.Config{})
		}
	})
}

// TestRiverForPgx runs River on the pool, and inserts over the view for pgx.
// Behind PgBouncer there is no LISTEN, and the client asks for jobs.
func TestRiverForPgx(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		url      func(testing.TB) string
		pollOnly bool
	}{"direct": {testdb.Postgres, false}, "pgbouncer": {testdb.PgBouncer, true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, err := thole.Open(t.Context(), c.url(t))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = db.Close() }()
			useRiver(t, db, riverpgxv5.New(db.Pool()), (*thole.Tx).Pgx, river.Config{PollOnly: c.pollOnly})
		})
	}
}

// useRiver inserts jobs in sessions: one that is rolled back leaves none. The
// client works on the others, over the same database.
func useRiver[D riverdriver.Driver[T], T any](t *testing.T, db *thole.DB, driver D, view func(*thole.Tx) T, config river.Config) {
	t.Helper()
	ctx := t.Context()
	config.Logger = slog.New(slog.DiscardHandler)
	migrator, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: config.Logger})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		t.Fatalf("migrate: %v", err)
	}
	work := &greeter{greeted: make(chan string, 10), complete: func(ctx context.Context, job *river.Job[greeting]) error {
		return db.WithSession(ctx, func(tx *thole.Tx) error {
			_, err := river.JobCompleteTx[D](ctx, view(tx), job)
			return err
		})
	}}
	config.Workers = river.NewWorkers()
	river.AddWorker(config.Workers, work)
	config.Queues = map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 1}}
	config.FetchPollInterval = 100 * time.Millisecond
	client, err := river.NewClient(driver, &config)
	if err != nil {
		t.Fatal(err)
	}
	insert := func(name string, end error) error {
		return db.WithSession(ctx, func(tx *thole.Tx) error {
			_, err := client.InsertTx(ctx, view(tx), greeting{name}, nil)
			_, errMany := client.InsertManyFastTx(ctx, view(tx), []river.InsertManyParams{{Args: greeting{name + " again"}}})
			return errors.Join(err, errMany, end)
		})
	}
	if err := insert("undone", errUndo); !errors.Is(err, errUndo) {
		t.Errorf("got error %v, want fn's own", err)
	}
	if err := insert("done", nil); err != nil {
		t.Errorf("got error %v, want nil", err)
	}
	want := []string{"done", "done again"}
	jobs, err := thole.All[string](ctx, db, "select args ->> 'name' from river_job order by id")
	if err != nil || !slices.Equal(jobs, want) {
		t.Fatalf("jobs: got %q and error %v, want the committed ones", jobs, err)
	}
	if err := client.Start(ctx); err != nil {
		t.Fatalf("start: %v", err)
	}
	for range want {
		select {
		case name := <-work.greeted:
			if !slices.Contains(want, name) {
				t.Errorf("worked on %q, want the committed jobs", name)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("no job was worked on")
		}
	}
	if err := client.Stop(context.WithoutCancel(ctx)); err != nil {
		t.Errorf("stop: %v", err)
	}
	if n, err := thole.One[int](ctx, db, "select count(*) from river_job where state = 'completed'"); n != 2 || err != nil {
		t.Errorf("got %d jobs completed and error %v, want 2", n, err)
	}
}

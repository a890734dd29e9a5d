package interop

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverdatabasesql"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/testing/dbtest"
)

type greeting struct {
	Name string `json:"name" river:"unique"`
}

func (greeting) Kind() string { return "greeting" }

type greeter struct {
	river.WorkerDefaults[greeting]
	greeted chan string
}

func (g *greeter) Work(_ context.Context, job *river.Job[greeting]) error {
	g.greeted <- job.Args.Name
	return nil
}

func riverDriver(db *thole.DB) riverdriver.Driver[*sql.Tx] {
	if db.Engine() == thole.SQLite {
		return riversqlite.New(db.Sqlx().DB)
	}
	return riverdatabasesql.New(db.Sqlx().DB)
}

// TestRiver inserts jobs in sessions: one that is rolled back leaves none. The
// client works on them over thole's view too.
func TestRiver(t *testing.T) {
	t.Parallel()
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		ctx := t.Context()
		driver := riverDriver(db)
		quiet := slog.New(slog.DiscardHandler)
		migrator, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
			t.Fatalf("migrate: %v", err)
		}
		work := &greeter{greeted: make(chan string, 10)}
		workers := river.NewWorkers()
		river.AddWorker(workers, work)
		client, err := river.NewClient(driver, &river.Config{
			Logger: quiet, Workers: workers, Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 2}},
			FetchPollInterval: 100 * time.Millisecond,
		})
		if err != nil {
			t.Fatal(err)
		}
		insert := func(name string, end error) error {
			return db.WithSession(ctx, func(tx *thole.Tx) error {
				_, err := client.InsertTx(ctx, tx.Sqlx().Tx, greeting{name}, nil)
				return errors.Join(err, end)
			})
		}
		if err := insert("undone", errUndo); !errors.Is(err, errUndo) {
			t.Errorf("got error %v, want fn's own", err)
		}
		if err := insert("done", nil); err != nil {
			t.Errorf("got error %v, want nil", err)
		}
		jobs, err := thole.All[string](ctx, db, "select args ->> 'name' from river_job")
		if err != nil || len(jobs) != 1 || jobs[0] != "done" {
			t.Fatalf("jobs: got %q and error %v, want the committed one", jobs, err)
		}
		if err := client.Start(ctx); err != nil {
			t.Fatalf("start: %v", err)
		}
		select {
		case name := <-work.greeted:
			if name != "done" {
				t.Errorf("worked on %q, want the committed job", name)
			}
		case <-time.After(30 * time.Second):
			t.Error("no job was worked on")
		}
		if err := client.Stop(context.WithoutCancel(ctx)); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
}

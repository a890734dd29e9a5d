// Command river inserts a job of River in a session of thole: the order and the
// job that ships it are committed together, or neither is. On PostgreSQL River
// runs on pgx, by riverpgxv5.
//
//	go run .
//	DATABASE_URL=postgres://user:password@localhost/db go run .
//
// It is a module of its own, so that River is no dependency of thole.
package main

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/tholedb/thole"
)

func main() {
	url := cmp.Or(os.Getenv("DATABASE_URL"), "sqlite://")
	if err := run(context.Background(), os.Stdout, url); err != nil {
		log.Fatal(err)
	}
}

// ship is a job.
type ship struct {
	Order int64 `json:"order"`
}

// Kind implements [river.JobArgs].
func (ship) Kind() string { return "ship" }

// shipper works on the jobs.
type shipper struct {
	river.WorkerDefaults[ship]
	shipped chan int64
}

// Work implements [river.Worker].
func (s *shipper) Work(_ context.Context, job *river.Job[ship]) error {
	s.shipped <- job.Args.Order
	return nil
}

var errUnpaid = errors.New("it is not paid")

func run(ctx context.Context, out io.Writer, databaseURL string) error {
	db, err := thole.Open(ctx, databaseURL)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	if _, err := db.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS orders (id integer PRIMARY KEY, paid boolean NOT NULL)"); err != nil {
		return err
	}
	if db.Engine() == thole.Postgres {
		return sell(ctx, out, db, riverpgxv5.New(db.Pool()), (*thole.Tx).Pgx)
	}
	return sell(ctx, out, db, riversqlite.New(db.Sqlx().DB), func(tx *thole.Tx) *sql.Tx { return tx.Sqlx().Tx })
}

// sell sells and ships an order. A program for one engine has no need of view: it
// says client.InsertTx(ctx, tx.Pgx(), …).
func sell[T any](ctx context.Context, out io.Writer, db *thole.DB, driver riverdriver.Driver[T], view func(*thole.Tx) T) error {
	worker := &shipper{shipped: make(chan int64)}
	client, err := newClient(ctx, driver, worker)
	if err != nil {
		return err
	}

	order := func(id int64, paid bool) error {
		return db.WithSession(ctx, func(tx *thole.Tx) error {
			if _, err := tx.ExecContext(ctx, "INSERT INTO orders (id, paid) VALUES (?, ?)", id, paid); err != nil {
				return err
			}
			if _, err := client.InsertTx(ctx, view(tx), ship{id}, nil); err != nil {
				return err
			}
			if !paid {
				return errUnpaid // no order, and no job
			}
			return nil
		})
	}
	fmt.Fprintln(out, "order 1:", order(1, false))
	fmt.Fprintln(out, "order 2:", order(2, true))

	if err := client.Start(ctx); err != nil {
		return err
	}
	fmt.Fprintln(out, "shipped order", <-worker.shipped)
	return client.Stop(ctx)
}

// newClient makes River's tables and a client.
func newClient[T any](ctx context.Context, driver riverdriver.Driver[T], worker *shipper) (*river.Client[T], error) {
	quiet := slog.New(slog.DiscardHandler)
	migrator, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: quiet})
	if err != nil {
		return nil, err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return nil, err
	}
	workers := river.NewWorkers()
	river.AddWorker(workers, worker)
	return river.NewClient(driver, &river.Config{
		Logger:            quiet,
		Workers:           workers,
		Queues:            map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 1}},
		FetchPollInterval: 100 * time.Millisecond,
	})
}

package main

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/pgserver"
)

// course is where a race takes place.
type course struct {
	contenders []contender // the first is the one that the others are compared with
	reset      func(ctx context.Context) error
	close      func()
}

// contender does the work.
type contender struct {
	name string
	run  func(ctx context.Context) error
}

// insertAllRace is a race of the contenders that open brings.
func insertAllRace(name string, open func(ctx context.Context, size int) (*course, error)) race {
	return race{name, func(o options) (start, error) {
		return func(ctx context.Context, out io.Writer) error {
			c, err := open(ctx, o.rows)
			if err != nil {
				return err
			}
			defer c.close()
			return c.race(ctx, out, name, o.rounds)
		}, nil
	}}
}

// race runs the contenders and prints how they compare.
func (c *course) race(ctx context.Context, out io.Writer, name string, rounds int) error {
	took := make([][]time.Duration, len(c.contenders))
	for round := range rounds + 1 {
		for i := range c.contenders {
			at := (i + round) % len(c.contenders) // nobody is always first
			if err := c.reset(ctx); err != nil {
				return err
			}
			start := time.Now()
			if err := c.contenders[at].run(ctx); err != nil {
				return fmt.Errorf("%s: %w", c.contenders[at].name, err)
			}
			if round > 0 { // the first is to get warm
				took[at] = append(took[at], time.Since(start))
			}
		}
	}
	fmt.Fprintf(out, "%s: %d rounds\n", name, rounds)
	for i, other := range c.contenders {
		ratios := make([]float64, rounds)
		for round := range rounds {
			ratios[round] = float64(took[i][round]) / float64(took[0][round])
		}
		slices.Sort(ratios)
		slices.Sort(took[i])
		fmt.Fprintf(out, "  %-28s median %8s   ratio min %.2f median %.2f max %.2f\n", other.name,
			took[i][rounds/2].Round(time.Millisecond), ratios[0], ratios[rounds/2], ratios[rounds-1])
	}
	return nil
}

// reading is a row of the usual kind: a number, a text, a float, a key.
type reading struct {
	ID     int64 `schema:"primary key" bun:",pk,autoincrement"`
	Sensor string
	Value  float64
	Note   *string
}

func readings(n int) []reading {
	rows := make([]reading, n)
	note := "a note of some length, with a \\ in it"
	for i := range rows {
		rows[i] = reading{ID: int64(i), Sensor: fmt.Sprintf("sensor %d", i%100), Value: float64(i) / 3}
		if i%2 == 0 {
			rows[i].Note = &note
		}
	}
	return rows
}

const (
	table    = "create table if not exists readings (id bigint primary key, sensor text not null, value double precision not null, note text)"
	inserted = "insert into readings (id, sensor, value, note) values "
)

// prepared inserts by a prepared statement in a transaction, row by row.
func prepared(db *sql.DB, marks string, rows []reading) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback() }()
		stmt, err := tx.PrepareContext(ctx, inserted+marks)
		if err != nil {
			return err
		}
		defer func() { _ = stmt.Close() }()
		for _, r := range rows {
			if _, err := stmt.ExecContext(ctx, r.ID, r.Sensor, r.Value, r.Note); err != nil {
				return err
			}
		}
		return tx.Commit()
	}
}

func insertAll(db *thole.DB, rows []reading) contender {
	return contender{"thole.InsertAll", func(ctx context.Context) error { return thole.InsertAll(ctx, db, rows) }}
}

func insertAllSQLite(ctx context.Context, size int) (*course, error) {
	dir, err := os.MkdirTemp("", "thole-bench")
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "bench.db")
	db, err := thole.Open(ctx, "sqlite:///"+url.PathEscape(path))
	if err != nil {
		return nil, err
	}
	if _, err := db.ExecContext(ctx, table); err != nil {
		return nil, err
	}
	stock, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)&_pragma=busy_timeout(10000)&_pragma=synchronous(FULL)&_txlock=immediate")
	if err != nil {
		return nil, err
	}
	rows := readings(size)
	return &course{
		contenders: []contender{insertAll(db, rows), {"a prepared loop", prepared(stock, "(?, ?, ?, ?)", rows)}},
		reset: func(ctx context.Context) error {
			_, err := db.ExecContext(ctx, "delete from readings")
			return err
		},
		close: func() {
			_ = stock.Close()
			_ = db.Close()
			_ = os.RemoveAll(dir)
		},
	}, nil
}

func insertAllPostgres(ctx context.Context, size int) (*course, error) {
	server, err := pgserver.Find(ctx)
	if err != nil {
		return nil, err
	}
	db, err := thole.Open(ctx, server.URL)
	if err != nil {
		return nil, err
	}
	if _, err := db.ExecContext(ctx, table); err != nil {
		return nil, err
	}
	stock, err := sql.Open("pgx", server.URL)
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.New(ctx, server.URL)
	if err != nil {
		return nil, err
	}
	rows := readings(size)
	return &course{
		contenders: []contender{
			insertAll(db, rows),
			{"a prepared loop", prepared(stock, "($1, $2, $3, $4)", rows)},
			{"pgx's CopyFrom by hand", func(ctx context.Context) error { return copyFrom(ctx, pool, rows) }},
		},
		reset: func(ctx context.Context) error {
			_, err := db.ExecContext(ctx, "truncate readings")
			return err
		},
		close: func() {
			_, _ = db.ExecContext(context.WithoutCancel(ctx), "drop table readings")
			pool.Close()
			_ = stock.Close()
			_ = db.Close()
		},
	}, nil
}

func copyFrom(ctx context.Context, pool *pgxpool.Pool, rows []reading) error {
	_, err := pool.CopyFrom(ctx, pgx.Identifier{"readings"}, []string{"id", "sensor", "value", "note"},
		pgx.CopyFromSlice(len(rows), func(i int) ([]any, error) {
			return []any{rows[i].ID, rows[i].Sensor, rows[i].Value, rows[i].Note}, nil
		}))
	return err
}

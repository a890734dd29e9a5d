package main

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

const (
	bulk = 10_000               // rows of a bulk insert
	hold = 5 * time.Millisecond // how long a slow session stays open
)

// desk hands out work on a store, and keeps the books of what succeeded.
type desk struct {
	store       store
	inserted    atomic.Int64
	incremented atomic.Int64
	bulk        []reading
}

func (d *desk) insert(ctx context.Context) error     { return d.insertFor(ctx, 0) }
func (d *desk) insertSlow(ctx context.Context) error { return d.insertFor(ctx, hold) }

func (d *desk) insertFor(ctx context.Context, hold time.Duration) error {
	err := d.store.insert(ctx, 1, hold)
	if err == nil {
		d.inserted.Add(1)
	}
	return err
}

func (d *desk) increment(ctx context.Context) error {
	err := d.store.increment(ctx, someID())
	if err == nil {
		d.incremented.Add(1)
	}
	return err
}

func (d *desk) read(ctx context.Context) error {
	id := someID()
	value, err := d.store.read(ctx, id)
	if err == nil && value != float64(id) {
		err = fmt.Errorf("row %d was read as %g", id, value)
	}
	return err
}

// insertAll is for one goroutine.
func (d *desk) insertAll(ctx context.Context) error {
	next := seeded + d.inserted.Load() + 1
	for i := range d.bulk {
		d.bulk[i].ID = next + int64(i)
	}
	err := d.store.insertAll(ctx, d.bulk)
	if err == nil {
		d.inserted.Add(int64(len(d.bulk)))
	}
	return err
}

func someID() int64 { return 1 + rand.Int64N(seeded) }

// check compares the books with the file: what succeeded must be in it, and
// nothing else.
func (d *desk) check(ctx context.Context, db *sql.DB) error {
	var rows int64
	var sum float64
	err := db.QueryRowContext(ctx, "select count(*), total(value) filter (where id <= ?) from readings", seeded).Scan(&rows, &sum)
	if err != nil {
		return err
	}
	if want := seeded + d.inserted.Load(); rows != want {
		return fmt.Errorf("%d rows in the file, where %d were there or acknowledged", rows, want)
	}
	if got, want := int64(sum)-seeded*(seeded+1)/2, d.incremented.Load(); got != want {
		return fmt.Errorf("%d increments in the file, where %d were acknowledged", got, want)
	}
	return nil
}

// workload is what goroutines are made to do.
type workload struct {
	name  string
	about string
	crews func(d *desk, goroutines int) []crew

	least int  // goroutines that it takes
	alone bool // it takes one, whatever is asked for
	reads bool // it doesn't commit
}

func (w workload) String() string { return w.name }

var workloads = []workload{
	{name: "insert", about: "a session with one INSERT", crews: func(d *desk, n int) []crew {
		return []crew{{"", n, d.insert}}
	}},
	{name: "increment", about: "a session that reads one of 1,000 rows and writes it back plus 1", crews: func(d *desk, n int) []crew {
		return []crew{{"", n, d.increment}}
	}},
	{name: "read", about: "a SELECT by primary key, outside a session", reads: true, crews: func(d *desk, n int) []crew {
		return []crew{{"", n, d.read}}
	}},
	{name: "mixed", about: "one half inserts, the other reads", least: 2, crews: func(d *desk, n int) []crew {
		return []crew{{"inserts", n / 2, d.insert}, {"reads", n - n/2, d.read}}
	}},
	{name: "slow", about: "one goroutine's sessions take 5 ms after their INSERT, the others' don't", least: 2, crews: func(d *desk, n int) []crew {
		return []crew{{"fast", n - 1, d.insert}, {"slow", 1, d.insertSlow}}
	}},
	{name: "bulk", about: "a session that inserts 10,000 rows", alone: true, crews: func(d *desk, n int) []crew {
		d.bulk = readings(bulk)
		return []crew{{"", n, d.insertAll}}
	}},
}

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// pgDesk hands out work on a store, and keeps the books of what succeeded.
type pgDesk struct {
	store    pgStore
	added    atomic.Int64
	inserted atomic.Int64
}

func (d *pgDesk) update(ctx context.Context) error { return d.add(ctx, d.store.update) }
func (d *pgDesk) single(ctx context.Context) error { return d.add(ctx, d.store.single) }

func (d *pgDesk) add(ctx context.Context, one func(context.Context, int64) (int64, error)) error {
	id := someCounter(counters)
	value, err := one(ctx, id)
	if err == nil {
		d.added.Add(1)
		err = mustBelong(id, value)
	}
	return err
}

func (d *pgDesk) three(ctx context.Context) error {
	err := d.store.three(ctx, someCounter(counters))
	if err == nil {
		d.added.Add(1)
		d.inserted.Add(1)
	}
	return err
}

func (d *pgDesk) read(ctx context.Context) error {
	id := someCounter(counters)
	value, err := d.store.read(ctx, id)
	if err == nil {
		err = mustBelong(id, value)
	}
	return err
}

func (d *pgDesk) increment(ctx context.Context) error {
	err := d.store.(pgRetrier).increment(ctx, someCounter(hotCounters))
	if err == nil {
		d.added.Add(1)
	}
	return err
}

func someCounter(of int64) int64 { return 1 + rand.Int64N(of) }

// mustBelong checks that a value is the counter's: each counts from a number of
// its own.
func mustBelong(id, value int64) error {
	if value/apart != id {
		return fmt.Errorf("counter %d was read as %d", id, value)
	}
	return nil
}

// check compares the books with those of the database: what succeeded must be
// in it, and nothing else.
func (d *pgDesk) check(before, after entries) error {
	if got, want := after.sum-before.sum, d.added.Load(); got != want {
		return fmt.Errorf("%d additions in the database, where %d were acknowledged", got, want)
	}
	if got, want := after.events-before.events, d.inserted.Load(); got != want {
		return fmt.Errorf("%d events in the database, where %d were acknowledged", got, want)
	}
	return nil
}

// pgWorkload is what goroutines are made to do.
type pgWorkload struct {
	name  string
	about string
	task  func(d *pgDesk, ctx context.Context) error
	by    []string // who takes part
	ways  []string // to the server

	goroutines int           // that it takes, whatever is asked for
	least      time.Duration // of a round, in which what it shows can be seen
}

func (w pgWorkload) String() string { return w.name }

// among are those who take part.
func (w pgWorkload) among(peers []pgPeer) []pgPeer {
	return slices.DeleteFunc(slices.Clone(peers), func(p pgPeer) bool { return !slices.Contains(w.by, p.name) })
}

var (
	everyone   = strings.Split("pgx,thole,tholepgx,beginfunc,batch,sql,sqlx,libpq,gorm,bun,avito,cockroach", ",")
	nearAndFar = []string{loopback, far}
)

var pgWorkloads = []pgWorkload{
	{
		name: "w1", about: "a session with one UPDATE … RETURNING",
		task: (*pgDesk).update, by: everyone, ways: nearAndFar,
	},
	{
		name: "w3", about: "a session with SELECT, UPDATE, INSERT",
		task: (*pgDesk).three, by: everyone, ways: nearAndFar,
	},
	{
		name: "r1", about: "a read-only session with a SELECT by primary key",
		task: (*pgDesk).read, by: everyone, ways: nearAndFar,
	},
	{
		name: "auto1", about: "the UPDATE … RETURNING outside a session",
		task: (*pgDesk).single, by: strings.Split("pgx,thole,tholepgx,sql,sqlx,libpq,gorm,bun", ","), ways: nearAndFar,
	},
	{
		name: "hot", about: "serializable sessions that read one of 4 counters and write it back plus 1; pgx tries again at once",
		task: (*pgDesk).increment, by: []string{"pgx", "thole"}, ways: []string{loopback}, goroutines: 32, least: 2 * time.Second,
	},
	{
		name: "pooler", about: "w1 behind PgBouncer in transaction mode",
		task: (*pgDesk).update, by: []string{"exec", "describe", "thole", "tholepgx"}, ways: []string{pooler}, goroutines: 16,
	},
}

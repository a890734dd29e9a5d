package main

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

const (
	seeded    = 1000       // rows that are there from the start, whose value is their id
	sensor    = "sensor 1" // that all sessions insert for
	insertOne = "insert into readings (sensor, value) values (?, ?)"
	readOne   = "select value from readings where id = ?"
	updateOne = "update readings set value = ? where id = ?"
	schema    = "create table readings (id integer primary key, sensor text not null, value double precision not null, note text)"
	seed      = `insert into readings (id, sensor, value)
		with recursive n (i) as (select 1 union all select i + 1 from n where i < ?) select i, 'sensor ' || i, i from n`
)

// synchronous is when SQLite takes a commit to the disk.
type synchronous string

func (s synchronous) String() string { return string(s) }

// peer is one way to use SQLite.
type peer struct {
	name string
	how  string
	open func(ctx context.Context, path string, synchronous synchronous) (store, error)
}

func (p peer) String() string { return p.name }

// store is a database file in the hands of a peer. What writes is a session: a
// transaction that holds the lock for writing from its beginning.
type store interface {
	// insert is a session with one INSERT, which stays open for the time of hold.
	insert(ctx context.Context, value float64, hold time.Duration) error
	// increment is a session that reads the value of a row and writes it back plus 1.
	increment(ctx context.Context, id int64) error
	// read is the value of a row, outside a session.
	read(ctx context.Context, id int64) (float64, error)
	// insertAll is a session that inserts all rows.
	insertAll(ctx context.Context, rows []reading) error
	// ask is the value of a pragma where sessions run.
	ask(ctx context.Context, pragma string) (string, error)
	Close() error
}

// heat is a workload under the same terms for all peers.
type heat struct {
	workload
	goroutines  int
	synchronous synchronous
	duration    time.Duration
	dir         string
}

// heats are what the options ask for, without what is impossible or the same.
func heats(o options, dir string) []heat {
	var all []heat
	for _, w := range o.workloads {
		goroutines, syncs := o.goroutines, o.synchronous
		if w.alone {
			goroutines = []int{1}
		}
		if w.reads {
			syncs = syncs[:1]
		}
		for _, s := range syncs {
			for _, n := range goroutines {
				if n >= w.least {
					all = append(all, heat{w, n, s, o.duration, dir})
				}
			}
		}
	}
	return all
}

// raceSessions runs each heat, round for round, and prints how the peers compare.
func raceSessions(ctx context.Context, out io.Writer, o options) (err error) {
	dir, err := os.MkdirTemp(o.dir, "thole-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := introduce(out, o, dir); err != nil {
		return err
	}
	for _, h := range heats(o, dir) {
		rounds, err := h.race(ctx, o.peers, o.rounds)
		if err != nil {
			return fmt.Errorf("%s: %w", h, err)
		}
		if err := report(out, h, o.peers, rounds); err != nil {
			return err
		}
	}
	return nil
}

// race returns the results of each round, peer and crew.
func (h heat) race(ctx context.Context, peers []peer, rounds int) ([][][]result, error) {
	all := make([][][]result, rounds)
	for round := range rounds {
		all[round] = make([][]result, len(peers))
		for i := range peers {
			at := (i + round) % len(peers) // nobody is always first
			got, err := h.run(ctx, peers[at])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", peers[at].name, err)
			}
			all[round][at] = got
		}
	}
	return all, nil
}

// run is one peer's turn on a fresh file.
func (h heat) run(ctx context.Context, p peer) (_ []result, err error) {
	dir, err := os.MkdirTemp(h.dir, p.name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	path := filepath.Join(dir, "bench.db")
	file, err := create(ctx, path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	s, err := p.open(ctx, path, h.synchronous)
	if err != nil {
		return nil, err
	}
	d := &desk{store: s}
	got, err := h.load(ctx, d)
	if errors.Is(err, errHung) {
		return nil, err // Close could hang as well
	}
	if err := errors.Join(err, s.Close()); err != nil {
		return nil, err
	}
	return got, d.check(ctx, file)
}

// load has the goroutines work: first for a fifth of the time to get warm, of
// which the failures count and nothing else.
func (h heat) load(ctx context.Context, d *desk) ([]result, error) {
	if err := terms(ctx, d.store, h.synchronous); err != nil {
		return nil, err
	}
	crews := h.crews(d, h.goroutines)
	warm, err := load(ctx, crews, h.duration/5)
	if err != nil {
		return nil, err
	}
	got, err := load(ctx, crews, h.duration)
	if err != nil {
		return nil, err
	}
	for i := range got {
		got[i].failures += warm[i].failures
		got[i].failure = cmp.Or(warm[i].failure, got[i].failure)
	}
	return got, ctx.Err()
}

// create makes a file with the rows that all begin with. What it returns holds
// no connection and no lock between two calls.
func create(ctx context.Context, path string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)")
	if err != nil {
		return nil, err
	}
	db.SetMaxIdleConns(-1)
	if _, err = db.ExecContext(ctx, schema); err == nil {
		_, err = db.ExecContext(ctx, seed, seeded)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// terms checks that a peer does as it is told: an option that its driver
// doesn't know would go unnoticed, and win the race.
func terms(ctx context.Context, s store, synchronous synchronous) error {
	level := map[string]string{"normal": "1", "full": "2"}[string(synchronous)]
	for pragma, want := range map[string]string{
		"journal_mode": "wal", "synchronous": level, "foreign_keys": "1",
	} {
		got, err := s.ask(ctx, pragma)
		if err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("%s is %s, and %s for the others", pragma, got, want)
		}
	}
	return nil
}

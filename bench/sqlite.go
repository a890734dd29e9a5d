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

// sqliteRace is what the options ask for.
type sqliteRace struct {
	rounds      int
	duration    time.Duration
	dir         string
	workloads   []workload
	goroutines  []int
	synchronous []synchronous
	peers       []peer
}

func planSQLite(o options) (start, error) {
	r := sqliteRace{
		rounds:   o.rounds,
		duration: cmp.Or(o.duration, either(o.brief, 300*time.Millisecond, 3*time.Second)),
		dir:      o.dir,
	}
	return r.run, errors.Join(
		pick(&r.workloads, workloads, o.workloads),
		pick(&r.peers, peers, o.contenders),
		pick(&r.synchronous, []synchronous{"full", "normal"}, o.synchronous),
		numbers(&r.goroutines, cmp.Or(o.goroutines, either(o.brief, "1,64", "1,8,64,256"))),
	)
}

// run runs each heat, and prints how the peers compare.
func (r sqliteRace) run(ctx context.Context, out io.Writer) (err error) {
	r.dir, err = os.MkdirTemp(r.dir, "thole-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(r.dir)) }()
	if err := r.introduce(out); err != nil {
		return err
	}
	for _, h := range r.heats() {
		rounds, err := compete(ctx, r.peers, r.rounds, h.run)
		if err != nil {
			return fmt.Errorf("%s: %w", h, err)
		}
		if err := report(out, h.comparison(r.peers), rounds); err != nil {
			return err
		}
	}
	return nil
}

// introduce prints what the figures depend on.
func (r sqliteRace) introduce(out io.Writer) error {
	took, err := syncTime(r.dir)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Sessions on SQLite: %s, an fsync of 4 KB takes %s ms\n", machine(), milliseconds(took))
	for _, p := range r.peers {
		fmt.Fprintf(out, "  %-12s %s\n", p.name, p.how)
	}
	fmt.Fprintf(out, "ratio: how many times the rate of %s is the other's, round by round; times in ms;\n", r.peers[0])
	fmt.Fprintln(out, "fairness: what the slowest goroutine got done, over the mean; CPU and Go's allocs: an operation, of all goroutines.")
	return nil
}

// syncTime is the median time that the disk takes for a small write and its
// fsync. On tmpfs it is nothing.
func syncTime(dir string) (time.Duration, error) {
	file, err := os.CreateTemp(dir, "fsync")
	if err != nil {
		return 0, err
	}
	defer func() { _ = file.Close() }()
	took := make([]time.Duration, 21)
	for i := range took {
		start := time.Now()
		if _, err := file.Write(make([]byte, 4096)); err != nil {
			return 0, err
		}
		if err := file.Sync(); err != nil {
			return 0, err
		}
		took[i] = time.Since(start)
	}
	return median(took), nil
}

// heat is a workload under the same terms for all peers.
type heat struct {
	workload
	goroutines  int
	synchronous synchronous
	duration    time.Duration
	dir         string
}

// heats are what the race has, without what is impossible or the same.
func (r sqliteRace) heats() []heat {
	var all []heat
	for _, w := range r.workloads {
		goroutines, syncs := r.goroutines, r.synchronous
		if w.alone {
			goroutines = []int{1}
		}
		if w.reads {
			syncs = syncs[:1]
		}
		for _, s := range syncs {
			for _, n := range goroutines {
				if n >= w.least {
					all = append(all, heat{w, n, s, r.duration, r.dir})
				}
			}
		}
	}
	return all
}

func (h heat) String() string {
	commits := ", synchronous=" + h.synchronous.String()
	if h.reads {
		commits = ""
	}
	return fmt.Sprintf("%s, goroutines=%d%s", h.name, h.goroutines, commits)
}

func (h heat) comparison(peers []peer) comparison {
	t := comparison{title: fmt.Sprintf("%s: %s", h, h.about), duration: h.duration, peers: names(peers)}
	for _, c := range h.crews(&desk{}, h.goroutines) {
		t.crews = append(t.crews, c.name)
	}
	return t
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

// load has the goroutines work.
func (h heat) load(ctx context.Context, d *desk) ([]result, error) {
	if err := terms(ctx, d.store, h.synchronous); err != nil {
		return nil, err
	}
	return loadWarm(ctx, h.crews(d, h.goroutines), h.duration/5, h.duration, spent)
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

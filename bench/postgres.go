package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// pgPeer is one way to use PostgreSQL.
type pgPeer struct {
	name string
	how  string
	open func(ctx context.Context, url string, conns int) (pgStore, error)
}

func (p pgPeer) String() string { return p.name }

// pgStore is a database in the hands of a peer. The statements are those of
// postgres_place.go, or what an ORM makes in their place.
type pgStore interface {
	// update is a session with one statement: it adds 1 to a counter and returns
	// what it has become.
	update(ctx context.Context, id int64) (int64, error)
	// three is a session with three statements: it reads a counter, adds 1 to it,
	// and inserts an event.
	three(ctx context.Context, id int64) error
	// read is a read-only session with one statement: the value of a counter.
	read(ctx context.Context, id int64) (int64, error)
	// single is the statement of update, outside a session.
	single(ctx context.Context, id int64) (int64, error)
	Close() error
}

// pgRetrier is one that runs sessions again.
type pgRetrier interface {
	// increment is a serializable session that reads a counter and writes it back
	// plus 1, as often as it takes.
	increment(ctx context.Context, id int64) error
}

// pgHeat is a workload under the same terms for all peers.
type pgHeat struct {
	pgWorkload
	way        way
	goroutines int
	warming    time.Duration
	duration   time.Duration
	place      *place
}

func (h pgHeat) String() string {
	return fmt.Sprintf("%s, %s, goroutines=%d", h.name, h.way.name, h.goroutines)
}

// connecting is time enough to open all connections, also at a distance, and to
// prepare the statements on them.
const connecting = 100 * time.Millisecond

// pgRace is what the options ask for.
type pgRace struct {
	rounds     int
	duration   time.Duration
	workloads  []pgWorkload
	goroutines []int
	peers      []pgPeer
}

func planPostgres(o options) (start, error) {
	r := pgRace{
		rounds:   o.rounds,
		duration: cmp.Or(o.duration, either(o.brief, 150*time.Millisecond, time.Second)),
	}
	return r.run, errors.Join(
		pick(&r.workloads, pgWorkloads, o.workloads),
		pick(&r.peers, pgPeers, o.contenders),
		numbers(&r.goroutines, cmp.Or(o.goroutines, either(o.brief, "1,8", "1,8,64"))),
	)
}

// run runs each heat, prints how the peers compare, and last whether thole keeps
// its promises.
func (r pgRace) run(ctx context.Context, out io.Writer) (err error) {
	p, err := openPlace(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	if err := r.introduce(ctx, out, p); err != nil {
		return err
	}
	var kept []string
	for _, h := range r.heats(p) {
		peers := h.among(r.peers)
		rounds, err := compete(ctx, peers, r.rounds, h.run)
		if err != nil {
			return fmt.Errorf("%s: %w", h, err)
		}
		if err := report(out, h.comparison(peers), rounds); err != nil {
			return err
		}
		kept = append(kept, h.promises(names(peers), rounds)...)
	}
	fmt.Fprintln(out, "\nWhat thole promises (min, median, max):")
	for _, line := range kept {
		fmt.Fprintln(out, " ", line)
	}
	return nil
}

// introduce prints what the figures depend on.
func (r pgRace) introduce(ctx context.Context, out io.Writer, p *place) error {
	server, err := p.describe(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Sessions on PostgreSQL: %s, %s\n", machine(), server)
	for _, w := range p.ways {
		took, err := w.roundTrip(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "  %-15s a round trip takes %s ms\n", w.name, milliseconds(took))
	}
	for _, p := range r.peers {
		fmt.Fprintf(out, "  %-10s %s\n", p.name, p.how)
	}
	fmt.Fprintf(out, "ratio: the time for a session over that of %s, round by round; times in ms; fairness: what the slowest\n", r.peers[0])
	fmt.Fprintln(out, "goroutine got done, over the mean; CPU and Go's allocs: a session, of all goroutines, and of what delays as well.")
	return nil
}

// heats are what the race has, without what nobody takes part in.
func (r pgRace) heats(p *place) []pgHeat {
	var all []pgHeat
	for _, w := range r.workloads {
		goroutines := r.goroutines
		if w.goroutines > 0 {
			goroutines = []int{w.goroutines}
		}
		for _, to := range p.ways {
			if len(w.among(r.peers)) == 0 || !slices.Contains(w.ways, to.name) {
				continue
			}
			for _, n := range goroutines {
				all = append(all, pgHeat{w, to, n, max(connecting, r.duration/5), max(w.least, r.duration), p})
			}
		}
	}
	return all
}

func (h pgHeat) comparison(peers []pgPeer) comparison {
	return comparison{
		title:    fmt.Sprintf("%s: %s", h, h.about),
		duration: h.duration,
		crews:    []string{""},
		peers:    names(peers),
		server:   h.place.server > 0,
	}
}

// run is one peer's turn.
func (h pgHeat) run(ctx context.Context, p pgPeer) ([]result, error) {
	before, err := h.place.books(ctx)
	if err != nil {
		return nil, err
	}
	s, err := p.open(ctx, h.way.url, 2*h.goroutines)
	if err != nil {
		return nil, err
	}
	d := &pgDesk{store: s}
	work := crew{"", h.goroutines, func(ctx context.Context) error { return h.task(d, ctx) }}
	got, err := loadWarm(ctx, []crew{work}, h.warming, h.duration, h.place.spent)
	if errors.Is(err, errHung) {
		return nil, err // Close could hang as well
	}
	if err := errors.Join(err, s.Close()); err != nil {
		return nil, err
	}
	after, err := h.place.books(ctx)
	if err != nil {
		return nil, err
	}
	return got, d.check(before, after)
}

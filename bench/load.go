package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"
)

// crew is goroutines that do the same, over and over.
type crew struct {
	name string
	size int
	do   func(ctx context.Context) error // nil says that it is done for good
}

// shift is what one goroutine got done.
type shift struct {
	done     int             // while the time ran
	took     []time.Duration // of all that succeeded, also after it
	failures int
	failure  error // the first
}

// result is what a crew got done.
type result struct {
	rate          float64 // a second, of what succeeded
	p50, p99, max time.Duration
	fairness      float64 // what the slowest goroutine did, over the mean
	costs         costs   // of each that succeeded, in all crews together
	failures      int
	failure       error // the first of one of the goroutines
}

// costs are what has been used.
type costs struct {
	cpu    time.Duration // of this process
	allocs float64       // by Go: memory of C is not in it
	server time.Duration // CPU of a server, where there is one and it can be known
}

// meter reads what has been used so far.
type meter func() costs

func spent() costs {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return costs{cpu: cpuTime(), allocs: float64(stats.Mallocs)}
}

// since is what one of n has cost since before.
func (c costs) since(before costs, n int) costs {
	each := func(d time.Duration) time.Duration { return time.Duration(over(float64(d), float64(n))) }
	return costs{each(c.cpu - before.cpu), over(c.allocs-before.allocs, float64(n)), each(c.server - before.server)}
}

// compete has the peers run one after the other, round for round, and returns
// the results of each round, peer and crew.
func compete[P fmt.Stringer](ctx context.Context, peers []P, rounds int, run func(context.Context, P) ([]result, error)) ([][][]result, error) {
	all := make([][][]result, rounds)
	for round := range rounds {
		all[round] = make([][]result, len(peers))
		for i := range peers {
			at := (i + round) % len(peers) // nobody is always first
			got, err := run(ctx, peers[at])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", peers[at], err)
			}
			all[round][at] = got
		}
	}
	return all, nil
}

// patience is how much longer than it should one may work: six times busyTimeout.
const patience = time.Minute

// errHung says that goroutines wait for each other: they and what they have are
// lost.
var errHung = errors.New("nothing moves any more")

// loadWarm is load after some time to get warm, of which the failures count and
// nothing else.
func loadWarm(ctx context.Context, crews []crew, warming, d time.Duration, used meter) ([]result, error) {
	warm, err := load(ctx, crews, warming, used)
	if err != nil {
		return nil, err
	}
	got, err := load(ctx, crews, d, used)
	if err != nil {
		return nil, err
	}
	for i := range got {
		got[i].failures += warm[i].failures
		got[i].failure = cmp.Or(warm[i].failure, got[i].failure)
	}
	return got, ctx.Err()
}

// load has all crews work side by side for a while. Each goroutine ends what it
// has begun. That counts only where it is alone: another is served better once
// the rest have stopped.
func load(ctx context.Context, crews []crew, d time.Duration, used meter) ([]result, error) {
	runtime.GC() // or this contender pays for the last one's garbage
	var working sync.WaitGroup
	shifts := make([][]shift, len(crews))
	before := used()
	began := time.Now()
	until := began.Add(d)
	for i, c := range crews {
		shifts[i] = make([]shift, c.size)
		for j := range c.size {
			working.Go(func() { shifts[i][j] = work(ctx, until, c.do) })
		}
	}
	ended := make(chan struct{})
	go func() { working.Wait(); close(ended) }()
	alone := len(crews) == 1 && crews[0].size == 1
	if !alone {
		time.Sleep(time.Until(until))
	}
	after := used()
	select {
	case <-ended:
	case <-time.After(time.Until(until) + patience):
		return nil, errHung
	}
	if alone {
		d, after = time.Since(began), used()
		shifts[0][0].done = len(shifts[0][0].took)
	}
	all, done := results(shifts, d)
	for i := range all {
		all[i].costs = after.since(before, done)
	}
	return all, nil
}

// work does it until the time has come, and once even if it gets no CPU before.
func work(ctx context.Context, until time.Time, do func(context.Context) error) shift {
	ctx, cancel := context.WithCancel(ctx) // requests of one client have a ctx in common, and all clients don't
	defer cancel()
	var s shift
	for began := time.Now(); ; {
		err := request(ctx, do)
		ended := time.Now()
		s.note(err, ended.Sub(began), ended.Before(until))
		if ctx.Err() != nil || !ended.Before(until) {
			return s
		}
		began = ended
	}
}

func (s *shift) note(err error, took time.Duration, inTime bool) {
	if err != nil {
		s.failures++
		s.failure = cmp.Or(s.failure, err)
		return
	}
	s.took = append(s.took, took)
	if inTime {
		s.done++
	}
}

// request does it with a ctx of its own that can be cancelled, as that of an
// HTTP request can.
func request(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return do(ctx)
}

// results sums up the shifts of each crew, and counts what all have done.
func results(shifts [][]shift, d time.Duration) ([]result, int) {
	all, total := make([]result, len(shifts)), 0
	for i, crew := range shifts {
		r, done := summary(crew, d)
		all[i] = r
		total += done
	}
	return all, total
}

// summary is the result of a crew, and how much it has done.
func summary(crew []shift, d time.Duration) (result, int) {
	var r result
	total, least := 0, crew[0].done
	var took []time.Duration
	for _, s := range crew {
		total += s.done
		least = min(least, s.done)
		took = append(took, s.took...)
		r.failures += s.failures
		r.failure = cmp.Or(r.failure, s.failure)
	}
	r.rate = float64(total) / d.Seconds()
	r.fairness = over(float64(least*len(crew)), float64(total))
	if n := len(took); n > 0 {
		slices.Sort(took)
		r.p50, r.p99, r.max = took[n/2], took[n*99/100], took[n-1]
	}
	return r, total
}

// over is a/b, and 0 where there is nothing to compare with.
func over(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

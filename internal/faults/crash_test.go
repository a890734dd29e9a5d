package faults

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/link"
	"github.com/tholedb/thole/internal/testdb"
)

const (
	serverKills = 20
	killAfter   = 50 // operations, of each kind
)

// PostgreSQL is killed in the middle of its work and started again. What sessions
// and statements were told is true, and of those with a key nobody is left in
// doubt.
func TestServerIsKilled(t *testing.T) { //nolint:paralleltest // it wants the machine for itself
	server := testdb.PostgresToKill(t)
	e := newEffects(t, server.URL)
	e.makeCounters()
	random := newRandom(t)
	var over atomic.Bool
	doers := []*doer{{name: "k", keys: true}, {name: "n"}}
	var all sync.WaitGroup
	for _, d := range doers {
		d.seed, d.done = random.Uint64(), over.Load
		d.db = openOver(t, server.URL, new(link.Link))
		defer d.db.Close()
		all.Go(func() { d.run(t.Context()) })
	}
	for range serverKills {
		for _, d := range doers {
			d.awaitMore(t, killAfter)
		}
		time.Sleep(rand.N(20 * time.Millisecond)) // any moment will do
		if err := server.Kill(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patient)
		if err := server.Restart(ctx); err != nil {
			t.Fatal(err)
		}
		cancel()
	}
	over.Store(true)
	all.Wait()
	e.reconnect(server.URL)
	wantTruth(t, e, slices.Concat(doers[0].deeds, doers[1].deeds))
	if unknown := doers[0].count(thole.Unknown); unknown > 0 {
		t.Errorf("%d calls with a key were told that nobody knows", unknown)
	}
	for _, d := range doers {
		t.Logf("%d operations, with keys %v: calls: %d committed, %d rolled back, %d unknown",
			d.operations.Load(), d.keys, d.count(thole.Committed), d.count(thole.RolledBack), d.count(thole.Unknown))
	}
}

// awaitMore waits until so many more operations are done.
func (d *doer) awaitMore(t *testing.T, n int64) {
	t.Helper()
	before := d.operations.Load()
	for since := time.Now(); d.operations.Load() < before+n; time.Sleep(time.Millisecond) {
		if time.Since(since) > patient {
			t.Fatalf("%d operations were done in %s, want %d", d.operations.Load()-before, patient, n)
		}
	}
}

package faults

import (
	"flag"
	"math/rand/v2"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/link"
	"github.com/tholedb/thole/internal/testdb"
)

var wireFaults = flag.Int64("faults.wire", 500, "how many connections TestWire ends, and TestWireWithKeys")

// Connections end at any message. What sessions and statements are told is true,
// and nothing is left open.
func TestWire(t *testing.T) { //nolint:paralleltest // it counts what the process has open
	underWireFaults(t, false)
}

// Those with a key are done once, and nobody is left in doubt.
func TestWireWithKeys(t *testing.T) { //nolint:paralleltest // as above
	underWireFaults(t, true)
}

func underWireFaults(t *testing.T, keys bool) {
	t.Helper()
	own := testdb.Postgres(t)
	e := newEffects(t, own)
	e.makeCounters()
	goroutines, files := goleak.IgnoreCurrent(), openFiles(t)
	random := newRandom(t)
	l, faults := faultyLink(random)
	d := &doer{keys: keys, seed: random.Uint64(), done: func() bool { return faults.Load() >= *wireFaults || t.Context().Err() != nil }}
	d.db = openOver(t, own, l)
	d.run(t.Context())
	l.Judge(nil)
	if err := d.db.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	e.awaitNobody()
	wantTruth(t, e, d.deeds)
	if !keys {
		wantNoGuess(t, e, d.deeds)
	}
	if unknown := d.count(thole.Unknown); keys && unknown > 0 {
		t.Errorf("%d calls with a key were told that nobody knows", unknown)
	}
	if err := goleak.Find(goroutines); err != nil {
		t.Errorf("goroutines: %v", err)
	}
	for since := time.Now(); openFiles(t) > files; time.Sleep(time.Millisecond) {
		if time.Since(since) > patient {
			t.Fatalf("%d files are open, before there were %d", openFiles(t), files)
		}
	}
	t.Logf("%d faults in %d operations: calls: %d committed, %d rolled back, %d unknown", faults.Load(),
		d.operations.Load(), d.count(thole.Committed), d.count(thole.RolledBack), d.count(thole.Unknown))
}

// faultyLink ends connections at messages that are drawn, and counts them: at
// those of COMMIT more often than at others, and seldom where one is made.
func faultyLink(random *rand.Rand) (*link.Link, *atomic.Int64) {
	l, faults := new(link.Link), new(atomic.Int64)
	l.Judge(func(m link.Message) link.Fate {
		often := 200
		switch {
		case m.Greeting:
			often = 2000
		case m.Text == "commit" || m.Text == "COMMIT":
			often = 8
		}
		if random.IntN(often) > 0 {
			return link.Fate{}
		}
		faults.Add(1)
		places := []link.Place{link.Before, link.Inside, link.After}
		return link.Fate{Ends: places[random.IntN(len(places))], Reset: random.IntN(2) == 0}
	})
	return l, faults
}

// openOver opens a database over a link. The pool's own connection at the start
// may be cut, and so is asked for again.
func openOver(t *testing.T, url string, l *link.Link) *thole.DB {
	t.Helper()
	cfg, err := thole.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	l.Stand(cfg.Postgres)
	cfg.Postgres.MaxConns = deedWorkers
	cfg.Logger = quiet
	for range 20 {
		var db *thole.DB
		if db, err = thole.OpenConfig(t.Context(), cfg); err == nil {
			return db
		}
	}
	t.Fatal(err)
	return nil
}

func openFiles(t *testing.T) int {
	t.Helper()
	if runtime.GOOS != "linux" {
		return 0
	}
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

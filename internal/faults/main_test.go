package faults

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/faults/history"
)

var (
	lasts = flag.Duration("faults.for", 0, "how long each test looks for trouble; zero is some seconds")
	seeds = flag.Uint64("faults.seed", 0, "the seed; zero is a random one")
)

// TestMain is also the main function of the processes that get killed.
func TestMain(m *testing.M) {
	if orders := os.Getenv(childVariable); orders != "" {
		if err := child(context.Background(), orders); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// patience returns when a test stops looking for trouble.
func patience(short time.Duration) time.Time {
	if *lasts > 0 {
		short = *lasts
	}
	return time.Now().Add(short)
}

// newRandom is random numbers, whose seed is in the test's log.
func newRandom(t *testing.T) *rand.Rand {
	t.Helper()
	seed := *seeds
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-faults.seed=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// record is what a load was told.
type record struct {
	mu       sync.Mutex
	sessions []history.Session
	strange  []error         // that no session means to end with
	full     map[string]bool // sessions that ended as the disk was full, by id
	doubtful int             // COMMITs that the disk failed, and the next one too
}

func newRecord() *record { return &record{full: make(map[string]bool)} }

func (r *record) told(s history.Session, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sessions = append(r.sessions, s)
	if failed, ok := errors.AsType[*sqlite.Error](err); ok {
		switch failed.Code() & 0xff { // https://sqlite.org/rescode.html#primary_result_codes_versus_extended_result_codes
		case sqlite3.SQLITE_FULL:
			r.full[s.ID] = true
		case sqlite3.SQLITE_IOERR:
			if s.Outcome == thole.Unknown {
				r.doubtful++
			}
		}
	}
	if err != nil && !errors.Is(err, errOwn) && !errors.Is(err, context.Canceled) {
		r.strange = append(r.strange, err)
	}
}

// doubting is the record of somebody who can't know what became of sessions
// that a full disk ended: half of a write may complete what was in its place
// before.
func (r *record) doubting() *record {
	doubtful := newRecord()
	doubtful.sessions = slices.Clone(r.sessions)
	for i := range doubtful.sessions {
		if s := &doubtful.sessions[i]; r.full[s.ID] {
			s.Outcome = thole.Unknown
		}
	}
	return doubtful
}

// count is how many sessions had an outcome.
func (r *record) count(outcome thole.Outcome) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for i := range r.sessions {
		if r.sessions[i].Outcome == outcome {
			n++
		}
	}
	return n
}

// anomalies are what is wrong with the file, seen by a plain connection. A
// partial record is one of some of the sessions.
func (r *record) anomalies(ctx context.Context, path string, partial bool) []string {
	found, err := readLists(ctx, path)
	if err != nil {
		return []string{err.Error()}
	}
	h := history.History{Sessions: r.sessions, Lists: found, Partial: partial}
	return h.Anomalies()
}

// readLists reads the lists with the driver alone, if the file is sound.
func readLists(ctx context.Context, path string) (found [][]string, err error) {
	db, err := sql.Open("sqlite", path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	var sound string
	if err := db.QueryRowContext(ctx, "PRAGMA integrity_check").Scan(&sound); err != nil {
		return nil, fmt.Errorf("check integrity: %w", err)
	}
	if sound != "ok" {
		return nil, errors.New("integrity: " + sound)
	}
	rows, err := db.QueryContext(ctx, "SELECT tokens FROM lists ORDER BY list")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		found = append(found, strings.Fields(text))
	}
	return found, rows.Err()
}

// wantSound fails the test for anomalies.
func wantSound(t *testing.T, when string, anomalies []string) {
	t.Helper()
	const most = 5
	for i, anomaly := range anomalies {
		if i == most {
			t.Errorf("%s: and %d more", when, len(anomalies)-most)
			return
		}
		t.Errorf("%s: %s", when, anomaly)
	}
}

// wantCertain fails the test for outcomes that are unknown for no reason.
func wantCertain(t *testing.T, told *record) {
	t.Helper()
	if n := told.count(thole.Unknown); n > told.doubtful {
		t.Errorf("%d outcomes are unknown, and of %d of them the disk is to blame", n, told.doubtful)
	}
}

// open opens the database of a load, with its lists.
func open(t *testing.T, path string) *thole.DB {
	t.Helper()
	db, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if err := Create(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	return db
}

// remove removes a database.
func remove(t *testing.T, path string) {
	t.Helper()
	files, err := filepath.Glob(path + "*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if err := os.Remove(file); err != nil {
			t.Error(err)
		}
	}
}

package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/testdb"
)

// loses is how many COMMITs there are for one whose answer gets lost.
const loses = 50

// TestServiceUnderLoad has another process ask for thousands of shields, give
// up some of the requests, and terminate PostgreSQL's backends meanwhile, while
// the network loses answers to COMMIT. What the client was told is the truth,
// and nothing is left open.
func TestServiceUnderLoad(t *testing.T) { //nolint:paralleltest // it counts what the process has open
	t.Run("sqlite", func(t *testing.T) { underLoad(t, testdb.SQLite(t)) })     //nolint:paralleltest // as above
	t.Run("postgres", func(t *testing.T) { underLoad(t, testdb.Postgres(t)) }) //nolint:paralleltest // as above
}

func underLoad(t *testing.T, databaseURL string) {
	t.Helper()
	backends := len(states(t, migrated(t, databaseURL)))
	goroutines, files := goleak.IgnoreCurrent(), openFiles(t)
	lossy := &lossyLink{loses: loses}
	db := open(t, databaseURL, lossy.stand)
	service := start(t, newHandler(db, quiet), grace)

	seen := runClient(t, service.url, databaseURL)
	service.wantEnd(t)
	seen.wantCoverage(t, db.Engine(), lossy.lost.Load())
	seen.wantTruth(t, databaseURL)

	eventually(t, "every connection of the pool is idle", func() bool {
		return !slices.ContainsFunc(states(t, databaseURL), func(state string) bool { return state != "idle" })
	})
	if err := db.Close(); err != nil {
		t.Errorf("close database: %v", err)
	}
	eventually(t, "connections are as many as before", func() bool { return len(states(t, databaseURL)) <= backends })
	eventually(t, "files are as many as before", func() bool { return openFiles(t) <= files })
	if err := goleak.Find(goroutines); err != nil {
		t.Error(err)
	}
}

// runClient runs the client to its end.
func runClient(t *testing.T, url, databaseURL string) report {
	t.Helper()
	requests := 5000
	if testing.Short() {
		requests = 500
	}
	if !strings.HasPrefix(databaseURL, "postgres") {
		databaseURL = ""
	}
	cmd := program(t, "client", urlVariable+"="+url, postgresVariable+"="+databaseURL, fmt.Sprintf("%s=%d", requestsVariable, requests))
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("client: %v", err)
	}
	var seen report
	if err := json.Unmarshal(out, &seen); err != nil {
		t.Fatal(err)
	}
	if len(seen.Verdicts) != requests {
		t.Fatalf("names: got %d, want %d", len(seen.Verdicts), requests)
	}
	return seen
}

// wantCoverage looks whether the test has tested what it is meant to, and
// whether the service answered with anything else than it is meant to.
func (r report) wantCoverage(t *testing.T, engine thole.Engine, lost int64) {
	t.Helper()
	counts := map[verdict]int{}
	for _, told := range r.Verdicts {
		counts[told]++
	}
	t.Logf("verdicts %v, statuses %v, answers to COMMIT lost %d, backends terminated %d", counts, r.Statuses, lost, r.Terminated)
	want := []verdict{acknowledged, failed, unanswered}
	if engine == thole.Postgres {
		want = append(want, unknown)
	}
	for _, told := range want {
		if counts[told] == 0 {
			t.Errorf("%s: got none, want some", told)
		}
	}
	for status := range r.Statuses {
		if !slices.Contains([]int{0, http.StatusCreated, http.StatusUnprocessableEntity, http.StatusServiceUnavailable}, status) {
			t.Errorf("status: got %d, want 201, 422 or 503", status)
		}
	}
}

// wantTruth compares what the client was told with what is in the database.
func (r report) wantTruth(t *testing.T, databaseURL string) {
	t.Helper()
	db := open(t, databaseURL, func(*thole.Config) {})
	defer db.Close()
	var names []string
	if err := db.SelectContext(t.Context(), &names, "SELECT name FROM shields"); err != nil {
		t.Fatal(err)
	}
	stored := map[string]int{}
	for _, name := range names {
		stored[name]++
	}
	happened := map[verdict]int{}
	for name, told := range r.Verdicts {
		times := stored[name]
		happened[told] += times
		if told == acknowledged && times != 1 || told == failed && times != 0 || times > 1 {
			t.Errorf("%s: it is stored %d times, and the client was told %s", name, times, told)
		}
		delete(stored, name)
	}
	if len(stored) != 0 {
		t.Errorf("nobody asked for %v", stored)
	}
	t.Logf("stored %v", happened)
	wantStock(t, db, stock(t, db, "SELECT material, count(*) AS n FROM shields GROUP BY material"))
}

// states are those of PostgreSQL's backends for the database; none on SQLite.
func states(t *testing.T, databaseURL string) []string {
	t.Helper()
	db := open(t, databaseURL, func(*thole.Config) {})
	defer db.Close()
	var states []string
	if db.Engine() == thole.Postgres {
		const query = `select coalesce(state, '') from pg_stat_activity
			where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()`
		if err := db.SelectContext(t.Context(), &states, query); err != nil {
			t.Fatal(err)
		}
	}
	return states
}

// openFiles counts file descriptors, where the system tells.
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

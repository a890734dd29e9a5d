package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tholedb/thole/internal/pgserver"
)

// testPlace is a place that is gone when the test has ended.
func testPlace(t *testing.T) *place {
	t.Helper()
	p, err := openPlace(t.Context())
	if errors.As(err, new(*pgserver.NotFoundError)) && os.Getenv("DBTEST_REQUIRE") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// once are the heats in which two goroutines do something once to get warm and
// once more.
func once(t *testing.T, p *place) []pgHeat {
	t.Helper()
	all := pgRace{workloads: pgWorkloads, goroutines: []int{2}, peers: pgPeers}.heats(p)
	for i := range all {
		all[i].warming, all[i].duration, all[i].goroutines = 0, time.Nanosecond, 2
	}
	return all
}

// All work of all peers by all ways; run compares the books with the database.
func TestPostgresPeers(t *testing.T) {
	t.Parallel()
	for _, h := range once(t, testPlace(t)) {
		for _, p := range h.among(pgPeers) {
			got, err := h.run(t.Context(), p)
			if err != nil {
				t.Errorf("%s of %s: %v", h, p, err)
				continue
			}
			if r := got[0]; r.failures > 0 || r.max == 0 {
				t.Errorf("%s of %s: %d failures, for one: %v; the longest took %s", h, p, r.failures, r.failure, r.max)
			}
		}
	}
}

// pgLying is a store that is wrapped to do something other than it says.
type pgLying struct {
	pgStore
	addition func(ctx context.Context, s pgStore, id int64) (int64, error)
	work     func(ctx context.Context, s pgStore, id int64) error
}

func (l pgLying) update(ctx context.Context, id int64) (int64, error) {
	return l.addition(ctx, l.pgStore, id)
}

func (l pgLying) three(ctx context.Context, id int64) error { return l.work(ctx, l.pgStore, id) }

// as is pgx with the lies of l.
func (l pgLying) as() pgPeer {
	return pgPeer{name: "lying", open: func(ctx context.Context, url string, conns int) (pgStore, error) {
		honest, err := openPgx(ctx, url, conns)
		l.pgStore = honest
		return l, err
	}}
}

func TestPostgresLiesAreFound(t *testing.T) {
	t.Parallel()
	failed := errors.New("failed")
	heats := once(t, testPlace(t))
	for name, test := range map[string]struct {
		workload string
		lying    pgLying
		want     string
	}{
		"an addition that is not there": {"w1", pgLying{addition: func(_ context.Context, _ pgStore, id int64) (int64, error) {
			return id * apart, nil
		}}, "additions in the database"},
		"an addition of a session that failed": {"w1", pgLying{addition: func(ctx context.Context, s pgStore, id int64) (int64, error) {
			value, err := s.update(ctx, id)
			return value, errors.Join(err, failed)
		}}, "additions in the database"},
		"an event that is not there": {"w3", pgLying{work: func(ctx context.Context, s pgStore, id int64) error {
			_, err := s.update(ctx, id)
			return err
		}}, "events in the database"},
	} {
		t.Run(name, func(t *testing.T) { //nolint:paralleltest // the books are those of one at a time
			_, err := heats[indexOf(t, heats, test.workload)].run(t.Context(), test.lying.as())
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// The value of another counter is a failure.
func TestPostgresOtherCounter(t *testing.T) {
	t.Parallel()
	heats := once(t, testPlace(t))
	other := pgLying{addition: func(ctx context.Context, s pgStore, id int64) (int64, error) { return s.update(ctx, 1+id%counters) }}
	got, err := heats[indexOf(t, heats, "w1")].run(t.Context(), other.as())
	if err != nil || got[0].failures != 4 {
		t.Errorf("got %+v and %v, want 4 failures", got, err)
	}
}

func indexOf(t *testing.T, heats []pgHeat, workload string) int {
	t.Helper()
	for i, h := range heats {
		if h.name == workload {
			return i
		}
	}
	t.Fatalf("no heat of %s", workload)
	return 0
}

func TestPostgresHeats(t *testing.T) {
	t.Parallel()
	var r pgRace
	err := errors.Join(
		pick(&r.workloads, pgWorkloads, "w1,hot,pooler"),
		pick(&r.peers, pgPeers, "sqlx,exec"), // neither has a part in hot
		numbers(&r.goroutines, "1,8"),
	)
	if err != nil {
		t.Fatal(err)
	}
	got := []string{}
	for _, h := range r.heats(&place{ways: []way{{name: loopback}, {name: far}, {name: pooler}}}) {
		got = append(got, fmt.Sprint(h, " of ", list(h.among(r.peers))))
	}
	want := "w1, loopback, goroutines=1 of sqlx; w1, loopback, goroutines=8 of sqlx; " +
		"w1, 1 ms each way, goroutines=1 of sqlx; w1, 1 ms each way, goroutines=8 of sqlx; pooler, PgBouncer, goroutines=16 of exec"
	if strings.Join(got, "; ") != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Everyone is somewhere, and nobody is misspelt.
func TestPostgresWorkloadsNamePeers(t *testing.T) {
	t.Parallel()
	missing := map[string]bool{}
	for _, p := range pgPeers {
		missing[p.name] = true
	}
	for _, w := range pgWorkloads {
		if got := w.among(pgPeers); len(got) != len(w.by) {
			t.Errorf("%s is for %s, of whom there are %s", w, w.by, list(got))
		}
		for _, p := range w.among(pgPeers) {
			delete(missing, p.name)
		}
	}
	if len(missing) > 0 {
		t.Errorf("%v have no part in anything", missing)
	}
}

func TestPromises(t *testing.T) {
	t.Parallel()
	cpu := func(client, server time.Duration) costs { return costs{cpu: client, server: server} }
	for name, test := range map[string]struct {
		workload, way string
		peers         []string
		rounds        [][2]result // of the first and of thole
		want          string
	}{
		"less time": {"w1", far, []string{"pgx", "thole"}, [][2]result{{{rate: 8}, {rate: 10}}}, "time over that of pgx is 0.80 0.80 0.80, promised ≤ 0.80: kept"},
		"the median": {"w1", far, []string{"pgx", "thole"}, [][2]result{
			{{rate: 1}, {rate: 2}}, {{rate: 1}, {rate: 1}}, {{rate: 2}, {rate: 1}},
		}, "0.50 1.00 2.00, promised ≤ 0.80: NOT KEPT"},
		"more sessions": {"hot", loopback, []string{"pgx", "thole"}, [][2]result{{{rate: 2}, {rate: 3}}}, "is 1.50 1.50 1.50, promised ≥ 1.50: kept"},
		"too few":       {"hot", loopback, []string{"pgx", "thole"}, [][2]result{{{rate: 4}, {rate: 5}}}, "is 1.25 1.25 1.25, promised ≥ 1.50: NOT KEPT"},
		"CPU of both": {"w1", loopback, []string{"sqlx", "thole"}, [][2]result{
			{{rate: 1, costs: cpu(1, 3)}, {rate: 1, costs: cpu(2, 1)}},
		}, "is 0.75 0.75 0.75, promised ≤ 0.90: kept"},
		"nobody to compare with": {"w1", far, []string{"sqlx", "thole"}, [][2]result{{{rate: 1}, {rate: 1}}}, ""},
		"no failures":            {"pooler", pooler, []string{"exec", "thole"}, [][2]result{{{failures: 5}, {rate: 1}}}, "0 failures: kept"},
		"failures":               {"w3", far, []string{"exec", "thole"}, [][2]result{{{}, {failures: 1}}, {{}, {failures: 2}}}, "3 failures: NOT KEPT"},
		"no thole":               {"w1", far, []string{"pgx", "sqlx"}, [][2]result{{{rate: 1}, {rate: 1}}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var rounds [][][]result
			for _, r := range test.rounds {
				rounds = append(rounds, [][]result{{r[0]}, {r[1]}})
			}
			h := pgHeat{pgWorkload: pgWorkload{name: test.workload}, way: way{name: test.way}}
			got := strings.Join(h.promises(test.peers, rounds), "; ")
			if !strings.HasSuffix(got, test.want) || (got == "") != (test.want == "") {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// What the server has worked is on its account, and the database is gone at last.
func TestPlace(t *testing.T) {
	t.Parallel()
	p := testPlace(t)
	before := p.spent()
	if _, err := p.conn.Exec(t.Context(), "select count(*) from generate_series(1, 1000000)"); err != nil {
		t.Fatal(err)
	}
	after := p.spent()
	if runtime.GOOS == "linux" && after.server <= before.server {
		t.Errorf("the server's CPU went from %s to %s", before.server, after.server)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	for _, w := range p.ways {
		if conn, err := pgx.Connect(t.Context(), w.url); err == nil {
			_ = conn.Close(t.Context())
			t.Errorf("%s still leads to the database", w.name)
		}
	}
	p.conn, p.admin = nil, nil
}

func TestRacePostgres(t *testing.T) {
	t.Parallel()
	testPlace(t) // skips without a server
	races, err := parse([]string{
		"-rounds", "2", "-duration", "10ms", "-goroutines", "2", "-workloads", "w1", "-contenders", "pgx,thole", "postgres",
	}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := run(t.Context(), &out, races); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"w1, loopback, goroutines=2", "server CPU", "w1, 1 ms each way, goroutines=2: time over that of pgx is"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("got %s, want %q in it", &out, want)
		}
	}
}

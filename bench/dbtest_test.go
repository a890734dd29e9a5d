package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/pgserver"
)

func TestMain(m *testing.M) {
	if child() {
		return
	}
	os.Exit(m.Run())
}

// testGrounds are those of a lesson.
func testGrounds(t *testing.T, l lesson) grounds {
	t.Helper()
	g, err := l.grounds(t.Context())
	if errors.As(err, new(*pgserver.NotFoundError)) && os.Getenv("DBTEST_REQUIRE") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// Each peer's tests pass one after the other, so they are undone: see itemName.
// What the peers have made is gone.
func TestTestPeers(t *testing.T) {
	t.Parallel()
	for _, l := range lessons {
		if l.statements > 20 {
			continue
		}
		t.Run(l.name, func(t *testing.T) { // not parallel: it looks at what others would leave
			g := testGrounds(t, l)
			for _, p := range l.peers {
				wantFailures(t, p, g, 0)
			}
			if l.engine == thole.Postgres {
				wantNoRoles(t, g.url)
			}
		})
	}
}

// A test that is not undone fails the next one.
func TestWhatStaysIsFound(t *testing.T) {
	t.Parallel()
	g := testGrounds(t, lessons[0])
	staying := testPeer{name: "staying", open: func(ctx context.Context, g grounds) (*suite, error) {
		db, err := openMemory(ctx, g.schema)
		if err != nil {
			return nil, err
		}
		return &suite{close: db.Close, test: func(tb testing.TB) {
			check(tb, commitItem(tb.Context(), db, insertItemSQLite))
		}}, nil
	}}
	wantFailures(t, staying, g, 2)
}

// wantFailures wants a peer's first test to pass, and so many failures of two more.
func wantFailures(t *testing.T, p testPeer, g grounds, want int) {
	t.Helper()
	s, err := p.open(t.Context(), g)
	if err != nil {
		t.Fatalf("%s: %v", p, err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}()
	if err := runTest(t.Context(), s.test); err != nil {
		t.Errorf("%s: %v", p, err)
	}
	got, err := s.load(t.Context(), time.Nanosecond)
	if err != nil {
		t.Fatalf("%s: %v", p, err)
	}
	if r := got[0]; r.failures != want {
		t.Errorf("%s: got %d failures, want %d; one of them: %v", p, r.failures, want, r.failure)
	}
}

// wantNoRoles wants a server without the roles of peers. They own databases, and
// could not be dropped before those.
func wantNoRoles(t *testing.T, url string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	var left []string
	if err := conn.QueryRow(t.Context(), "select array(select rolname::text from pg_roles where rolname like 'thole\\_bench\\_%')").Scan(&left); err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		t.Errorf("left %q", left)
	}
}

// A test ends as one of the testing package does.
func TestRunTest(t *testing.T) {
	t.Parallel()
	var did []string
	err := runTest(t.Context(), func(tb testing.TB) {
		tb.Cleanup(func() { did = append(did, "last"); check(tb, tb.Context().Err()) })
		tb.Cleanup(func() { tb.Fatal("from a cleanup") })
		tb.Error("from the test")
		tb.Fatal("the end")
		did = append(did, "more")
	})
	if want := []string{"last"}; !slices.Equal(did, want) {
		t.Errorf("did %q, want %q", did, want)
	}
	const want = "from the test\nthe end\nfrom a cleanup\ncontext canceled"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if err := runTest(t.Context(), func(testing.TB) {}); err != nil {
		t.Errorf("got %v of a test that passes", err)
	}
}

// Who links dbtest and never calls it pays nothing.
func TestNothingIsStarted(t *testing.T) {
	t.Parallel()
	got, err := watchIdle(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := (idleness{}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// What a process has started is seen.
func TestChildrenOf(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip(err)
	}
	cmd := exec.CommandContext(t.Context(), "sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if got := childrenOf(os.Getpid()); !slices.Contains(got, cmd.Process.Pid) {
		t.Errorf("got %d, want %d among them", got, cmd.Process.Pid)
	}
}

func TestBudgets(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	l := lesson{name: "first-20"}
	for name, test := range map[string]struct {
		peer   string
		rounds []result
		want   string // at the end of the only line; empty: there is none
	}{
		"the median":  {"kept", []result{{p50: 900 * ms}, {p50: 300 * ms}, {p50: 1 * ms}}, "promised ≤ 300.000, with 0 failures: kept"},
		"too slow":    {"kept", []result{{p50: 1 * ms}, {p50: 301 * ms}, {p50: 301 * ms}}, "promised ≤ 300.000, with 0 failures: NOT KEPT"},
		"a failure":   {"kept", []result{{p50: ms, failures: 1}}, "with 1 failures: NOT KEPT"},
		"no promises": {"initdb", []result{{p50: ms}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var rounds [][][]result
			for _, r := range test.rounds {
				rounds = append(rounds, [][]result{{r}})
			}
			got := strings.Join(l.promises([]string{test.peer}, rounds), "\n")
			if !strings.HasSuffix(got, test.want) || (got == "") != (test.want == "") {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// Every budget is somebody's.
func TestBudgetsNamePeers(t *testing.T) {
	t.Parallel()
	for _, b := range budgets {
		var l []lesson
		if err := pick(&l, lessons, b.lesson); err != nil {
			t.Error(err)
			continue
		}
		var p []testPeer
		if err := pick(&p, l[0].peers, b.peer); err != nil {
			t.Error(err)
		}
	}
}

// A peer that is not in a lesson is left out there, and so is a lesson that nobody
// is in.
func TestRaceDBTest(t *testing.T) {
	t.Parallel()
	races, err := parse([]string{
		"-rounds", "2", "-duration", "1ms", "-workloads", "sqlite-20,first-20", "-contenders", "rollback,pgtestdb,sandbox", "dbtest",
	}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := run(t.Context(), &out, races); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]int{
		"; 2 rounds of 1ms": 1, "sqlite-20, sandbox: a test takes": 1, "never calls dbtest": 1, "\nfirst-20": 0,
	} {
		if got := strings.Count(out.String(), text); got != want {
			t.Errorf("got %q %d times, want %d, in %s", text, got, want, &out)
		}
	}
}

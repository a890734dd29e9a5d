package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// lying is a store that is wrapped to do something other than it says.
type lying struct {
	store
	insertion func(ctx context.Context, s store) error
	addition  func(ctx context.Context, s store) error
	pragma    func(name, value string) string
}

func (l lying) insert(ctx context.Context, value float64, hold time.Duration) error {
	if l.insertion == nil {
		return l.store.insert(ctx, value, hold)
	}
	return l.insertion(ctx, l.store)
}

func (l lying) increment(ctx context.Context, id int64) error {
	if l.addition == nil {
		return l.store.increment(ctx, id)
	}
	return l.addition(ctx, l.store)
}

func (l lying) ask(ctx context.Context, name string) (string, error) {
	value, err := l.store.ask(ctx, name)
	if err == nil && l.pragma != nil {
		value = l.pragma(name, value)
	}
	return value, err
}

// as is thole with the lies of l.
func (l lying) as() peer {
	return peer{name: "lying", open: func(ctx context.Context, path string, s synchronous) (store, error) {
		honest, err := openThole(ctx, path, s)
		l.store = honest
		return l, err
	}}
}

func brief(tb testing.TB, name string, s synchronous) heat {
	tb.Helper()
	var w []workload
	if err := pick(&w, workloads, name); err != nil {
		tb.Fatal(err)
	}
	h := heat{workload: w[0], goroutines: 2, synchronous: s, duration: 20 * time.Millisecond, dir: tb.TempDir()}
	if h.alone {
		h.goroutines = 1
	}
	return h
}

// What a peer is told, and all work on it; run compares the books with the file.
func TestPeers(t *testing.T) {
	t.Parallel()
	for _, p := range peers {
		for _, w := range workloads {
			for _, s := range []synchronous{"full", "normal"} {
				t.Run(p.name+"/"+w.name+"/"+s.String(), func(t *testing.T) {
					t.Parallel()
					got, err := brief(t, w.name, s).run(t.Context(), p)
					if err != nil {
						t.Fatal(err)
					}
					for _, r := range got {
						if r.failures > 0 {
							t.Errorf("%d failures, for one: %v", r.failures, r.failure)
						}
						if r.max == 0 {
							t.Errorf("got %+v, want that something was done", r)
						}
					}
				})
			}
		}
	}
}

func TestLiesAreFound(t *testing.T) {
	t.Parallel()
	nothing := func(context.Context, store) error { return nil }
	failed := errors.New("failed")
	for name, test := range map[string]struct {
		workload string
		lying    lying
		want     string
	}{
		"a row that is not there": {"insert", lying{insertion: nothing}, "rows in the file"},
		"a row of a session that failed": {"insert", lying{insertion: func(ctx context.Context, s store) error {
			return errors.Join(s.insert(ctx, 1, 0), failed)
		}}, "rows in the file"},
		"a row too many": {"mixed", lying{insertion: func(ctx context.Context, s store) error {
			return errors.Join(s.insert(ctx, 1, 0), s.insert(ctx, 1, 0))
		}}, "rows in the file"},
		"an update that was lost": {"increment", lying{addition: nothing}, "increments in the file"},
		"commits that don't reach the disk": {"insert", lying{pragma: func(name, value string) string {
			return strings.TrimSuffix(value, map[string]string{"synchronous": "2"}[name])
		}}, "synchronous is"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := brief(t, test.workload, "full").run(t.Context(), test.lying.as())
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestFailuresAreCounted(t *testing.T) {
	t.Parallel()
	failed := errors.New("failed")
	failing := lying{insertion: func(context.Context, store) error { return failed }}.as()
	h := brief(t, "insert", "full")
	both := []peer{peers[0], failing}
	rounds, err := compete(t.Context(), both, 2, h.run)
	if err != nil {
		t.Fatal(err)
	}
	got := rounds[0][1][0]
	if got.failures == 0 || !errors.Is(got.failure, failed) || got.rate != 0 {
		t.Errorf("got %+v, want failures and nothing else", got)
	}
	var out bytes.Buffer
	if err := report(&out, h.comparison(both), rounds); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "lying failed, for one: failed") {
		t.Errorf("got %s, want the failure", &out)
	}
}

func TestLoadEndsWhatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		never := make(chan struct{})
		defer close(never)
		stuck := crew{size: 2, do: func(context.Context) error { <-never; return nil }}
		if _, err := load(t.Context(), []crew{stuck}, time.Second, spent); !errors.Is(err, errHung) {
			t.Errorf("got %v, want %v", err, errHung)
		}
	})
}

// A goroutine that doesn't get its turn is seen, and so is what ends too late.
func TestSummary(t *testing.T) {
	t.Parallel()
	ms := time.Millisecond
	got, done := summary([]shift{
		{done: 3, took: []time.Duration{1 * ms, 2 * ms, 3 * ms}},
		{done: 1, took: []time.Duration{4 * ms, 90 * ms}, failures: 2},
	}, 2*time.Second)
	want := result{rate: 2, p50: 3 * ms, p99: 90 * ms, max: 90 * ms, fairness: 0.5, failures: 2}
	if got != want || done != 4 {
		t.Errorf("got %+v of %d, want %+v of 4", got, done, want)
	}
}

func TestRatiosAreOfOneRound(t *testing.T) {
	t.Parallel()
	first := []result{{rate: 10}, {rate: 100}, {rate: 40}}
	other := []result{{rate: 5}, {rate: 100}, {rate: 10}}
	if got, want := line(other, first), "1.00\t2.00\t4.00\t10\t"; !strings.HasPrefix(got, want) {
		t.Errorf("got %q, want %q first", got, want)
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	got, err := parse([]string{"-short", "-rounds", "5", "-contenders", "mattn,thole", "-workloads", "read,bulk,slow", "sqlite"}, io.Discard)
	if err != nil || list(got) != "sqlite" {
		t.Errorf("got %s and %v, want sqlite", list(got), err)
	}
	if got, err = parse(nil, io.Discard); err != nil || list(got) != "InsertAll on SQLite,InsertAll on PostgreSQL" {
		t.Errorf("got %s and %v, want the races of InsertAll", list(got), err)
	}
}

func TestShorten(t *testing.T) {
	t.Parallel()
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	rounds, rows, synchronous := flags.Int("rounds", 7, ""), flags.Int("rows", 7, ""), flags.String("synchronous", "", "")
	if err := flags.Parse([]string{"-rounds", "5"}); err != nil {
		t.Fatal(err)
	}
	shorten(flags)
	if *rounds != 5 || *rows != 10_000 || *synchronous != "full" {
		t.Errorf("got %d, %d, %q, want 5, which was given, and what is short", *rounds, *rows, *synchronous)
	}
}

func TestHeats(t *testing.T) {
	t.Parallel()
	r := sqliteRace{goroutines: []int{1, 64}, synchronous: []synchronous{"full"}}
	if err := pick(&r.workloads, workloads, "read,bulk,slow"); err != nil {
		t.Fatal(err)
	}
	got := []string{}
	for _, h := range r.heats() {
		got = append(got, h.String())
	}
	want := "read, goroutines=1; read, goroutines=64; bulk, goroutines=1, synchronous=full; slow, goroutines=64, synchronous=full"
	if strings.Join(got, "; ") != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"nonesuch"},
		{"-workloads", "w1", "sqlite"},
		{"-workloads", "insert", "postgres"},
		{"-workloads", "w1", "dbtest"},
		{"-goroutines", "0", "sqlite"},
		{"-goroutines", "x", "postgres"},
		{"-synchronous", "off", "sqlite"},
		{"-contenders", "thole,", "sqlite"},
		{"-contenders", "mattn", "postgres"},
		{"-contenders", "pgx", "dbtest"},
		{"-rounds", "0"},
		{"-duration", "x"},
	} {
		if _, err := parse(args, io.Discard); err == nil {
			t.Errorf("%q was taken", args)
		}
	}
	if _, err := parse([]string{"-help"}, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("got %v, want %v", err, flag.ErrHelp)
	}
}

// The whole race leaves nothing behind.
func TestRaceSessions(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	races, err := parse([]string{
		"-rounds", "2", "-duration", "10ms", "-dir", dir, "-goroutines", "2", "-workloads", "mixed", "-contenders", "thole,single", "sqlite",
	}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := run(t.Context(), &out, races); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "mixed, goroutines=2, synchronous=normal") {
		t.Errorf("got %s", &out)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) > 0 {
		t.Errorf("left %q", left)
	}
}

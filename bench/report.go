package main

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"
)

// introduce prints what the figures depend on.
func introduce(out io.Writer, o options, dir string) error {
	took, err := syncTime(dir)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Sessions on SQLite: %s on %s/%s, %d CPUs, an fsync of 4 KB takes %s ms\n",
		runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0), milliseconds(took))
	for _, p := range o.peers {
		fmt.Fprintf(out, "  %-12s %s\n", p.name, p.how)
	}
	fmt.Fprintf(out, "ratio: how many times the rate of %s is the other's, round by round; times in ms;\n", o.peers[0])
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

func (h heat) String() string {
	commits := ", synchronous=" + h.synchronous.String()
	if h.reads {
		commits = ""
	}
	return fmt.Sprintf("%s, goroutines=%d%s", h.name, h.goroutines, commits)
}

// report prints a table of a heat. Its rounds are those of race.
func report(out io.Writer, h heat, peers []peer, rounds [][][]result) error {
	fmt.Fprintf(out, "\n%s: %s; %d rounds of %s\n", h, h.about, len(rounds), h.duration)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	for crew := range rounds[0][0] {
		name := h.crews(&desk{}, h.goroutines)[crew].name
		fmt.Fprintf(table, "%s\tratio min\tmedian\tmax\tper s\tp50\tp99\tlongest\tfairness\tfailures\tCPU\tallocs\t\n", name)
		for at, p := range peers {
			fmt.Fprintf(table, "%s\t%s\n", p.name, line(of(rounds, at, crew), of(rounds, 0, crew)))
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	confess(out, peers, rounds)
	return nil
}

// of is what a peer's crew did in each round.
func of(rounds [][][]result, peer, crew int) []result {
	all := make([]result, len(rounds))
	for i, round := range rounds {
		all[i] = round[peer][crew]
	}
	return all
}

// line is the row of a table for what one did, compared with what the first did
// in the same rounds.
func line(one, first []result) string {
	ratios, failures := make([]float64, len(one)), 0
	for i := range one {
		ratios[i] = first[i].rate / one[i].rate
		failures += one[i].failures
	}
	longest := slices.Max(each(one, func(r result) time.Duration { return r.max }))
	return fmt.Sprintf("%s\t%s\t%s\t%.0f\t%s\t%s\t%s\t%.2f\t%d\t%s\t%.0f\t",
		ratio(slices.Min(ratios)), ratio(median(ratios)), ratio(slices.Max(ratios)),
		median(each(one, func(r result) float64 { return r.rate })),
		milliseconds(median(each(one, func(r result) time.Duration { return r.p50 }))),
		milliseconds(median(each(one, func(r result) time.Duration { return r.p99 }))),
		milliseconds(longest),
		median(each(one, func(r result) float64 { return r.fairness })),
		failures,
		milliseconds(median(each(one, func(r result) time.Duration { return r.costs.cpu }))),
		median(each(one, func(r result) float64 { return r.costs.allocs })))
}

// confess prints an example of each peer's failures.
func confess(out io.Writer, peers []peer, rounds [][][]result) {
	for at, p := range peers {
		for crew := range rounds[0][at] {
			if i := slices.IndexFunc(rounds, func(round [][]result) bool { return round[at][crew].failure != nil }); i >= 0 {
				fmt.Fprintf(out, "  %s failed, for one: %v\n", p.name, rounds[i][at][crew].failure)
			}
		}
	}
}

func each[T any](all []result, field func(result) T) []T {
	fields := make([]T, len(all))
	for i, r := range all {
		fields[i] = field(r)
	}
	return fields
}

func median[T cmp.Ordered](all []T) T {
	return slices.Sorted(slices.Values(all))[len(all)/2]
}

// ratio is a ratio as text: where both did nothing there is none.
func ratio(r float64) string {
	if math.IsNaN(r) {
		return "-"
	}
	return fmt.Sprintf("%.2f", r)
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.3f", float64(d)/float64(time.Millisecond))
}

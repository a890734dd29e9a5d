package main

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"
)

// machine is what the figures depend on everywhere.
func machine() string {
	return fmt.Sprintf("%s on %s/%s, %d CPUs", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0))
}

// comparison is what a table tells.
type comparison struct {
	title    string
	duration time.Duration
	crews    []string
	peers    []string // the others are compared with the first
	server   bool     // its CPU is known
}

// report prints a table of the rounds that compete returned.
func report(out io.Writer, t comparison, rounds [][][]result) error {
	fmt.Fprintf(out, "\n%s; %d rounds of %s\n", t.title, len(rounds), t.duration)
	columns := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	for crew, name := range t.crews {
		fmt.Fprintf(columns, "%s\tratio min\tmedian\tmax\tper s\tp50\tp99\tlongest\tfairness\tfailures\tCPU\tallocs\t%s\n",
			name, either(t.server, "server CPU\t", ""))
		for at, peer := range t.peers {
			one := of(rounds, at, crew)
			fmt.Fprintf(columns, "%s\t%s%s\n", peer, line(one, of(rounds, 0, crew)), either(t.server, serverCPU(one), ""))
		}
	}
	if err := columns.Flush(); err != nil {
		return err
	}
	confess(out, t.peers, rounds)
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
	failures := 0
	for _, r := range one {
		failures += r.failures
	}
	longest := slices.Max(each(one, func(r result) time.Duration { return r.max }))
	return fmt.Sprintf("%s\t%.0f\t%s\t%s\t%s\t%.2f\t%d\t%s\t%.0f\t",
		spread(ratios(one, first, timeEach), "\t"),
		median(each(one, func(r result) float64 { return r.rate })),
		milliseconds(median(each(one, func(r result) time.Duration { return r.p50 }))),
		milliseconds(median(each(one, func(r result) time.Duration { return r.p99 }))),
		milliseconds(longest),
		median(each(one, func(r result) float64 { return r.fairness })),
		failures,
		milliseconds(median(each(one, func(r result) time.Duration { return r.costs.cpu }))),
		median(each(one, func(r result) float64 { return r.costs.allocs })))
}

func serverCPU(one []result) string {
	return milliseconds(median(each(one, func(r result) time.Duration { return r.costs.server }))) + "\t"
}

// timeEach is the seconds for one of what succeeded, all goroutines together.
func timeEach(r result) float64 { return 1 / r.rate }

// ratios are one's figures over those of another in the same round.
func ratios(one, other []result, figure func(result) float64) []float64 {
	all := make([]float64, len(one))
	for i := range one {
		all[i] = figure(one[i]) / figure(other[i])
	}
	return all
}

// spread is the least of all, the median and the most.
func spread(all []float64, between string) string {
	return ratio(slices.Min(all)) + between + ratio(median(all)) + between + ratio(slices.Max(all))
}

// confess prints an example of each peer's failures.
func confess(out io.Writer, peers []string, rounds [][][]result) {
	for at, peer := range peers {
		for crew := range rounds[0][at] {
			if i := slices.IndexFunc(rounds, func(round [][]result) bool { return round[at][crew].failure != nil }); i >= 0 {
				fmt.Fprintf(out, "  %s failed, for one: %v\n", peer, rounds[i][at][crew].failure)
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

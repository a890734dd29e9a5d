package main

import (
	"fmt"
	"slices"
)

// gate is a promise of thole's about a figure over another's in the same round.
type gate struct {
	workload string
	way      string
	figure   func(result) float64
	what     string
	against  string
	least    bool // the limit is the least that the ratio may be, and not the most
	limit    float64
}

var gates = []gate{
	{"w1", far, timeEach, "time", "pgx", false, 0.80},
	{"r1", far, timeEach, "time", "pgx", false, 0.40},
	{"w1", loopback, cpuEach, "CPU of client and server", "sqlx", false, 0.9},
	{"hot", loopback, func(r result) float64 { return r.rate }, "sessions a second", "pgx", true, 1.5},
}

func cpuEach(r result) float64 { return (r.costs.cpu + r.costs.server).Seconds() }

// promises tells of each gate that the heat shows whether thole is through it,
// and of its failures, which must be 0.
func (h pgHeat) promises(peers []string, rounds [][][]result) []string {
	thole := slices.Index(peers, "thole")
	if thole < 0 {
		return nil
	}
	var lines []string
	for _, g := range gates {
		other := slices.Index(peers, g.against)
		if g.workload == h.name && g.way == h.way.name && other >= 0 {
			lines = append(lines, fmt.Sprintf("%s: %s", h, g.judge(of(rounds, thole, 0), of(rounds, other, 0))))
		}
	}
	failures := 0
	for _, r := range of(rounds, thole, 0) {
		failures += r.failures
	}
	if failures > 0 || h.way.name == pooler {
		lines = append(lines, fmt.Sprintf("%s: %d failures: %s", h, failures, verdict(failures == 0)))
	}
	return lines
}

func (g gate) judge(thole, other []result) string {
	all := ratios(thole, other, g.figure)
	passed := median(all) <= g.limit
	if g.least {
		passed = median(all) >= g.limit
	}
	return fmt.Sprintf("%s over that of %s is %s, promised %s %.2f: %s",
		g.what, g.against, spread(all, " "), either(g.least, "≥", "≤"), g.limit, verdict(passed))
}

func verdict(passed bool) string { return either(passed, "kept", "NOT KEPT") }

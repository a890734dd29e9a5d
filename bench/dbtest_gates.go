package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// budget is a promise of dbtest's about the time of a test.
type budget struct {
	lesson, peer string
	most         time.Duration
}

var budgets = []budget{
	{"sqlite-20", "sandbox", 400 * time.Microsecond},
	{"sqlite-20", "session", 400 * time.Microsecond},
	{"postgres-20", "sandbox", 500 * time.Microsecond},
	{"postgres-20", "session", 500 * time.Microsecond},
	{"first-20", "kept", 300 * time.Millisecond},
}

// promises tells of each budget that the lesson shows whether it is kept.
func (l lesson) promises(peers []string, rounds [][][]result) []string {
	var lines []string
	for _, b := range budgets {
		if at := slices.Index(peers, b.peer); b.lesson == l.name && at >= 0 {
			lines = append(lines, fmt.Sprintf("%s, %s: %s", l, b.peer, b.judge(of(rounds, at, 0))))
		}
	}
	return lines
}

// judge looks at the median test of each round.
func (b budget) judge(one []result) string {
	failures := 0
	for _, r := range one {
		failures += r.failures
	}
	took := each(one, func(r result) time.Duration { return r.p50 })
	return fmt.Sprintf("a test takes %s %s %s ms, promised ≤ %s, with %d failures: %s",
		milliseconds(slices.Min(took)), milliseconds(median(took)), milliseconds(slices.Max(took)),
		milliseconds(b.most), failures, verdict(failures == 0 && median(took) <= b.most))
}

// promiseOfIdleness tells whether a process that doesn't use dbtest pays for it.
func promiseOfIdleness(ctx context.Context) (string, error) {
	idle, err := watchIdle(ctx)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("a process that never calls dbtest starts %d goroutines, %d processes and %d connections, promised 0: %s",
		idle.goroutines, idle.processes, idle.connections, verdict(idle == idleness{})), nil
}

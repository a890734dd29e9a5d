package thole

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/tholedb/thole/internal/engine"
)

const (
	defaultAttempts = 5
	shortestPause   = 5 * time.Millisecond
	longestPause    = 500 * time.Millisecond
)

// attempts is how often fn may run when an attempt failed with err.
func (o SessionOptions) attempts(err error) int {
	switch cure := retryOf(err); {
	case cure == engine.RetryNever || cure == engine.RetryForbidden:
		return 1
	case o.MaxAttempts > 0:
		return o.MaxAttempts
	case cure == engine.RetryUnasked || o.Isolation >= sql.LevelRepeatableRead:
		return defaultAttempts
	}
	return 1
}

// retryOf looks through all that err wraps, for users wrap and join errors. A
// ctx that is done makes every attempt useless.
func retryOf(err error) engine.Retry {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return engine.RetryForbidden
	}
	cure := engine.RetryNever
	walk(err, func(err error) {
		if e, ok := err.(*engine.Error); ok { //nolint:errorlint // walk goes through the tree
			cure = max(cure, e.Retry)
		}
	})
	return cure
}

// walk visits err and everything that it wraps.
func walk(err error, visit func(error)) {
	if err == nil {
		return
	}
	visit(err)
	switch e := err.(type) { //nolint:errorlint // the two ways of wrapping
	case interface{ Unwrap() error }:
		walk(e.Unwrap(), visit)
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			walk(err, visit)
		}
	}
}

// pause waits before the next attempt, for a time at random up to twice as long
// each time ("full jitter"), so that those who met do not meet again. It is
// false, at once, when ctx would end before.
func pause(ctx context.Context, attempt int) bool {
	longest := min(longestPause, shortestPause<<min(attempt, 10))
	wait := shortestPause + rand.N(longest-shortestPause+1)
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < wait {
		return false
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// gaveUp adds to the last failure how many there were.
func gaveUp(err error, attempts int, took time.Duration) error {
	if attempts == 1 {
		return err
	}
	return fmt.Errorf("thole: gave up after %d attempts in %s: %w", attempts, took.Round(time.Millisecond), err)
}

package probe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/tholedb/thole/internal/engine"
)

// patience is how long a session waits for its turn where its options don't say.
const patience = 5 * time.Second

// turns lets one session run at a time, in the order in which they come. A nil one
// lets all.
type turns struct {
	free   chan struct{} // has something in it while nobody has the turn
	holder atomic.Pointer[engine.Info]
}

func newTurns() *turns {
	t := &turns{free: make(chan struct{}, 1)}
	t.free <- struct{}{}
	return t
}

// take waits for the turn. A session further up on the caller's own stack that has
// it would never give it back: that fails at once.
func (t *turns) take(ctx context.Context, info *engine.Info, wait time.Duration) error {
	if t == nil {
		return nil
	}
	select {
	case <-t.free:
		t.holder.Store(info)
		return nil
	default:
	}
	if holder := t.holder.Load(); holder != nil && holder.Caller != info.Caller && holder.Caller.Encloses() {
		return inside(holder, info)
	}
	wait = cmp.Or(wait, patience)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-t.free:
		t.holder.Store(info)
		return nil
	case <-ctx.Done():
		return &engine.Error{Kind: kindOf(ctx), Message: t.doing(), Err: errors.Join(ctx.Err(), engine.Cause(ctx))}
	case <-timer.C:
		return &engine.Error{
			Kind:    engine.ErrLocked,
			Message: fmt.Sprintf("%s: gave up after %s; what waits for the session that it is inside of waits in vain: use its Tx", t.doing(), wait),
			Aborts:  engine.AbortsSession,
		}
	}
}

// pass ends the turn.
func (t *turns) pass() {
	if t == nil {
		return
	}
	t.holder.Store(nil)
	t.free <- struct{}{}
}

// doing says for whom somebody waits.
func (t *turns) doing() string {
	what := "somebody has just had it"
	if holder := t.holder.Load(); holder != nil {
		what = holder.String() + " holds it"
	}
	return "wait for the turn, as sessions of a sandbox take turns, " + what
}

// inside is the error of what uses the DB inside a session, past it.
func inside(holder, info *engine.Info) error {
	return &engine.Error{
		Kind: engine.ErrNested,
		Message: fmt.Sprintf("use the database at %s: it is inside the %s, and past it: in production it would not see what that has done, "+
			"and on SQLite wait for it in vain; use its Tx, or the ctx of Tx.Context", info.Caller, holder),
		Aborts: engine.AbortsSession,
	}
}

func kindOf(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return engine.ErrTimeout
	}
	return nil
}

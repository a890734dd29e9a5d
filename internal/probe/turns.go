package probe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tholedb/thole/internal/engine"
)

// patience is how long a session waits for its turn, but for SQLite's LockTimeout.
const patience = 10 * time.Second

// turns lets one session run at a time, in the order in which they come. A nil one
// lets all.
type turns struct {
	free   chan struct{} // has something in it while nobody has the turn
	holder atomic.Pointer[holder]
}

// holder is who has the turn.
type holder struct {
	*engine.Info
	goroutine string
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
	mine := &holder{info, goroutine()}
	select {
	case <-t.free:
		t.holder.Store(mine)
		return nil
	default:
	}
	// The same place can be on the stack of a session that has ended, whose hook runs.
	at := t.holder.Load()
	if at != nil && at.goroutine == mine.goroutine && at.Caller != info.Caller && at.Caller.Encloses() {
		return inside(at.Info, info)
	}
	wait = cmp.Or(wait, patience)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-t.free:
		t.holder.Store(mine)
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
	if at := t.holder.Load(); at != nil {
		what = at.String() + " holds it"
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

// goroutine is what the running goroutine is called in stacks: "goroutine 7".
func goroutine() string {
	var head [32]byte
	name, _, _ := strings.Cut(string(head[:runtime.Stack(head[:], false)]), " [")
	return name
}

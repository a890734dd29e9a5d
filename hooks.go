package thole

import (
	"context"

	"github.com/tholedb/thole/internal/engine"
)

// hooks are what a session runs around its end.
type hooks struct {
	beforeCommit []func(ctx context.Context) error
	onCommit     []func(ctx context.Context)
	onRollback   []func(ctx context.Context, cause error)
}

// OnCommit has f run once the outermost session has committed, after those that
// were registered before; never, when the session, or the nested one that
// registered it, is rolled back or its outcome is unknown. f runs on the
// goroutine of WithSession and before it returns, when the connection is back:
// f may open sessions, and its ctx has the values of the outermost session's,
// carries no session and is not cancelled with it. What f does can't change that
// the session is committed: it deals with its own errors, and a panic in it leaves
// the other hooks to run and goes on to the caller of WithSession.
//
// On the Tx of a nested session that has ended, f is registered with the one
// outside. After a commit f runs at once.
func (tx *Tx) OnCommit(f func(ctx context.Context)) {
	if tx.register(func(h *hooks) { h.onCommit = append(h.onCommit, f) }) {
		return
	}
	if tx.hasCommitted() {
		f(tx.hookContext())
	}
}

// BeforeCommit has f run when fn has returned nil, before COMMIT, inside the
// outermost session: its ctx is the [Tx.Context] of that. An error rolls the
// session back and is returned. f may register more hooks.
func (tx *Tx) BeforeCommit(f func(ctx context.Context) error) {
	tx.register(func(h *hooks) { h.beforeCommit = append(h.beforeCommit, f) })
}

// OnRollback has f run when what the session did is rolled back, with the error
// that was the cause, once the outermost session has ended: the place to undo what
// was done outside the database. It runs for each attempt that is rolled back, and
// not when the outcome is unknown. ctx and panics are as with [Tx.OnCommit].
func (tx *Tx) OnRollback(f func(ctx context.Context, cause error)) {
	tx.register(func(h *hooks) { h.onRollback = append(h.onRollback, f) })
}

// register adds to the hooks of the innermost level that is open and keeps what
// tx did. It is false when there is none.
func (tx *Tx) register(add func(*hooks)) bool {
	tx.session.mu.Lock()
	defer tx.session.mu.Unlock()
	for level := tx; level != nil && !level.undone; level = level.parent {
		if !level.decided {
			add(&level.hooks)
			return true
		}
	}
	return false
}

func (tx *Tx) hasCommitted() bool {
	tx.session.mu.Lock()
	defer tx.session.mu.Unlock()
	for level := tx; level != nil; level = level.parent {
		if level.undone {
			return false
		}
	}
	return tx.session.committed
}

// runBeforeCommit runs the hooks that may still refuse, and those that they
// register.
func (tx *Tx) runBeforeCommit() error {
	for {
		tx.session.mu.Lock()
		waiting := tx.hooks.beforeCommit
		tx.hooks.beforeCommit = nil
		tx.session.mu.Unlock()
		if len(waiting) == 0 {
			return nil
		}
		for _, f := range waiting {
			if err := f(tx.ctx); err != nil {
				return err
			}
		}
	}
}

// hookContext is the ctx of what runs after the end.
func (tx *Tx) hookContext() context.Context {
	return context.WithValue(context.WithoutCancel(tx.ctx), sessionKey{tx.db}, (*Tx)(nil))
}

func (h *hooks) add(inner hooks) {
	h.beforeCommit = append(h.beforeCommit, inner.beforeCommit...)
	h.onCommit = append(h.onCommit, inner.onCommit...)
	h.onRollback = append(h.onRollback, inner.onRollback...)
}

// commitHooks are the hooks to run now that the session has committed.
func (tx *Tx) commitHooks() []func() {
	if len(tx.hooks.onCommit) == 0 {
		return nil
	}
	ctx := tx.hookContext()
	watcher, watched := tx.session.inner.(engine.HookWatcher)
	bound := make([]func(), 0, len(tx.hooks.onCommit))
	for _, f := range tx.hooks.onCommit {
		bound = append(bound, func() {
			if watched {
				watcher.HookRuns(f)
			}
			f(ctx)
		})
	}
	return bound
}

// rollbackHooks are the hooks to run, with the ctx of outer, once the outermost
// session has ended, because what the level did is rolled back.
func (tx *Tx) rollbackHooks(outer *Tx, cause error) []func() {
	if len(tx.hooks.onRollback) == 0 {
		return nil
	}
	ctx := outer.hookContext()
	bound := make([]func(), 0, len(tx.hooks.onRollback))
	for _, f := range tx.hooks.onRollback {
		bound = append(bound, func() { f(ctx, cause) })
	}
	return bound
}

// run calls each function in order, the rest also when one of them panics.
func run(functions []func()) {
	if len(functions) == 0 {
		return
	}
	defer run(functions[1:])
	functions[0]()
}

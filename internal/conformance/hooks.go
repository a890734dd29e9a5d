package conformance

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tholedb/thole"
)

// hooks is section H: what runs around the end of a session.
var hooks = []sentence{
	{"H1", clauses(
		sentence{"order", hooksInOrder},
		sentence{"after COMMIT", hooksAfterCommit},
		sentence{"COMMIT fails", noHooksWithoutCommit},
	)},
	{"H2", clauses(
		sentence{"dropped", droppedHooks},
		sentence{"retained", hooksOfRetainedTx},
		sentence{"late", hooksAfterEnd},
	)},
	{"H3", clauses(
		sentence{"panic", hookPanics},
		sentence{"Goexit", hookExits},
		sentence{"failure", hookFails},
	)},
	{"H4", clauses(
		sentence{"commit", sessionInHook},
		sentence{"rollback", sessionInRollbackHook},
	)},
	{"H5", hookContexts},
	{"H6", clauses(
		sentence{"inside", beforeCommitIsInside},
		sentence{"veto", beforeCommitRefuses},
		sentence{"more", beforeCommitRegisters},
		sentence{"cause", rollbackHooksLearnCause},
		sentence{"nested cause", rollbackHooksOfNested},
	)},
	{"H7", unknownRunsNoHooks},
}

// record returns hooks that write down their name when they run.
func record(ran *[]string, name string) func(context.Context) {
	return func(context.Context) { *ran = append(*ran, name) }
}

// wantRunning checks which hooks ran, in order.
func wantRunning(t *testing.T, ran []string, want ...string) {
	t.Helper()
	if !slices.Equal(ran, want) {
		t.Errorf("hooks that ran: got %q, want %q", ran, want)
	}
}

func hooksInOrder(t *testing.T, w *world) {
	var ran []string
	err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
		tx.OnCommit(record(&ran, "first"))
		for _, opts := range []thole.SessionOptions{{}, join} {
			err := tx.WithSessionOptions(tx.Context(), opts, func(inner *thole.Tx) error {
				inner.OnCommit(record(&ran, "nested"))
				return inner.WithSession(inner.Context(), func(innermost *thole.Tx) error {
					innermost.OnCommit(record(&ran, "innermost"))
					return nil
				})
			})
			if err != nil {
				t.Error(err)
			}
			wantRunning(t, ran) // not before the outermost session has ended
		}
		tx.OnCommit(record(&ran, "last"))
		tx.OnCommit(record(&ran, "last"))
		return insert(tx.Context(), tx, 1)
	})
	if err != nil {
		t.Error(err)
	}
	want := []string{"first", "nested", "innermost", "nested", "innermost", "last", "last"}
	wantRunning(t, ran, want...)
	if err := w.WithSession(t.Context(), func(*thole.Tx) error { return nil }); err != nil {
		t.Error(err)
	}
	wantRunning(t, ran, want...) // once
}

// hooksAfterCommit holds COMMIT back inside the database. A session that has
// read alone runs its hooks too.
func hooksAfterCommit(t *testing.T, w *world) {
	on, g := w.gate(t)
	g.close(t, on)
	var ran atomic.Int32
	ended := make(chan error, 1)
	go func() {
		ended <- on.WithSession(t.Context(), func(tx *thole.Tx) error {
			return tx.WithSession(tx.Context(), func(inner *thole.Tx) error {
				inner.OnCommit(func(context.Context) { on.wantItems(t, 1); ran.Add(1) })
				return insert(inner.Context(), inner, 1)
			})
		})
	}()
	g.wait(t)
	if ran.Load() > 0 {
		t.Error("the hook ran before COMMIT had succeeded")
	}
	g.open()
	if err := receive(t, ended); err != nil || ran.Load() != 1 {
		t.Errorf("got error %v, and the hook ran %d times, want nil and once", err, ran.Load())
	}
	var hooks ledger
	err := on.WithSessionOptions(t.Context(), thole.SessionOptions{ReadOnly: true}, func(tx *thole.Tx) error {
		hooks.register(tx)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	hooks.want(t, "before", "commit")
}

// noHooksWithoutCommit ends sessions in all the ways that are no commit.
func noHooksWithoutCommit(t *testing.T, w *world) {
	for name, fn := range map[string]func(tx *thole.Tx, cancel func()) error{
		"error": func(*thole.Tx, func()) error { return errFn },
		"panic": func(*thole.Tx, func()) error { panic(errFn) },
		"done":  func(_ *thole.Tx, cancel func()) error { cancel(); return nil },
		"COMMIT": func(tx *thole.Tx, _ func()) error {
			_, err := tx.ExecContext(tx.Context(), "insert into part (id, item) values (1, 99)")
			return err
		},
	} {
		var hooks ledger
		ctx, cancel := context.WithCancel(t.Context())
		recovered(func() {
			_ = w.WithSession(ctx, func(tx *thole.Tx) error {
				return tx.WithSession(ctx, func(inner *thole.Tx) error {
					inner.OnCommit(record(&hooks.ran, "commit"))
					inner.OnRollback(func(context.Context, error) { hooks.ran = append(hooks.ran, "rollback") })
					return fn(inner, cancel)
				})
			})
		})
		cancel()
		if !slices.Equal(hooks.ran, []string{"rollback"}) {
			t.Errorf("%s: hooks that ran: got %q, want rollback", name, hooks.ran)
		}
	}
}

// droppedHooks are those of a nested session that was rolled back, and of those
// inside it, though they ended well.
func droppedHooks(t *testing.T, w *world) {
	var kept, dropped, inside ledger
	err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
		kept.register(tx)
		err := tx.WithSession(tx.Context(), func(inner *thole.Tx) error {
			dropped.register(inner)
			err := inner.WithSession(inner.Context(), func(innermost *thole.Tx) error {
				inside.register(innermost)
				return nil
			})
			return errors.Join(err, errFn)
		})
		wantIs(t, err, errFn)
		for _, hooks := range []*ledger{&kept, &dropped, &inside} {
			hooks.want(t) // the connection is not back
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	kept.want(t, "before", "commit")
	for _, hooks := range []*ledger{&dropped, &inside} {
		hooks.want(t, "rollback")
		wantIs(t, hooks.cause, errFn)
	}
}

// hooksOfRetainedTx registers on nested sessions that have ended.
func hooksOfRetainedTx(t *testing.T, w *world) {
	nest := func(outer *thole.Tx, end error) (ended *thole.Tx) {
		err := outer.WithSession(outer.Context(), func(inner *thole.Tx) error { ended = inner; return end })
		if !errors.Is(err, end) {
			t.Error(err)
		}
		return ended
	}
	for _, end := range []error{nil, errFn} {
		var well, badly, deep, around ledger
		err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
			well.register(nest(tx, nil))
			badly.register(nest(tx, errFn))
			var released *thole.Tx
			err := tx.WithSession(tx.Context(), func(inner *thole.Tx) error {
				released = nest(inner, nil)
				deep.register(released) // belongs to inner now
				return errFn
			})
			wantIs(t, err, errFn)
			around.register(released) // is undone with the session around it
			return end
		})
		wantIs(t, err, end)
		if end == nil {
			well.want(t, "before", "commit")
		} else {
			well.want(t, "rollback")
		}
		badly.want(t)
		deep.want(t, "rollback")
		around.want(t)
	}
}

// hooksAfterEnd registers when the outermost session has ended.
func hooksAfterEnd(t *testing.T, w *world) {
	for _, end := range []error{nil, errFn} {
		var kept, undone, outermost *thole.Tx
		err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
			outermost = tx
			_ = tx.WithSession(tx.Context(), func(inner *thole.Tx) error { kept = inner; return nil })
			_ = tx.WithSession(tx.Context(), func(inner *thole.Tx) error { undone = inner; return errFn })
			return end
		})
		wantIs(t, err, end)
		var want []string
		if end == nil {
			want = []string{"commit"} // at once
		}
		for _, tx := range []*thole.Tx{outermost, kept} {
			var late ledger
			late.register(tx)
			late.want(t, want...)
		}
		var late ledger
		late.register(undone)
		late.want(t)
	}
}

// A hook returns nothing that could change the result.
var (
	_ func(*thole.Tx, func(context.Context))        = (*thole.Tx).OnCommit
	_ func(*thole.Tx, func(context.Context, error)) = (*thole.Tx).OnRollback
)

func hookPanics(t *testing.T, w *world) {
	on := w.reopen(t, single)
	id := on.connection(t)
	for _, end := range []error{nil, errFn} {
		var ran []string
		v, _ := recovered(func() {
			err := on.WithSession(t.Context(), func(tx *thole.Tx) error {
				for _, name := range []string{"first", "second", "third"} {
					tx.OnCommit(record(&ran, name))
					tx.OnRollback(func(context.Context, error) { ran = append(ran, name) })
					if name == "first" {
						tx.OnCommit(func(context.Context) { panic(errCause) })
						tx.OnRollback(func(context.Context, error) { panic(errCause) })
					}
				}
				return errors.Join(insert(tx.Context(), tx, 1), end)
			})
			t.Errorf("WithSession returned (error %v), want the hook's panic", err)
		})
		if v != errCause {
			t.Errorf("got the panic %v, want the hook's", v)
		}
		wantRunning(t, ran, "first", "second", "third")
		if end == nil {
			on.wantItems(t, 1)
			on.exec(t, "delete from item")
		}
	}
	on.wantItems(t)
	if now := on.connection(t); now != id {
		t.Errorf("the session has connection %s, want %s as before", now, id)
	}
}

// hookExits leaves a hook as t.FailNow does.
func hookExits(t *testing.T, w *world) {
	var hooks ledger
	var left sync.WaitGroup
	left.Go(func() {
		err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
			tx.OnCommit(func(context.Context) { runtime.Goexit() })
			hooks.register(tx)
			return insert(tx.Context(), tx, 1)
		})
		t.Errorf("WithSession returned (error %v), want its goroutine to have ended", err)
	})
	left.Wait()
	hooks.want(t, "before", "commit")
	w.wantItems(t, 1)
}

// hookFails has a session of a hook fail, which is the hook's affair.
func hookFails(t *testing.T, w *world) {
	var inHook error
	var hooks ledger
	err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
		tx.OnCommit(func(ctx context.Context) { inHook = insert(ctx, w, 1) })
		hooks.register(tx)
		return insert(tx.Context(), tx, 1)
	})
	if err != nil {
		t.Errorf("got error %v, want nil: the session is committed", err)
	}
	wantIs(t, inHook, thole.ErrUnique)
	wantOutcome(t, err, thole.Committed)
	hooks.want(t, "before", "commit")
	w.wantItems(t, 1)
}

// wantFresh opens sessions with the ctx of a hook while there is one connection:
// one that fails, and one that adds an item.
func wantFresh(t *testing.T, ctx context.Context, on *world, id int) {
	t.Helper()
	if thole.From(ctx, on.DB) != thole.Querier(on.DB) {
		t.Error("the ctx of the hook carries a session")
	}
	opts := thole.SessionOptions{Nested: thole.NestedForbidden}
	for _, end := range []error{errFn, nil} {
		err := on.WithSessionOptions(ctx, opts, func(tx *thole.Tx) error {
			return errors.Join(insert(tx.Context(), on, id), end)
		})
		if !errors.Is(err, end) {
			t.Errorf("session in a hook: got error %v, want %v", err, end)
		}
	}
	if on.value(t, "select count(*) from item where id = ?", id) != "1" {
		t.Error("the session in the hook is not committed when it has ended")
	}
}

func sessionInHook(t *testing.T, w *world) {
	on := w.reopen(t, single)
	id := on.connection(t)
	err := on.WithSession(t.Context(), func(tx *thole.Tx) error {
		tx.OnCommit(func(ctx context.Context) { wantFresh(t, ctx, on, 2) })
		err := tx.WithSession(tx.Context(), func(inner *thole.Tx) error {
			inner.OnCommit(func(ctx context.Context) { wantFresh(t, ctx, on, 3) })
			return nil
		})
		return errors.Join(err, insert(tx.Context(), tx, 1))
	})
	if err != nil {
		t.Error(err)
	}
	on.wantItems(t, 1, 2, 3)
	if now := on.connection(t); now != id {
		t.Errorf("the session has connection %s, want %s as before", now, id)
	}
}

func sessionInRollbackHook(t *testing.T, w *world) {
	on := w.reopen(t, single)
	for i, end := range []error{errFn, nil} {
		err := on.WithSession(t.Context(), func(tx *thole.Tx) error {
			if end != nil {
				tx.OnRollback(func(ctx context.Context, _ error) { wantFresh(t, ctx, on, 2) })
			}
			err := tx.WithSession(tx.Context(), func(inner *thole.Tx) error {
				inner.OnRollback(func(ctx context.Context, _ error) { wantFresh(t, ctx, on, 3+i) })
				return errFn
			})
			wantIs(t, err, errFn)
			return end
		})
		wantIs(t, err, end)
	}
	on.wantItems(t, 2, 3, 4)
}

// hookContexts ends the request's ctx where that does most harm.
func hookContexts(t *testing.T, w *world) {
	for _, nested := range []bool{false, true} {
		for _, commits := range []bool{true, false} {
			hooks := 0
			ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, "request"), patience)
			check := func(ctx context.Context) {
				hooks++
				cancel()
				_, limited := ctx.Deadline()
				if ctx.Err() != nil || ctx.Done() != nil || limited || ctx.Value(key{}) != "request" {
					t.Errorf("ctx of the hook: got %v with the error %v, want one with the values alone", ctx, ctx.Err())
				}
				if err := w.PingContext(ctx); err != nil {
					t.Error(err)
				}
			}
			register := func(tx *thole.Tx) error {
				tx.OnCommit(check)
				tx.OnCommit(check)
				tx.OnRollback(func(ctx context.Context, _ error) { check(ctx) })
				tx.OnRollback(func(ctx context.Context, _ error) { check(ctx) })
				return nil
			}
			err := w.WithSession(ctx, func(tx *thole.Tx) error {
				if nested {
					_ = tx.WithSession(tx.Context(), register)
				} else {
					_ = register(tx)
				}
				if !commits {
					cancel()
				}
				return nil
			})
			if (err == nil) != commits || hooks != 2 {
				t.Errorf("got error %v after %d hooks, want 2 of them", err, hooks)
			}
			cancel()
		}
	}
}

// beforeCommitIsInside writes in hooks of every level, by the Tx and by the DB
// with the hook's ctx.
func beforeCommitIsInside(t *testing.T, w *world) {
	err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
		tx.BeforeCommit(func(ctx context.Context) error {
			if thole.From(ctx, w.DB) != thole.Querier(tx) {
				t.Error("the ctx of the hook does not carry the session")
			}
			return insert(ctx, w, 2)
		})
		err := tx.WithSession(tx.Context(), func(inner *thole.Tx) error {
			inner.BeforeCommit(func(ctx context.Context) error {
				wantIs(t, insert(ctx, inner, 9), thole.ErrTxDone) // it runs when the outermost ends
				return errors.Join(insert(ctx, tx, 3), w.WithSession(ctx, func(tx *thole.Tx) error { return insert(ctx, tx, 4) }))
			})
			return nil
		})
		return errors.Join(err, insert(tx.Context(), tx, 1))
	})
	if err != nil {
		t.Error(err)
	}
	w.wantItems(t, 1, 2, 3, 4)
	err = w.WithSession(t.Context(), func(tx *thole.Tx) error {
		tx.BeforeCommit(func(ctx context.Context) error {
			_, err := tx.QueryContext(ctx, "select id from item") //nolint:rowserrcheck,sqlclosecheck // left open
			return err
		})
		return insert(tx.Context(), tx, 5)
	})
	wantIs(t, err, thole.ErrRowsOpen)
	w.wantItems(t, 1, 2, 3, 4)
}

func beforeCommitRefuses(t *testing.T, w *world) {
	for name, refuse := range map[string]func(context.Context) error{
		"error": func(context.Context) error { return errFn },
		"panic": func(context.Context) error { panic(errFn) },
	} {
		for _, nested := range []bool{false, true} {
			var hooks, after ledger
			var err error
			v, _ := recovered(func() {
				err = w.WithSession(t.Context(), func(tx *thole.Tx) error {
					register := func(tx *thole.Tx) error {
						hooks.register(tx)
						tx.BeforeCommit(refuse)
						after.register(tx)
						return insert(tx.Context(), tx, 1)
					}
					if nested {
						return tx.WithSession(tx.Context(), register)
					}
					return register(tx)
				})
			})
			if name == "panic" && v == errFn {
				err = errFn
			} else {
				wantIs(t, hooks.cause, errFn)
			}
			if err != errFn {
				t.Errorf("%s: got error %v and the panic %v, want the hook's, unchanged", name, err, v)
			}
			hooks.want(t, "before", "rollback")
			after.want(t, "rollback")
			w.wantItems(t)
		}
	}
}

func beforeCommitRegisters(t *testing.T, w *world) {
	for _, end := range []error{nil, errFn} {
		var ran []string
		err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
			tx.BeforeCommit(func(context.Context) error {
				ran = append(ran, "before")
				tx.OnCommit(record(&ran, "commit"))
				tx.OnRollback(func(context.Context, error) { ran = append(ran, "rollback") })
				tx.BeforeCommit(func(context.Context) error {
					ran = append(ran, "another")
					tx.BeforeCommit(func(context.Context) error { ran = append(ran, "last"); return end })
					return nil
				})
				return nil
			})
			tx.BeforeCommit(func(context.Context) error { ran = append(ran, "second"); return nil })
			return nil
		})
		wantIs(t, err, end)
		if end == nil {
			wantRunning(t, ran, "before", "second", "another", "last", "commit")
		} else {
			wantRunning(t, ran, "before", "second", "another", "last", "rollback")
		}
	}
}

// rollbackHooksLearnCause ends sessions in the ways there are. fn's own failures
// keep BeforeCommit from running.
func rollbackHooksLearnCause(t *testing.T, w *world) {
	for name, c := range map[string]struct {
		fn   func(tx *thole.Tx, cancel func()) error
		want error
		ran  []string
	}{
		"error": {func(*thole.Tx, func()) error { return errFn }, errFn, []string{"rollback"}},
		"panic": {func(*thole.Tx, func()) error { panic(errFn) }, nil, []string{"rollback"}},
		"done":  {func(_ *thole.Tx, cancel func()) error { cancel(); return nil }, errCause, []string{"before", "rollback"}},
		"statement": {func(tx *thole.Tx, _ func()) error {
			return errors.Join(insert(tx.Context(), tx, 1), insert(tx.Context(), tx, 1))
		}, thole.ErrUnique, []string{"rollback"}},
		"COMMIT": {func(tx *thole.Tx, _ func()) error {
			_, err := tx.ExecContext(tx.Context(), "insert into part (id, item) values (1, 99)")
			return err
		}, thole.ErrForeignKey, []string{"before", "rollback"}},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		var hooks ledger
		recovered(func() {
			_ = w.WithSession(ctx, func(tx *thole.Tx) error {
				hooks.register(tx)
				return c.fn(tx, func() { cancel(errCause) })
			})
		})
		cancel(nil)
		if hooks.cause == nil || c.want != nil && !errors.Is(hooks.cause, c.want) {
			t.Errorf("%s: OnRollback was told %v, want %v", name, hooks.cause, c.want)
		}
		hooks.want(t, c.ran...)
	}
	// Each attempt tells its hooks.
	var causes []string
	fail, _ := w.curable(t)
	ran, err := w.count(t, thole.SessionOptions{MaxAttempts: 3}, func(tx *thole.Tx) error {
		attempt := tx.Attempt()
		tx.OnRollback(func(_ context.Context, cause error) { causes = append(causes, fmt.Sprint(attempt, cause != nil)) })
		if attempt == 3 {
			return nil
		}
		return fail(tx)
	})
	wantRan(t, "attempts", ran, err, 3, nil)
	wantRunning(t, causes, "1 true", "2 true")
}

// rollbackHooksOfNested run when the outermost session has ended, however that
// was, with the cause of their own session.
func rollbackHooksOfNested(t *testing.T, w *world) {
	for _, end := range []error{nil, errCause} {
		var ran []string
		told := make(map[string]error)
		note := func(tx *thole.Tx, name string) {
			tx.OnRollback(func(_ context.Context, cause error) { ran, told[name] = append(ran, name), cause })
		}
		err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
			note(tx, "outer")
			_ = tx.WithSession(tx.Context(), func(inner *thole.Tx) error { note(inner, "failed"); return errFn })
			_ = tx.WithSession(tx.Context(), func(inner *thole.Tx) error { note(inner, "kept"); return nil })
			wantRunning(t, ran)
			return end
		})
		wantIs(t, err, end)
		want := map[string]error{"failed": errFn}
		if end == nil {
			wantRunning(t, ran, "failed")
		} else {
			wantRunning(t, ran, "failed", "outer", "kept")
			want["outer"], want["kept"] = end, end
		}
		if diff := cmp.Diff(want, told, cmp.Comparer(func(a, b error) bool { return a == b })); diff != "" {
			t.Errorf("causes (-want +got):\n%s", diff)
		}
	}
}

// unknownRunsNoHooks loses the answer to COMMIT. SQLite answers in the program:
// there a COMMIT that fails has undone the session for sure, see H1.
func unknownRunsNoHooks(t *testing.T, w *world) {
	if w.Engine() != thole.Postgres {
		noHooksWithoutCommit(t, w)
		return
	}
	on, l := w.link(t, single)
	var outer, failed, late ledger
	var ended *thole.Tx
	err := on.WithSession(t.Context(), func(tx *thole.Tx) error {
		ended = tx
		outer.register(tx)
		_ = tx.WithSession(tx.Context(), func(inner *thole.Tx) error { failed.register(inner); return errFn })
		l.Eat("commit")
		return insert(tx.Context(), tx, 1)
	})
	wantIs(t, err, thole.ErrCommitUnknown)
	wantOutcome(t, err, thole.Unknown)
	wantText(t, err, "it is unknown whether COMMIT took effect")
	late.register(ended)
	outer.want(t, "before")
	failed.want(t)
	late.want(t)
	const want = "thole: it is unknown whether a session was committed"
	if !slices.Contains(w.log.messages(), want) {
		t.Errorf("log: got %q, want it to have %q", w.log.messages(), want)
	}
}

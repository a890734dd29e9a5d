package conformance

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jmoiron/sqlx"

	"github.com/tholedb/thole"
)

// nesting is section C: sessions inside sessions.
var nesting = []sentence{
	{"C1", clauses(
		sentence{"level", nestedIsSavepoint},
		sentence{"outer", nestedNilIsNoCommit},
		sentence{"tree", treeOfSessions},
	)},
	{"C2", clauses(
		sentence{"detached", nestedRollbackIsDetached},
		sentence{"fails", nestedRollbackFails},
	)},
	{"C3", savepointsAreReleased},
	{"C4", outerIsShut},
	{"C5", clauses(
		sentence{"second", secondNestedIsRefused},
		sentence{"at once", nestedNeverInterleave},
	)},
	{"C6", nestedTxIsDead},
	{"C7", clauses(
		sentence{"fails", joinedFailurePoisons},
		sentence{"in a savepoint", joinedFailureStaysInside},
		sentence{"succeeds", joinedIsPart},
	)},
	{"C8", forbiddenInside},
	{"C10", clauses(
		sentence{"options", nestedOptions},
		sentence{"enforced", nestedReadOnly},
	)},
	{"C11", clauses(
		sentence{"outermost", savepointTextIsRefused},
		sentence{"nested", savepointTextFailsItsLevel},
	)},
	{"C12", ctxOfAnotherDB},
	{"C13", clauses(
		sentence{"propagates", nestedFailureIsTriedOutside},
		sentence{"real", nestedSerialization},
	)},
}

// opens are the ways to open a session inside one.
func (w *world) opens() map[string]func(tx *thole.Tx, fn func(*thole.Tx) error) error {
	valued := func(q thole.Querier, tx *thole.Tx, fn func(*thole.Tx) error) error {
		_, err := thole.WithSession(tx.Context(), q, func(tx *thole.Tx) (int, error) { return 0, fn(tx) })
		return err
	}
	var opts thole.SessionOptions
	return map[string]func(tx *thole.Tx, fn func(*thole.Tx) error) error{
		"tx": func(tx *thole.Tx, fn func(*thole.Tx) error) error { return tx.WithSession(tx.Context(), fn) },
		"db": func(tx *thole.Tx, fn func(*thole.Tx) error) error { return w.WithSession(tx.Context(), fn) },
		"tx, options": func(tx *thole.Tx, fn func(*thole.Tx) error) error {
			return tx.WithSessionOptions(tx.Context(), opts, fn)
		},
		"db, options": func(tx *thole.Tx, fn func(*thole.Tx) error) error {
			return w.WithSessionOptions(tx.Context(), opts, fn)
		},
		"tx, value": func(tx *thole.Tx, fn func(*thole.Tx) error) error { return valued(tx, tx, fn) },
		"db, value": func(tx *thole.Tx, fn func(*thole.Tx) error) error { return valued(w, tx, fn) },
		"From": func(tx *thole.Tx, fn func(*thole.Tx) error) error {
			return valued(thole.From(tx.Context(), w.DB), tx, fn)
		},
	}
}

func nestedIsSavepoint(t *testing.T, w *world) {
	for name, open := range w.opens() {
		err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
			if err := insert(tx.Context(), tx, 1); err != nil {
				return err
			}
			for _, how := range []struct {
				id   int
				fail func(inner *thole.Tx) error
				want error
			}{
				{2, func(*thole.Tx) error { return errFn }, errFn},
				{2, func(inner *thole.Tx) error { return insert(inner.Context(), inner, 2) }, thole.ErrUnique},
				{3, func(*thole.Tx) error { return nil }, nil},
			} {
				err := open(tx, func(inner *thole.Tx) error {
					if err := insert(inner.Context(), inner, how.id); err != nil {
						t.Error(err)
					}
					return how.fail(inner)
				})
				if !errors.Is(err, how.want) {
					t.Errorf("%s: nested session: got error %v, want %v", name, err, how.want)
				}
			}
			return insert(tx.Context(), tx, 4)
		})
		if err != nil {
			t.Errorf("%s: got error %v, want nil", name, err)
		}
		w.wantItems(t, 1, 3, 4)
		w.exec(t, "delete from item")
	}
}

func nestedNilIsNoCommit(t *testing.T, w *world) {
	for name, open := range w.opens() {
		err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
			err := open(tx, func(inner *thole.Tx) error { return insert(inner.Context(), inner, 1) })
			if err != nil {
				t.Errorf("%s: nested session: got error %v, want nil", name, err)
			}
			if !w.inMemory() { // it has no other connection to look from
				w.wantItems(t)
			}
			return errFn
		})
		wantIs(t, err, errFn)
		w.wantItems(t)
	}
}

// treeOfSessions opens sessions in each other at random, which end in every way
// there is, and knows which items must be left.
func treeOfSessions(t *testing.T, w *world) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	grown := &tree{t: t, rnd: rand.New(rand.NewPCG(seed, 0))}
	var want []int
	err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
		want = grown.fill(tx, 3)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	w.wantItems(t, want...)
}

type tree struct {
	t   *testing.T
	rnd *rand.Rand
	id  int
}

// fill adds items, and sessions to the given depth, and returns which items are
// kept if tx is.
func (g *tree) fill(tx *thole.Tx, depth int) (kept []int) {
	for range 3 {
		g.id++
		kept = append(kept, g.id)
		if err := insert(tx.Context(), tx, g.id); err != nil {
			g.t.Error(err)
		}
		if depth > 0 {
			kept = append(kept, g.nest(tx, depth-1)...)
		}
	}
	return kept
}

func (g *tree) nest(tx *thole.Tx, depth int) (kept []int) {
	ends := []func(inner *thole.Tx) error{
		func(*thole.Tx) error { return errFn },
		func(*thole.Tx) error { panic(errFn) },
		func(inner *thole.Tx) error { return insert(inner.Context(), inner, kept[0]) },
		func(*thole.Tx) error { return nil },
		func(*thole.Tx) error { return nil },
	}
	how := g.rnd.IntN(len(ends))
	err := errFn
	recovered(func() {
		err = tx.WithSession(tx.Context(), func(inner *thole.Tx) error {
			kept = g.fill(inner, depth)
			return ends[how](inner)
		})
	})
	if how < 3 {
		kept = nil
	}
	if (err == nil) != (how >= 3) {
		g.t.Errorf("nested session that ends in way %d: got error %v", how, err)
	}
	return kept
}

func nestedRollbackIsDetached(t *testing.T, w *world) {
	on, g := w.gate(t, single)
	id := on.connection(t)
	ends := []func(ctx context.Context, inner *thole.Tx, cancel func()) error{
		func(_ context.Context, _ *thole.Tx, cancel func()) error { cancel(); return errFn },
		func(ctx context.Context, inner *thole.Tx, cancel func()) error {
			return g.endless(t, ctx, inner, cancel)
		},
	}
	err := on.WithSession(t.Context(), func(tx *thole.Tx) error {
		for i, end := range ends {
			ctx, cancel := context.WithCancelCause(tx.Context())
			err := tx.WithSession(ctx, func(inner *thole.Tx) error {
				if err := insert(ctx, inner, 1); err != nil {
					t.Error(err)
				}
				return end(ctx, inner, func() { cancel(errCause) })
			})
			if err == nil {
				t.Error("nested session: got nil")
			}
			if err := insert(tx.Context(), tx, 2+i); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Errorf("got error %v, want nil", err)
	}
	on.wantItems(t, 2, 3)
	if now := on.connection(t); now != id {
		t.Errorf("the session has connection %s, want %s as before", now, id)
	}
}

// spoilers are the ways in which ROLLBACK TO can fail. SQLite is not allowed to,
// or has rolled everything back when it was interrupted while it wrote.
func (w *world) spoilers() map[string]func(t *testing.T) (on *world, spoil func(inner *thole.Tx)) {
	type spoiler = func(t *testing.T) (on *world, spoil func(inner *thole.Tx))
	if w.Engine() == thole.Postgres {
		return map[string]spoiler{
			"cut": func(t *testing.T) (*world, func(*thole.Tx)) {
				on, l := w.link(t, single)
				return on, func(inner *thole.Tx) {
					if err := begin(inner); err != nil {
						t.Error(err)
					}
					l.Cut()
				}
			},
			"terminated": func(t *testing.T) (*world, func(*thole.Tx)) {
				return w.reopen(t, single), func(inner *thole.Tx) { w.terminate(t, backend(t, inner)) }
			},
		}
	}
	return map[string]spoiler{
		"refused": func(t *testing.T) (*world, func(*thole.Tx)) {
			on, o := w.observe(t)
			return on, func(*thole.Tx) { o.refuse(t, "thole_2") }
		},
		"interrupted": func(t *testing.T) (*world, func(*thole.Tx)) {
			on, g := w.gate(t)
			return on, func(inner *thole.Tx) {
				ctx, cancel := context.WithCancel(inner.Context())
				wantIs(t, g.endlessWrite(t, ctx, inner, cancel), context.Canceled)
			}
		},
	}
}

// nestedRollbackFails lies two levels deep: all that are around it are poisoned.
func nestedRollbackFails(t *testing.T, w *world) {
	for name, spoiler := range w.spoilers() {
		t.Run(name, func(t *testing.T) {
			on, spoil := spoiler(t)
			err := on.WithSession(t.Context(), func(tx *thole.Tx) error {
				if err := insert(tx.Context(), tx, 0); err != nil {
					t.Error(err)
				}
				err := tx.WithSession(tx.Context(), func(middle *thole.Tx) error {
					err := middle.WithSession(middle.Context(), func(inner *thole.Tx) error {
						spoil(inner)
						return errFn
					})
					wantIs(t, err, errFn)
					wantPoisoned(t, middle)
					return nil
				})
				wantIs(t, err, thole.ErrTxAborted)
				wantPoisoned(t, tx)
				return nil
			})
			wantIs(t, err, thole.ErrTxAborted)
			wantOutcome(t, err, thole.RolledBack)
			on.wantItems(t)
		})
	}
}

// wantPoisoned checks that nothing can be done with tx but to leave it.
func wantPoisoned(t *testing.T, tx *thole.Tx) {
	t.Helper()
	for range 2 {
		for name, err := range callsOn(tx) {
			if !errors.Is(err, thole.ErrTxAborted) {
				t.Errorf("%s: got error %v, want one that is %v", name, err, thole.ErrTxAborted)
			}
		}
	}
}

// savepointsAreReleased asks PostgreSQL for the memory that it keeps for each
// subtransaction, and SQLite to release a savepoint that must not be there.
func savepointsAreReleased(t *testing.T, w *world) {
	const often = 1000
	on, o := w.observe(t)
	err := on.WithSession(t.Context(), func(tx *thole.Tx) error {
		before := o.live(t, tx)
		for id := range 2 * often {
			err := tx.WithSession(tx.Context(), func(inner *thole.Tx) error {
				if err := insert(inner.Context(), inner, id); err != nil {
					t.Error(err)
				}
				if id < often {
					return errFn
				}
				return nil
			})
			if failed := id < often; failed != errors.Is(err, errFn) {
				return fmt.Errorf("nested session %d: %w", id, err)
			}
		}
		if err := begin(tx); err != nil { // and a RELEASE that waits for a statement goes with this one
			return err
		}
		count := make(map[string]int)
		for _, control := range o.control() {
			count[control]++
		}
		want := map[string]int{"begin": 1, "savepoint thole_1": 2 * often, "rollback to thole_1": often, "release thole_1": 2 * often}
		if diff := cmp.Diff(want, count); diff != "" {
			t.Errorf("transaction control (-want +got):\n%s", diff)
		}
		if after := o.live(t, tx); after != before {
			t.Errorf("live subtransactions: got %d more than before", after-before)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func outerIsShut(t *testing.T, w *world) {
	err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
		stmt, err := tx.PrepareContext(tx.Context(), "insert into item (id, name) values (7, 'lost')")
		if err != nil {
			return err
		}
		defer stmt.Close()
		view := tx.Sqlx()
		err = tx.WithSession(tx.Context(), func(inner *thole.Tx) error {
			calls := callsOn(tx)
			calls["DB"] = insert(tx.Context(), w, 8)
			calls["DB.WithSession"] = w.WithSession(tx.Context(), func(*thole.Tx) error { return nil })
			_, calls["Sqlx"] = view.ExecContext(tx.Context(), "insert into item (id, name) values (9, 'lost')")
			_, calls["Stmt"] = stmt.ExecContext(tx.Context())
			for name, err := range calls {
				if !errors.Is(err, thole.ErrNested) || !strings.Contains(err.Error(), "conformance/nesting.go:") {
					t.Errorf("%s: got error %v, want %v that tells where the nested session was opened", name, err, thole.ErrNested)
				}
			}
			return insert(inner.Context(), inner, 1)
		})
		if err != nil {
			return err
		}
		return insert(tx.Context(), tx, 2)
	})
	if err != nil {
		t.Errorf("got error %v, want nil", err)
	}
	w.wantItems(t, 1, 2)
}

func secondNestedIsRefused(t *testing.T, w *world) {
	on, o := w.observe(t)
	err := on.WithSession(t.Context(), func(tx *thole.Tx) error {
		inside, leave, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		go func() {
			ended <- tx.WithSession(tx.Context(), func(inner *thole.Tx) error {
				close(inside)
				<-leave
				return insert(inner.Context(), inner, 1)
			})
		}()
		<-inside
		for name, open := range on.opens() {
			err := open(tx, func(*thole.Tx) error { t.Errorf("%s: fn ran", name); return nil })
			wantIs(t, err, thole.ErrNested)
		}
		close(leave)
		return receive(t, ended)
	})
	if err != nil {
		t.Errorf("got error %v, want nil", err)
	}
	want := []string{"begin", "savepoint thole_1", "release thole_1", "commit"}
	if w.Engine() == thole.Postgres {
		want = []string{"begin", "savepoint thole_1", "commit"} // which releases what no statement has come after
	}
	if diff := cmp.Diff(want, o.control()); diff != "" {
		t.Errorf("transaction control (-want +got):\n%s", diff)
	}
	on.wantItems(t, 1)
}

// nestedNeverInterleave has goroutines fall over each other, and looks at what
// reached the database.
func nestedNeverInterleave(t *testing.T, w *world) {
	on, o := w.observe(t)
	var kept []int
	err := on.WithSession(t.Context(), func(tx *thole.Tx) error {
		var all sync.WaitGroup
		for id := range 80 {
			all.Go(func() {
				err := tx.WithSession(tx.Context(), func(inner *thole.Tx) error {
					if err := insert(inner.Context(), inner, id); err != nil {
						t.Error(err)
					}
					if id%2 == 0 {
						return errFn
					}
					kept = append(kept, id) // only one is here at a time
					return nil
				})
				if err != nil && !errors.Is(err, errFn) && !errors.Is(err, thole.ErrNested) && !errors.Is(err, thole.ErrBusy) {
					t.Errorf("nested session: got error %v, want none or %v", err, thole.ErrNested)
				}
			})
		}
		all.Wait()
		return nil
	})
	if err != nil {
		t.Errorf("got error %v, want nil", err)
	}
	slices.Sort(kept)
	on.wantItems(t, kept...)
	wantOneAtATime(t, o.control())
}

// wantOneAtATime checks that no savepoint began before the one before had ended.
func wantOneAtATime(t *testing.T, control []string) {
	t.Helper()
	open := false
	for i, text := range control {
		verb, _, _ := strings.Cut(text, " thole_")
		before := open
		switch verb {
		case "savepoint":
			open = true
		case "release":
			open = false
		}
		if verb == "commit" && (!open || i == len(control)-1) {
			continue // releases what no statement has come after
		}
		if slices.Contains([]string{"savepoint", "begin"}, verb) == before {
			t.Fatalf("%q comes out of turn, after %q", text, control[:i])
		}
	}
}

// nestedTxIsDead tries the dead Tx while the outer session lives. Its view is
// database/sql's own, which knows no cause.
func nestedTxIsDead(t *testing.T, w *world) {
	ends := map[string]error{"it has ended": nil, "it was rolled back": errFn}
	for text, end := range ends {
		err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
			var dead *thole.Tx
			var view *sqlx.Tx
			_ = tx.WithSession(tx.Context(), func(inner *thole.Tx) error {
				dead, view = inner, inner.Sqlx()
				return end
			})
			_, err := view.ExecContext(t.Context(), "insert into item (id, name) values (9, 'dead')")
			wantIs(t, err, thole.ErrTxDone)
			calls := callsOn(dead)
			calls["DB"] = insert(dead.Context(), w, 8)
			calls["DB.WithSession"] = w.WithSession(dead.Context(), func(*thole.Tx) error { return nil })
			for name, err := range calls {
				wantIs(t, err, thole.ErrTxDone, sql.ErrTxDone)
				if !errors.Is(err, end) && end != nil || err == nil || !strings.Contains(err.Error(), text) {
					t.Errorf("%s: got error %v, want one that says %q because of %v", name, err, text, end)
				}
			}
			return insert(tx.Context(), tx, 2)
		})
		if err != nil {
			t.Errorf("outer session: got error %v, want nil: it lives", err)
		}
		w.wantItems(t, 2)
		w.exec(t, "delete from item")
	}
}

var join = thole.SessionOptions{Nested: thole.NestedJoin}

// joinedFailurePoisons leaves a joined session in each way, and returns nil.
func joinedFailurePoisons(t *testing.T, w *world) {
	ends := map[string]func(ctx context.Context, inner *thole.Tx, cancel func()) error{
		"error": func(context.Context, *thole.Tx, func()) error { return errFn },
		"panic": func(context.Context, *thole.Tx, func()) error { panic(errFn) },
		"done":  func(_ context.Context, _ *thole.Tx, cancel func()) error { cancel(); return nil },
		"rows": func(ctx context.Context, inner *thole.Tx, _ func()) error {
			_, err := inner.QueryContext(ctx, "select id from item") //nolint:rowserrcheck,sqlclosecheck // left open
			return err
		},
	}
	causes := map[string]error{"error": errFn, "done": context.Canceled, "rows": thole.ErrRowsOpen}
	for name, end := range ends {
		on, o := w.observe(t)
		err := on.WithSession(t.Context(), func(tx *thole.Tx) error {
			ctx, cancel := context.WithCancel(tx.Context())
			recovered(func() {
				_ = tx.WithSessionOptions(ctx, join, func(inner *thole.Tx) error {
					if err := insert(ctx, inner, 5); err != nil {
						t.Error(err)
					}
					return end(ctx, inner, cancel)
				})
			})
			cancel()
			wantPoisoned(t, tx)
			return nil
		})
		wantIs(t, err, thole.ErrTxAborted)
		wantOutcome(t, err, thole.RolledBack)
		if cause := causes[name]; cause != nil {
			wantIs(t, err, cause)
		}
		if err == nil || !strings.Contains(err.Error(), "joined to it at conformance/nesting.go:") {
			t.Errorf("%s: got error %v, want it to tell where the joined session was opened", name, err)
		}
		on.wantItems(t)
		if diff := cmp.Diff([]string{"begin", "rollback"}, o.control()[:2]); diff != "" {
			t.Errorf("%s: transaction control (-want +got):\n%s", name, diff)
		}
	}
}

// joinedFailureStaysInside poisons a savepoint, and nothing around that.
func joinedFailureStaysInside(t *testing.T, w *world) {
	err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
		if err := insert(tx.Context(), tx, 1); err != nil {
			return err
		}
		err := tx.WithSession(tx.Context(), func(middle *thole.Tx) error {
			if err := insert(middle.Context(), middle, 2); err != nil {
				t.Error(err)
			}
			err := middle.WithSessionOptions(middle.Context(), join, func(*thole.Tx) error { return errFn })
			wantIs(t, err, errFn)
			return nil
		})
		wantIs(t, err, thole.ErrTxAborted, errFn)
		return insert(tx.Context(), tx, 3)
	})
	if err != nil {
		t.Errorf("got error %v, want nil", err)
	}
	w.wantItems(t, 1, 3)
}

// joinedIsPart has a joined session commit nothing by itself.
func joinedIsPart(t *testing.T, w *world) {
	for _, end := range []error{errFn, nil} {
		on, o := w.observe(t)
		err := on.WithSession(t.Context(), func(tx *thole.Tx) error {
			err := on.WithSessionOptions(tx.Context(), join, func(inner *thole.Tx) error {
				return insert(inner.Context(), inner, 1)
			})
			if err != nil {
				t.Errorf("joined session: got error %v, want nil", err)
			}
			if !w.inMemory() { // it has no other connection to look from
				on.wantItems(t)
			}
			if err := insert(tx.Context(), tx, 2); err != nil {
				t.Error(err)
			}
			return end
		})
		if !errors.Is(err, end) {
			t.Errorf("got error %v, want %v", err, end)
		}
		want := []string{"begin", "commit"}
		if end == nil {
			on.wantItems(t, 1, 2)
		} else {
			on.wantItems(t)
			want[1] = "rollback"
		}
		if diff := cmp.Diff(want, o.control()[:2]); diff != "" {
			t.Errorf("transaction control (-want +got):\n%s", diff)
		}
	}
}

func forbiddenInside(t *testing.T, w *world) {
	opts := thole.SessionOptions{Nested: thole.NestedForbidden, Label: "payment"}
	add := func(tx *thole.Tx) error { return insert(tx.Context(), tx, 1) }
	err := w.WithSessionOptions(t.Context(), opts, func(tx *thole.Tx) error {
		for _, q := range []thole.Querier{w, tx, thole.From(tx.Context(), w.DB)} {
			err := q.WithSessionOptions(tx.Context(), opts, func(*thole.Tx) error { t.Error("fn ran"); return nil })
			wantIs(t, err, thole.ErrNested)
			if err == nil || !strings.Contains(err.Error(), `session "payment" opened at conformance/nesting.go:`) {
				t.Errorf("got error %v, want it to tell which session is the outermost", err)
			}
		}
		return add(tx)
	})
	if err != nil {
		t.Errorf("outermost session: got error %v, want nil", err)
	}
	w.wantItems(t, 1)
}

// nestedOptions differ: SQLite's sessions are all serializable, and no level is
// stricter.
func nestedOptions(t *testing.T, w *world) {
	stricter := thole.ErrNested
	if w.Engine() != thole.Postgres {
		stricter = nil
	}
	level := func(l sql.IsolationLevel) thole.SessionOptions { return thole.SessionOptions{Isolation: l} }
	reads := thole.SessionOptions{ReadOnly: true}
	consistent := thole.SessionOptions{ReadOnly: true, Isolation: sql.LevelSerializable}
	deferrable := thole.SessionOptions{ReadOnly: true, Isolation: sql.LevelSerializable, Deferrable: true}
	cases := []struct {
		outer, inner thole.SessionOptions
		want         error
	}{
		{level(sql.LevelDefault), level(sql.LevelReadCommitted), nil},
		{level(sql.LevelDefault), level(sql.LevelRepeatableRead), stricter},
		{level(sql.LevelReadCommitted), level(sql.LevelSerializable), stricter},
		{level(sql.LevelRepeatableRead), level(sql.LevelSerializable), stricter},
		{level(sql.LevelRepeatableRead), level(sql.LevelSnapshot), nil},
		{level(sql.LevelRepeatableRead), level(sql.LevelReadCommitted), nil},
		{level(sql.LevelSerializable), level(sql.LevelSerializable), nil},
		{level(sql.LevelSerializable), level(sql.LevelReadUncommitted), nil},
		{level(sql.LevelSerializable), level(sql.LevelDefault), nil},
		{reads, thole.SessionOptions{}, thole.ErrNested},
		{reads, reads, nil},
		{thole.SessionOptions{}, reads, nil},
		{level(sql.LevelSerializable), consistent, nil},
		{thole.SessionOptions{}, thole.SessionOptions{MaxAttempts: 1}, nil},
		{thole.SessionOptions{}, thole.SessionOptions{Timeout: patience}, nil},
		{thole.SessionOptions{}, thole.SessionOptions{MaxAttempts: 2}, thole.ErrNested},
		{thole.SessionOptions{}, thole.SessionOptions{LockTimeout: patience}, thole.ErrNested},
		{thole.SessionOptions{}, thole.SessionOptions{StatementTimeout: patience}, thole.ErrNested},
	}
	if w.Engine() == thole.Postgres { // SQLite has no such mode
		cases = append(cases, []struct {
			outer, inner thole.SessionOptions
			want         error
		}{{consistent, deferrable, thole.ErrNested}, {deferrable, deferrable, nil}, {deferrable, consistent, nil}}...)
	}
	for _, c := range cases {
		for _, nested := range []thole.Nesting{thole.NestedSavepoint, thole.NestedJoin} {
			c.inner.Nested = nested
			want := c.want
			if nested == thole.NestedJoin && c.inner.ReadOnly && !c.outer.ReadOnly {
				want = thole.ErrNested // without a savepoint nothing would end that it is read-only
			}
			wantNested(t, w, c.outer, c.inner, want)
		}
	}
}

// wantNested opens a session in another and checks whether that is accepted.
func wantNested(t *testing.T, w *world, outer, inner thole.SessionOptions, want error) {
	t.Helper()
	ran := false
	err := w.WithSessionOptions(t.Context(), outer, func(tx *thole.Tx) error {
		err := tx.WithSessionOptions(tx.Context(), inner, func(*thole.Tx) error { ran = true; return nil })
		if !errors.Is(err, want) || ran != (want == nil) {
			t.Errorf("%+v inside %+v: fn ran: %t, and the error is %v, want %v", inner, outer, ran, err, want)
		}
		belongsOutside := inner.MaxAttempts > 1 || inner.LockTimeout+inner.StatementTimeout > 0 ||
			inner.Nested == thole.NestedJoin && inner.ReadOnly && !outer.ReadOnly
		if errors.Is(err, errors.ErrUnsupported) != belongsOutside {
			t.Errorf("%+v inside %+v: got error %v; is it ErrUnsupported?", inner, outer, err)
		}
		return nil
	})
	if err != nil {
		t.Errorf("%+v: got error %v, want nil", outer, err)
	}
}

// nestedReadOnly writes where that is refused. The level where it was tried is
// aborted on PostgreSQL; it ends there.
func nestedReadOnly(t *testing.T, w *world) {
	write := func(tx *thole.Tx) error { return insert(tx.Context(), tx, 1) }
	inherited := func(tx *thole.Tx) error { return tx.WithSession(tx.Context(), write) }
	err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
		for _, fn := range []func(*thole.Tx) error{write, inherited} {
			wantIs(t, tx.WithSessionOptions(tx.Context(), thole.SessionOptions{ReadOnly: true}, fn), thole.ErrReadOnly)
		}
		return insert(tx.Context(), tx, 2)
	})
	if err != nil {
		t.Errorf("got error %v, want nil: the outer session writes", err)
	}
	for _, fn := range []func(*thole.Tx) error{write, inherited} {
		err := w.WithSessionOptions(t.Context(), thole.SessionOptions{ReadOnly: true}, fn)
		wantIs(t, err, thole.ErrReadOnly)
	}
	err = w.WithSessionOptions(t.Context(), thole.SessionOptions{ReadOnly: true}, func(tx *thole.Tx) error {
		return tx.WithSession(tx.Context(), func(inner *thole.Tx) error { // takes over that it only reads
			wantIs(t, inner.WithSessionOptions(inner.Context(), thole.SessionOptions{}, write), thole.ErrNested)
			return nil
		})
	})
	if err != nil {
		t.Errorf("got error %v, want nil: nothing was sent", err)
	}
	w.wantItems(t, 2)
}

var savepointTexts = []string{
	"savepoint mine", "SAVEPOINT mine", "release mine", "release savepoint mine",
	"rollback to mine", "rollback to savepoint mine", "rollback transaction to savepoint mine",
	"/* mine */ savepoint mine", "-- mine\n rollback to thole_1", "select 1; release thole_1", ";savepoint mine",
}

// savepointTextIsRefused tries each text on each handle.
func savepointTextIsRefused(t *testing.T, w *world) {
	on, o := w.observe(t)
	for _, text := range savepointTexts {
		for name, run := range map[string]func(tx *thole.Tx) error{
			"Tx": func(tx *thole.Tx) error { _, err := tx.ExecContext(tx.Context(), text); return err },
			"Tx.Query": func(tx *thole.Tx) error {
				_, err := tx.QueryContext(tx.Context(), text) //nolint:rowserrcheck,sqlclosecheck // it fails
				return err
			},
			"Tx.Prepare": func(tx *thole.Tx) error { _, err := tx.PrepareContext(tx.Context(), text); return err }, //nolint:sqlclosecheck // it fails
			"DB":         func(tx *thole.Tx) error { _, err := on.ExecContext(tx.Context(), text); return err },
			"Tx.Sqlx":    func(tx *thole.Tx) error { _, err := tx.Sqlx().ExecContext(tx.Context(), text); return err },
			"DB.Sqlx":    func(tx *thole.Tx) error { _, err := on.Sqlx().ExecContext(tx.Context(), text); return err },
		} {
			err := on.WithSession(t.Context(), func(tx *thole.Tx) error {
				wantRefused(t, name, text, run(tx))
				return nil
			})
			wantIs(t, err, thole.ErrTxControl)
			wantOutcome(t, err, thole.RolledBack)
		}
		_, err := on.ExecContext(t.Context(), text)
		wantRefused(t, "outside", text, err)
	}
	for _, control := range o.control() {
		if control != "begin" && control != "rollback" {
			t.Errorf("sent %q, want no savepoint", control)
		}
	}
}

// wantRefused checks that err points to what does the same.
func wantRefused(t *testing.T, name, text string, err error) {
	t.Helper()
	if !errors.Is(err, thole.ErrTxControl) || !strings.Contains(err.Error(), "use tx.WithSession") {
		t.Errorf("%s: %q: got error %v, want %v with the advice to use tx.WithSession", name, text, err, thole.ErrTxControl)
	}
}

func savepointTextFailsItsLevel(t *testing.T, w *world) {
	err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
		if err := insert(tx.Context(), tx, 1); err != nil {
			return err
		}
		err := tx.WithSession(tx.Context(), func(inner *thole.Tx) error {
			if err := insert(inner.Context(), inner, 2); err != nil {
				t.Error(err)
			}
			_, err := inner.ExecContext(inner.Context(), "rollback to thole_1")
			wantRefused(t, "nested", "rollback to thole_1", err)
			return nil
		})
		wantIs(t, err, thole.ErrTxControl)
		return insert(tx.Context(), tx, 3)
	})
	if err != nil {
		t.Errorf("got error %v, want nil", err)
	}
	w.wantItems(t, 1, 3)
}

// ctxOfAnotherDB gives the ctx of a session to another database, and to the same
// one, opened again: there a session of its own sees nothing of the first one.
func ctxOfAnotherDB(t *testing.T, w *world) {
	other, again := newWorld(t, w.target), w.reopen(t)
	err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
		if err := insert(tx.Context(), tx, 1); err != nil {
			t.Error(err)
		}
		if thole.From(tx.Context(), other.DB) != thole.Querier(other.DB) {
			t.Error("From found a session of another DB")
		}
		err := other.WithSessionOptions(tx.Context(), thole.SessionOptions{Nested: thole.NestedForbidden}, func(its *thole.Tx) error {
			if thole.From(its.Context(), w.DB) != thole.Querier(tx) || thole.From(its.Context(), other.DB) != thole.Querier(its) {
				t.Error("the ctx does not carry both sessions")
			}
			return insert(its.Context(), other, 2)
		})
		if err != nil {
			t.Errorf("session of another DB: got error %v, want nil", err)
		}
		other.wantItems(t, 2) // committed
		err = again.WithSessionOptions(tx.Context(), thole.SessionOptions{ReadOnly: true}, func(its *thole.Tx) error {
			var items int
			err := its.GetContext(its.Context(), &items, "select count(*) from item")
			if items != 0 {
				t.Errorf("the session of another DB has %d items, want none: it is not in this one", items)
			}
			return err
		})
		return errors.Join(err, errFn)
	})
	wantIs(t, err, errFn)
	w.wantItems(t)
	other.wantItems(t, 2)
}

func nestedFailureIsTriedOutside(t *testing.T, w *world) {
	fail, kind := w.curable(t)
	for _, nested := range []thole.Nesting{thole.NestedSavepoint, thole.NestedJoin} {
		var outside, inside int
		opts := thole.SessionOptions{MaxAttempts: 3}
		err := w.WithSessionOptions(t.Context(), opts, func(tx *thole.Tx) error {
			outside++
			err := tx.WithSessionOptions(tx.Context(), thole.SessionOptions{Nested: nested}, func(inner *thole.Tx) error {
				if inside++; inner.Attempt() != tx.Attempt() {
					t.Errorf("Attempt of the nested session: got %d, want %d", inner.Attempt(), tx.Attempt())
				}
				return fail(inner)
			})
			wantIs(t, err, kind)
			return fmt.Errorf("nested: %w", err)
		})
		wantIs(t, err, kind)
		if outside != 3 || inside != 3 {
			t.Errorf("fn ran %d times outside and %d times inside, want 3 and 3", outside, inside)
		}
	}
}

// nestedSerialization has another session write what the nested one then
// writes. SQLite has one writer at a time: there nobody can come in between, and
// it is the lock that somebody else holds.
func nestedSerialization(t *testing.T, w *world) {
	fail, kind := w.curable(t)
	if w.Engine() == thole.Postgres {
		kind = thole.ErrSerialization
		fail = func(inner *thole.Tx) error {
			if inner.Attempt() == 1 {
				w.exec(t, "update item set note = 'theirs'")
			}
			_, err := inner.ExecContext(inner.Context(), "update item set note = note || ', ours'")
			return err
		}
	}
	w.exec(t, "insert into item (id, name, note) values (1, 'contested', '')")
	var inside []error
	opts := thole.SessionOptions{Isolation: sql.LevelRepeatableRead}
	err := w.WithSessionOptions(t.Context(), opts, func(tx *thole.Tx) error {
		if err := tx.GetContext(tx.Context(), new(string), "select note from item"); err != nil {
			return err
		}
		err := tx.WithSession(tx.Context(), func(inner *thole.Tx) error {
			if w.Engine() != thole.Postgres && inner.Attempt() > 1 {
				return nil
			}
			return fail(inner)
		})
		inside = append(inside, err)
		return err
	})
	if err != nil || len(inside) != 2 || !errors.Is(inside[0], kind) || inside[1] != nil {
		t.Errorf("got error %v, and %v from the nested session, want nil, and %v and nil", err, inside, kind)
	}
	if note := w.value(t, "select note from item"); w.Engine() == thole.Postgres && note != "theirs, ours" {
		t.Errorf("got the note %q, want that of both sessions", note)
	}
}

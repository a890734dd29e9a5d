package conformance

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/link"
)

// outcome is section A: what becomes of a session is what its caller is told.
var outcome = []sentence{
	{"A1", clauses(
		sentence{"nil", committedWhenNil},
		sentence{"acknowledged", nilOnlyWhenAcknowledged},
		sentence{"exceptions", nothingToLose},
	)},
	{"A2", clauses(
		sentence{"undone", rolledBackOnError},
		sentence{"joined", rollbackFailureIsJoined},
	)},
	{"A3", panicGoesOn},
	{"A4", goexitRollsBack},
	{"A5", clauses(
		sentence{"error", panicOutlivesRollback},
		sentence{"panic", panicOutlivesHook},
	)},
	{"A6", swallowedError},
	{"A6a", swallowedFirstError},
	{"A7", failureAtCommit},
	{"A8", errorUndoesItsLevel},
	{"A9", wrappedErrorIsRecognised},
	{"A10", misuseIsTyped},
}

var errFn = errors.New("fn's own")

// committedWhenNil holds COMMIT back inside the database.
func committedWhenNil(t *testing.T, w *world) {
	on, g := w.gate(t)
	g.close(t, on)
	var returned atomic.Bool
	ended := make(chan error, 1)
	go func() {
		err := on.WithSession(t.Context(), func(tx *thole.Tx) error {
			return insert(tx.Context(), tx, 1)
		})
		returned.Store(true)
		ended <- err
	}()
	g.wait(t)
	time.Sleep(20 * time.Millisecond) // for a WithSession that does not wait
	if returned.Load() {
		t.Error("WithSession returned before COMMIT did")
	}
	if !w.inMemory() { // it has no other connection to look from
		on.wantItems(t)
	}
	g.open()
	err := receive(t, ended)
	if err != nil {
		t.Errorf("got error %v, want nil", err)
	}
	wantOutcome(t, err, thole.Committed)
	on.wantItems(t, 1)
}

// nilOnlyWhenAcknowledged gives COMMIT another answer than the tag COMMIT. An
// answer of SQLite's can't get lost; what it answers is in A7.
func nilOnlyWhenAcknowledged(t *testing.T, w *world) {
	if w.Engine() != thole.Postgres {
		failureAtCommit(t, w)
		return
	}
	answers := []struct {
		name   string
		answer func(*link.Link)
		is     error
		want   thole.Outcome
	}{
		{"lost", func(l *link.Link) { l.Eat("commit") }, thole.ErrCommitUnknown, thole.Unknown},
		{"rollback", forgeRollback, thole.ErrTxAborted, thole.RolledBack},
	}
	for _, answer := range answers {
		t.Run(answer.name, func(t *testing.T) {
			on, l := w.link(t, single)
			err := on.WithSession(t.Context(), func(tx *thole.Tx) error {
				answer.answer(l)
				_, err := tx.ExecContext(tx.Context(), "insert into item (id, name) values (1, ?)", answer.name)
				return err
			})
			wantIs(t, err, answer.is)
			wantOutcome(t, err, answer.want)
			w.exec(t, "delete from item")
		})
	}
}

// forgeRollback makes the tag ROLLBACK of the tag COMMIT.
//
// https://www.postgresql.org/docs/current/protocol-message-formats.html (CommandComplete)
func forgeRollback(l *link.Link) {
	l.Forge("C\x00\x00\x00\x0bCOMMIT\x00", "C\x00\x00\x00\x0dROLLBACK\x00")
}

// nothingToLose loses the answer to COMMIT where nobody needs it. On SQLite no
// answer can get lost; there the sessions just are nil.
func nothingToLose(t *testing.T, w *world) {
	read := func(tx *thole.Tx) error {
		_, err := tx.ExecContext(tx.Context(), "select id from item")
		return err
	}
	observed := func(tx *thole.Tx) error {
		tx.OnCommit(func(context.Context) {})
		return read(tx)
	}
	sessions := []struct {
		name string
		opts thole.SessionOptions
		fn   func(tx *thole.Tx) error
		lost error // what the session is told when the answer is lost
	}{
		{"empty", thole.SessionOptions{}, func(*thole.Tx) error { return nil }, nil},
		{"read-only", thole.SessionOptions{ReadOnly: true}, read, nil},
		{"repeatable read", thole.SessionOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead}, read, nil},
		{"serializable", thole.SessionOptions{ReadOnly: true, Isolation: sql.LevelSerializable, MaxAttempts: 1}, read, thole.ErrConnLost},
		{"observed", thole.SessionOptions{ReadOnly: true}, observed, thole.ErrConnLost},
	}
	for _, session := range sessions {
		t.Run(session.name, func(t *testing.T) {
			on, want := w, error(nil)
			if w.Engine() == thole.Postgres {
				linked, l := w.link(t, single)
				l.Eat("commit")
				on, want = linked, session.lost
			}
			err := on.WithSessionOptions(t.Context(), session.opts, session.fn)
			if !errors.Is(err, want) {
				t.Errorf("got error %v, want %v", err, want)
			}
			if want != nil {
				wantOutcome(t, err, thole.RolledBack)
			}
		})
	}
}

func rolledBackOnError(t *testing.T, w *world) {
	err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
		if err := insert(tx.Context(), tx, 1); err != nil {
			t.Error(err)
		}
		return errFn
	})
	if err != errFn {
		t.Errorf("got error %v, want fn's own, unchanged", err)
	}
	wantOutcome(t, err, thole.RolledBack)
	w.wantItems(t)
}

func rollbackFailureIsJoined(t *testing.T, w *world) {
	on, spoil := w.spoiled(t)
	err := on.WithSession(t.Context(), func(tx *thole.Tx) error {
		if err := insert(tx.Context(), tx, 1); err != nil {
			t.Error(err)
		}
		spoil()
		return errFn
	})
	wantIs(t, err, errFn)
	wantOutcome(t, err, thole.RolledBack)
	if w.Engine() == thole.Postgres {
		wantIs(t, err, thole.ErrConnLost)
	} else if !strings.Contains(err.Error(), "SQLITE_AUTH") { // no sentinel stands for it
		t.Errorf("got error %v, want one that tells why ROLLBACK failed", err)
	}
	on.wantItems(t)
}

func panicGoesOn(t *testing.T, w *world) {
	on := w.reopen(t, single)
	id := on.connection(t)
	values := map[string]func(){
		"error":   func() { panic(errFn) },
		"pointer": func() { panic(on) },
		"runtime": func() { _ = make([]int, len(id))[len(id)] },
	}
	for name, explode := range values {
		want, _ := recovered(explode)
		var hooks ledger
		got, stack := recovered(func() { panicking(t, on, &hooks, explode) })
		if got != want {
			t.Errorf("%s: got the panic %v, want %v", name, got, want)
		}
		if !strings.Contains(stack, "conformance.panicking.func1(") {
			t.Errorf("%s: the stack does not show fn:\n%s", name, stack)
		}
		hooks.want(t, "rollback")
	}
	got, _ := recovered(func() { panicking(t, on, new(ledger), func() { panic(nil) }) }) //nolint:govet // what is tested
	if _, ok := got.(*runtime.PanicNilError); !ok {
		t.Errorf("panic(nil): got the panic %v (%T), want *runtime.PanicNilError", got, got)
	}
	on.wantItems(t)
	if now := on.connection(t); now != id {
		t.Errorf("the session has connection %s, want %s: it can be used again", now, id)
	}
}

// panicking opens a session whose fn adds an item and explodes.
func panicking(t *testing.T, w *world, hooks *ledger, explode func()) {
	t.Helper()
	err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
		hooks.register(tx)
		if err := insert(tx.Context(), tx, 1); err != nil {
			t.Error(err)
		}
		explode()
		return nil
	})
	t.Errorf("WithSession returned (error %v), want its fn's panic", err)
}

// recovered is what f panics with, and the stack at that time.
func recovered(f func()) (v any, stack string) {
	defer func() {
		stack = string(debug.Stack())
		v = recover()
	}()
	f()
	return nil, ""
}

// goexitRollsBack leaves fn as t.FailNow and t.SkipNow do, of a T that is no
// running test's.
func goexitRollsBack(t *testing.T, w *world) {
	on := w.reopen(t, single)
	id := on.connection(t)
	exits := map[string]func(){
		"Goexit":  runtime.Goexit,
		"FailNow": func() { new(testing.T).FailNow() },
		"SkipNow": func() { new(testing.T).SkipNow() },
	}
	for name, exit := range exits {
		var hooks ledger
		var left sync.WaitGroup
		left.Go(func() { panicking(t, on, &hooks, exit) })
		left.Wait()
		if t.Failed() {
			t.Fatalf("after %s", name)
		}
		hooks.want(t, "rollback")
		on.wantItems(t)
		if now := on.connection(t); now != id {
			t.Errorf("%s: the session has connection %s, want %s: it is back in the pool", name, now, id)
		}
	}
}

func panicOutlivesRollback(t *testing.T, w *world) {
	on, spoil := w.spoiled(t)
	id := on.connection(t)
	got, _ := recovered(func() {
		panicking(t, on, new(ledger), func() { spoil(); panic(errFn) })
	})
	if got != errFn {
		t.Errorf("got the panic %v, want fn's own", got)
	}
	on.wantItems(t)
	now := on.connection(t)
	if w.inMemory() { // the database lives in its one connection
		if now != id {
			t.Errorf("the session has connection %s, want %s", now, id)
		}
	} else if now == id {
		t.Errorf("the session has connection %s again, on which ROLLBACK failed", now)
	}
}

func panicOutlivesHook(t *testing.T, w *world) {
	on := w.reopen(t, single)
	id := on.connection(t)
	got, _ := recovered(func() {
		_ = on.WithSession(t.Context(), func(tx *thole.Tx) error {
			tx.OnRollback(func(context.Context, error) { panic("a hook's") })
			if err := insert(tx.Context(), tx, 1); err != nil {
				t.Error(err)
			}
			panic(errFn)
		})
	})
	if got != errFn {
		t.Errorf("got the panic %v, want fn's own", got)
	}
	on.wantItems(t)
	if now := on.connection(t); now != id {
		t.Errorf("the session has connection %s, want %s: ROLLBACK had worked", now, id)
	}
	const want = "thole: panic while a session that panicked was rolled back"
	if !slices.Contains(w.log.messages(), want) {
		t.Errorf("log: got %q, want it to have %q", w.log.messages(), want)
	}
}

// swallowedError differs: a statement that fails takes PostgreSQL's transaction
// with it, and on SQLite nothing but itself.
func swallowedError(t *testing.T, w *world) {
	var after error
	err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
		if err := insert(tx.Context(), tx, 1); err != nil {
			t.Error(err)
		}
		if _, err := tx.ExecContext(tx.Context(), "insert into item (id, name) values (1, 'again')"); err == nil {
			t.Error("a second item 1 was added")
		}
		after = insert(tx.Context(), tx, 2)
		return nil
	})
	if w.Engine() != thole.Postgres {
		if err != nil || after != nil {
			t.Errorf("got errors %v and %v, want nil: nothing is aborted", err, after)
		}
		w.wantItems(t, 1, 2)
		return
	}
	for _, err := range []error{after, err} {
		wantIs(t, err, thole.ErrTxAborted, thole.ErrUnique)
		wantFirstFailure(t, err, "insert into item (id, name) values (1, 'again')", "23505")
	}
	wantOutcome(t, err, thole.RolledBack)
	w.wantItems(t)
}

// wantFirstFailure checks that err wraps the failure of a statement and says so.
func wantFirstFailure(t *testing.T, err error, query, code string) {
	t.Helper()
	var first *thole.Error
	for err := err; errors.As(err, &first) && first.Query == ""; {
		err = first.Err
	}
	if first == nil || first.Query != query || first.Code != code {
		t.Errorf("got error %v, want one that wraps %s of %q", err, code, query)
	}
	wantText(t, err, code, query)
}

// swallowedFirstError fails before anything else was sent. SQLite goes on, as in
// A6.
func swallowedFirstError(t *testing.T, w *world) {
	firsts := []struct {
		name, query, code string
		args              []any
	}{
		{"syntax", "selec 1", "42601", nil},
		{"syntax with arguments", "selec ?", "42601", []any{1}},
		{"table", "insert into nowhere values (1)", "42P01", nil},
		{"table with arguments", "insert into nowhere values (?)", "42P01", []any{1}},
	}
	for _, first := range firsts {
		t.Run(first.name, func(t *testing.T) {
			err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
				if _, err := tx.ExecContext(tx.Context(), first.query, first.args...); err == nil {
					t.Errorf("%s: got no error", first.query)
				}
				_ = insert(tx.Context(), tx, 1)
				return nil
			})
			if w.Engine() != thole.Postgres {
				if err != nil {
					t.Errorf("got error %v, want nil: nothing is aborted", err)
				}
				w.wantItems(t, 1)
				w.exec(t, "delete from item")
				return
			}
			wantIs(t, err, thole.ErrTxAborted)
			wantOutcome(t, err, thole.RolledBack)
			wantFirstFailure(t, err, first.query, first.code)
			w.wantItems(t)
		})
	}
}

func failureAtCommit(t *testing.T, w *world) {
	var hooks ledger
	err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
		hooks.register(tx)
		if err := insert(tx.Context(), tx, 1); err != nil {
			t.Error(err)
		}
		_, err := tx.ExecContext(tx.Context(), "insert into part (id, item) values (1, 99)")
		if err != nil {
			t.Errorf("insert part: got error %v, want it deferred", err)
		}
		return nil
	})
	wantIs(t, err, thole.ErrForeignKey)
	wantOutcome(t, err, thole.RolledBack)
	if errors.Is(err, thole.ErrCommitUnknown) {
		t.Errorf("got error %v, want one that leaves nothing open", err)
	}
	code := map[thole.Engine]string{thole.Postgres: "23503", thole.SQLite: "SQLITE_CONSTRAINT_FOREIGNKEY"}[w.Engine()]
	var told *thole.Error
	if !errors.As(err, &told) || told.Code != code {
		t.Errorf("got error %v, want one with Code %s", err, code)
	}
	hooks.want(t, "before", "rollback")
	w.wantItems(t)
}

func errorUndoesItsLevel(t *testing.T, w *world) {
	err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
		if err := insert(tx.Context(), tx, 1); err != nil {
			return err
		}
		err := tx.WithSession(tx.Context(), func(inner *thole.Tx) error {
			if err := insert(inner.Context(), inner, 2); err != nil {
				t.Error(err)
			}
			return errFn
		})
		if err != errFn {
			t.Errorf("nested session: got error %v, want its fn's own", err)
		}
		return insert(tx.Context(), tx, 3)
	})
	if err != nil {
		t.Errorf("got error %v, want nil", err)
	}
	w.wantItems(t, 1, 3)
}

// severalError wraps several, as others than errors.Join do.
type severalError []error

func (s severalError) Error() string   { return fmt.Sprint([]error(s)) }
func (s severalError) Unwrap() []error { return s }

func wrappedErrorIsRecognised(t *testing.T, w *world) {
	fail, _ := w.curable(t)
	wrappers := map[string]func(error) error{
		"%w":          func(err error) error { return fmt.Errorf("add item: %w", err) },
		"errors.Join": func(err error) error { return errors.Join(errFn, err) },
		"several":     func(err error) error { return severalError{errFn, err} },
		"all": func(err error) error {
			return fmt.Errorf("%w, %w", errFn, errors.Join(errFn, severalError{nil, fmt.Errorf("add item: %w", err)}))
		},
	}
	for name, wrap := range wrappers {
		ran := 0
		err := w.WithSessionOptions(t.Context(), thole.SessionOptions{MaxAttempts: 2}, func(tx *thole.Tx) error {
			if ran++; ran == 1 {
				return wrap(fail(tx))
			}
			return nil
		})
		if err != nil || ran != 2 {
			t.Errorf("%s: fn ran %d times and the error is %v, want 2 times and nil", name, ran, err)
		}
	}
}

func misuseIsTyped(t *testing.T, w *world) {
	nothing := func(*thole.Tx) error { t.Error("fn ran"); return nil }
	shut := w.reopen(t)
	if err := shut.Close(); err != nil {
		t.Fatal(err)
	}
	var none context.Context
	sessions := map[string]func() error{
		"nil fn":           func() error { return w.WithSession(t.Context(), nil) },
		"nil fn, options":  func() error { return w.WithSessionOptions(t.Context(), thole.SessionOptions{ReadOnly: true}, nil) },
		"nil ctx":          func() error { return w.WithSession(none, nothing) },
		"nil ctx, options": func() error { return w.WithSessionOptions(none, thole.SessionOptions{}, nothing) },
		"closed":           func() error { return shut.WithSession(t.Context(), nothing) },
		"nil fn, value": func() error {
			_, err := thole.WithSession[int](t.Context(), w, nil)
			return err
		},
		"nil fn, nested": func() error {
			return w.WithSession(t.Context(), func(tx *thole.Tx) error { return tx.WithSession(tx.Context(), nil) })
		},
		"nil ctx, nested": func() error {
			return w.WithSession(t.Context(), func(tx *thole.Tx) error { return tx.WithSession(none, nothing) })
		},
	}
	for name, session := range sessions {
		var err error
		if v, _ := recovered(func() { err = session() }); v != nil {
			t.Errorf("%s: got the panic %v", name, v)
		}
		if !errors.As(err, new(*thole.Error)) {
			t.Errorf("%s: got error %v, want a *thole.Error", name, err)
		}
		if closed := errors.Is(err, thole.ErrClosed); closed != (name == "closed") {
			t.Errorf("%s: got error %v; is it ErrClosed: %t", name, err, closed)
		}
	}
}

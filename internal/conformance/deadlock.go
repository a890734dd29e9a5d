package conformance

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/tholedb/thole"
)

// deadlock is section L: the DB or the ctx from outside, used inside a session
// where tx was meant.
var deadlock = []sentence{
	{"L1", clauses(
		sentence{"nested", waitsForItself},
		sentence{"another goroutine", waitsForAnother},
		sentence{"same place", samePlaceElsewhere},
		sentence{"same call", sameCallElsewhere},
		sentence{"ctx", waitEndsWithContext},
	)},
	{"L2", sessionInCtxIsJoined},
}

// impatient has waits for the writer end soon.
func impatient(cfg *thole.Config) { cfg.Session.LockTimeout = 50 * time.Millisecond }

// outsides are the ways to write outside the session that one is in. A statement
// has no LockTimeout of its own, and its ctx ends. On PostgreSQL each has a
// connection of its own, and none waits.
func outsides(w *world) map[string]func(ctx context.Context, id int) error {
	return map[string]func(ctx context.Context, id int) error{
		"WithSession": func(ctx context.Context, id int) error {
			return w.WithSession(ctx, func(tx *thole.Tx) error { return insert(ctx, tx, id) })
		},
		"statement": func(ctx context.Context, id int) error {
			ctx, cancel := w.briefly(ctx)
			defer cancel()
			return insert(ctx, w, id)
		},
		"view": func(ctx context.Context, id int) error {
			ctx, cancel := w.briefly(ctx)
			defer cancel()
			_, err := w.Sqlx().ExecContext(ctx, "insert into item (id, name) values ($1, 'view')", id)
			return err
		},
	}
}

// briefly is ctx for a statement that waits for SQLite's writer.
func (w *world) briefly(ctx context.Context) (context.Context, context.CancelFunc) {
	if w.Engine() == thole.Postgres {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, 50*time.Millisecond)
}

// waited is what a wait that came to nothing matches, besides.
func waited(name string) error {
	if name == "WithSession" {
		return thole.ErrLocked
	}
	return thole.ErrTimeout
}

func waitsForItself(t *testing.T, w *world) {
	on := w.reopen(t, impatient)
	id := 10
	for name, outside := range outsides(on) {
		id++
		err := on.WithSessionOptions(t.Context(), thole.SessionOptions{Label: "holder"}, func(tx *thole.Tx) error {
			if err := insert(t.Context(), tx, 1); err != nil {
				return err
			}
			err := outside(t.Context(), id)
			if on.Engine() == thole.Postgres {
				return errors.Join(err, errFn)
			}
			wantIs(t, err, thole.ErrNested)
			if errors.Is(err, thole.ErrLocked) {
				t.Errorf("%s: got error %v, want it not to be %v", name, err, thole.ErrLocked)
			}
			wantText(t, err, `session "holder" opened at conformance/deadlock.go:`, "s ago", "use its Tx")
			return errFn
		})
		wantIs(t, err, errFn)
	}
	if on.Engine() == thole.Postgres {
		on.wantItems(t, 11, 12, 13)
	} else {
		on.wantItems(t)
	}
}

// waitsForAnother has a goroutine wait that the session does not enclose.
func waitsForAnother(t *testing.T, w *world) {
	on := w.reopen(t, impatient)
	if on.Engine() == thole.Postgres { // whose writers wait for rows alone
		waitsForRow(t, w)
		return
	}
	err := on.WithSessionOptions(t.Context(), thole.SessionOptions{Label: "holder"}, func(tx *thole.Tx) error {
		if err := begin(tx); err != nil {
			return err
		}
		for name, outside := range outsides(on) {
			ended := make(chan error, 1)
			go func() { ended <- outside(t.Context(), 1) }()
			err := receive(t, ended)
			wantIs(t, err, waited(name))
			if errors.Is(err, thole.ErrNested) {
				t.Errorf("%s: got error %v, want it not to be %v", name, err, thole.ErrNested)
			}
			wantText(t, err, `session "holder" opened at conformance/deadlock.go:`, "s ago")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	on.wantItems(t)
}

// waitsForRow waits on PostgreSQL for a row that the session around has locked.
func waitsForRow(t *testing.T, w *world) {
	on := w.reopen(t, impatient)
	on.exec(t, "insert into item (id, name) values (1, 'one')")
	write := func(tx *thole.Tx) error {
		_, err := tx.ExecContext(t.Context(), "update item set note = 'locked'")
		return err
	}
	err := on.WithSession(t.Context(), func(tx *thole.Tx) error {
		if err := write(tx); err != nil {
			return err
		}
		wantIs(t, on.WithSession(t.Context(), write), thole.ErrLocked)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// samePlaceElsewhere waits in a session of another database, opened at the same
// place as the one that has the writer, in another goroutine.
func samePlaceElsewhere(t *testing.T, w *world) {
	on, other := w.reopen(t, impatient), newWorld(t, w.target)
	run := func(at *world, fn func() error) error {
		return at.WithSession(t.Context(), func(tx *thole.Tx) error {
			if err := begin(tx); err != nil {
				return err
			}
			return fn()
		})
	}
	held, leave, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- run(on, func() error { close(held); <-leave; return nil })
	}()
	<-held
	err := run(other, func() error {
		return on.WithSession(t.Context(), func(tx *thole.Tx) error { return insert(t.Context(), tx, 1) })
	})
	close(leave)
	if err := receive(t, ended); err != nil {
		t.Error(err)
	}
	if on.Engine() == thole.Postgres {
		if err != nil {
			t.Errorf("got error %v, want nil: nobody waits", err)
		}
		return
	}
	wantIs(t, err, thole.ErrLocked)
}

// sameCallElsewhere waits for a session that another goroutine has opened by the
// same calls, as the handlers of a server do.
func sameCallElsewhere(t *testing.T, w *world) {
	on := w.reopen(t, impatient)
	gaveUp, ended := make(chan struct{}), make(chan error, 2)
	for range cap(ended) {
		go func() {
			ended <- on.WithSession(t.Context(), func(tx *thole.Tx) error {
				if err := begin(tx); err != nil {
					return err
				}
				<-gaveUp
				return nil
			})
		}()
	}
	if on.Engine() != thole.Postgres { // where nobody waits
		err := receive(t, ended)
		wantIs(t, err, thole.ErrLocked)
		if errors.Is(err, thole.ErrNested) {
			t.Errorf("got error %v, want it not to be %v", err, thole.ErrNested)
		}
		ended <- nil
	}
	close(gaveUp)
	for range cap(ended) {
		if err := receive(t, ended); err != nil {
			t.Error(err)
		}
	}
}

// waitEndsWithContext before LockTimeout does.
func waitEndsWithContext(t *testing.T, w *world) {
	err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
		if err := insert(t.Context(), tx, 1); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		err := w.WithSession(ctx, func(inner *thole.Tx) error {
			return insert(ctx, inner, 1) // on PostgreSQL the same key waits for the session around
		})
		wantIs(t, err, context.DeadlineExceeded, thole.ErrTimeout)
		if w.Engine() == thole.SQLite {
			wantIs(t, err, thole.ErrNested)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	w.wantItems(t, 1)
}

func sessionInCtxIsJoined(t *testing.T, w *world) {
	id := 0
	err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
		var errs []error
		for _, outside := range outsides(w) {
			id++
			errs = append(errs, outside(tx.Context(), id))
		}
		return errors.Join(append(errs, errFn)...)
	})
	wantIs(t, err, errFn)
	if errors.Is(err, thole.ErrLocked) || errors.Is(err, thole.ErrNested) {
		t.Errorf("got error %v, want fn's own alone", err)
	}
	w.wantItems(t)
}

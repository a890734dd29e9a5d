package dbtest

import (
	"context"
	"errors"
	"testing"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/engine"
)

// errUndo makes a session roll back.
var errUndo = errors.New("the test has ended")

// Sub opens a savepoint of tx for a subtest, which is undone when that ends. Until
// then tx itself can't be used, and no other subtest can have one: parallel
// subtests need a [Session] each.
func Sub(tb testing.TB, tx *thole.Tx) *thole.Tx {
	tb.Helper()
	return keepOpen(tb, func(ctx context.Context, fn func(tx *thole.Tx) error) error {
		err := tx.WithSession(ctx, fn)
		if errors.Is(err, thole.ErrNested) || errors.Is(err, thole.ErrBusy) {
			tb.Errorf("dbtest: the session is in use, by another subtest perhaps: parallel subtests need a Session each")
		}
		return err
	})
}

// keepOpen returns the Tx of a session, which is rolled back when the test ends.
func keepOpen(tb testing.TB, session func(context.Context, func(tx *thole.Tx) error) error) *thole.Tx {
	tb.Helper()
	opened, undo, ended := make(chan *thole.Tx), make(chan struct{}), make(chan error, 1)
	// The test's ctx ends before the cleanup.
	ctx := engine.At(context.WithoutCancel(tb.Context()), engine.Here())
	go func() {
		ended <- session(ctx, func(tx *thole.Tx) error {
			opened <- tx
			<-undo
			return errUndo
		})
	}()
	select {
	case tx := <-opened:
		tb.Cleanup(func() {
			close(undo)
			if err := <-ended; !errors.Is(err, errUndo) {
				tb.Errorf("dbtest: undo the session: %v", err)
			}
		})
		return tx
	case err := <-ended:
		tb.Fatalf("dbtest: open a session: %v", err)
		return nil
	}
}

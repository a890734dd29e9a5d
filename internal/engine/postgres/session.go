package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tholedb/thole/internal/engine"
)

// session is a transaction on one connection.
type session struct {
	*conn
	opts    engine.Options
	depth   int           // savepoints that are open
	reading int           // the depth of the outermost that is read-only, or 0
	aborted *engine.Error // the failure that aborted the transaction, or nil
}

var _ engine.Session = (*session)(nil)

// Failed implements [engine.Conn].
func (s *session) Failed(ctx context.Context, err error) *engine.Error {
	failed := s.explain(ctx, err)
	if failed.Aborts == engine.AbortsLevel && s.aborted == nil {
		s.aborted = failed
	}
	if failed.Code == readOnlyTransaction && !s.opts.ReadOnly && s.reading == 0 {
		failed.Retry, s.once = engine.RetryAsked, true
	}
	if s.ended() {
		failed.Aborts = engine.AbortsSession
	}
	return failed
}

// ended reports whether a statement ended the transaction behind our back, or
// may have: with "commit; begin" only the tag gives it away.
func (s *session) ended() bool {
	s.controlled = s.controlled || !s.pgx.IsClosed() && s.pgx.PgConn().TxStatus() == 'I'
	return s.controlled
}

// Savepoint implements [engine.Session]. The server forgets at the end of a
// subtransaction that it was read-only, however it ends.
func (s *session) Savepoint(ctx context.Context, readOnly bool) error {
	ctx, cancel := engine.Detached(ctx)
	defer cancel()
	text := fmt.Sprintf("savepoint thole_%d", s.depth+1)
	if readOnly {
		text += "; set local transaction_read_only = on"
	}
	if err := s.run(ctx, text); err != nil {
		return fmt.Errorf("savepoint: %w", s.Failed(ctx, err))
	}
	s.depth++
	if readOnly && s.reading == 0 {
		s.reading = s.depth
	}
	return nil
}

// Release implements [engine.Session].
func (s *session) Release(ctx context.Context) error {
	ctx, cancel := engine.Detached(ctx)
	defer cancel()
	if err := s.run(ctx, fmt.Sprintf("release thole_%d", s.depth)); err != nil {
		return fmt.Errorf("release savepoint: %w", s.Failed(ctx, err))
	}
	s.pop()
	return nil
}

// pop notes that the innermost savepoint has ended.
func (s *session) pop() {
	s.depth--
	if s.reading > s.depth {
		s.reading = 0
	}
}

// RollbackTo implements [engine.Session]. The savepoint is released too, or the
// server would keep a subtransaction for it.
func (s *session) RollbackTo(ctx context.Context) error {
	ctx, cancel := engine.Detached(ctx)
	defer cancel()
	if err := s.run(ctx, fmt.Sprintf("rollback to thole_%[1]d; release thole_%[1]d", s.depth)); err != nil {
		return fmt.Errorf("roll back to savepoint: %w", s.Failed(ctx, err))
	}
	s.pop()
	s.aborted = nil
	return nil
}

// Rollback implements [engine.Session].
func (s *session) Rollback(ctx context.Context, cause error) (engine.Outcome, error) {
	ctx, cancel := engine.Detached(ctx)
	defer cancel()
	if s.pgx.IsClosed() {
		// The server rolls back what has lost its connection.
		s.release()
		if errors.Is(cause, engine.ErrConnLost) {
			return engine.RolledBack, nil
		}
		return engine.RolledBack, errors.Join(cause, s.explain(ctx, pgconn.ErrConnClosed))
	}
	if s.ended() {
		s.giveBack()
		return engine.Unknown, errors.Join(cause, errControlled)
	}
	if _, err := s.end(ctx, "rollback"); err != nil {
		s.destroy()
		failed := s.explain(ctx, err)
		return engine.RolledBack, errors.Join(cause, fmt.Errorf("roll back: %w", failed))
	}
	s.release() // the pool destroys a connection that isn't idle
	return engine.RolledBack, nil
}

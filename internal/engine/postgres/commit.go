package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tholedb/thole/internal/engine"
)

// Commit implements [engine.Session].
func (s *session) Commit(ctx context.Context, observed bool) (engine.Outcome, error) {
	c := s.conn
	switch {
	case c == nil:
		return engine.Committed, nil
	case c.wire.IsClosed():
		c.release()
		return engine.RolledBack, fmt.Errorf("commit: %w", c.explain(ctx, pgconn.ErrConnClosed))
	case s.ended():
		c.giveBack()
		return engine.Unknown, fmt.Errorf("commit: %w", errControlled)
	case c.status() == 'E':
		return engine.RolledBack, s.rollBackInstead(ctx, abortedBy(s.aborted))
	case !s.ahead.begun:
		c.release()
		return engine.Committed, nil
	case !s.awaitsCommit(observed):
		s.finish(ctx, "commit")
		return engine.Committed, nil // nothing can be lost
	}
	c.settle()
	tag, err := c.end(ctx, "commit")
	outcome, failed := reply{tag: tag, err: err, readOnly: s.opts.ReadOnly, unreplicated: c.missedStandbys()}.outcome()
	if outcome == engine.Unknown {
		c.destroy()
	} else {
		c.release()
	}
	if failed == nil {
		return outcome, nil
	}
	return outcome, fmt.Errorf("commit: %w", failed)
}

// awaitsCommit reports whether the answer to COMMIT is waited for: where
// something was changed, somebody acts on it, or the server may still refuse.
func (s *session) awaitsCommit(observed bool) bool {
	return s.conn.used && (!s.opts.ReadOnly || observed || s.opts.Isolation == sql.LevelSerializable)
}

// rollBackInstead rolls back where COMMIT would be of no use.
func (s *session) rollBackInstead(ctx context.Context, cause error) error {
	cause = fmt.Errorf("commit: %w", cause)
	if _, err := s.Rollback(ctx, cause); err != nil {
		return err
	}
	return cause
}

// reply is what came back for a COMMIT, and what it was for.
type reply struct {
	tag      string
	err      error
	readOnly bool // nothing was changed

	unreplicated bool // the primary alone has it
}

// outcome is what became of the transaction. The error is nil exactly where it
// is Committed.
func (r reply) outcome() (engine.Outcome, *engine.Error) {
	switch {
	case r.err == nil && r.tag == "COMMIT" && r.unreplicated:
		return engine.Unknown, errUnreplicated()
	case r.err == nil && r.tag == "COMMIT":
		return engine.Committed, nil
	case r.err == nil && r.tag == "ROLLBACK":
		return engine.RolledBack, abortedBy(nil)
	case r.err != nil && !unanswered(r.err):
		return engine.RolledBack, explain(r.err, "")
	case r.readOnly:
		return engine.RolledBack, lostBy(explain(r.err, ""))
	default:
		return engine.Unknown, unknownBy(explain(r.err, ""))
	}
}

// unanswered reports whether err leaves open what became of a statement that
// was sent. Only an error of the server that leaves the connection standing
// says that the statement had no effect, and not even all of those.
func unanswered(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || isFatal(pg) {
		return true
	}
	switch pg.Code {
	case "40003", "57P01", "57P02", "57P03":
		return true
	}
	return pg.Code[:min(2, len(pg.Code))] == "08"
}

var errControlled = &engine.Error{
	Kind:    engine.ErrTxControl,
	Message: "a statement of the session ended its transaction, and what it did before may be committed",
	Retry:   engine.RetryForbidden,
}

// abortedBy says that the transaction was aborted by an earlier failure, if it
// is known. What can cure that failure cures the session.
func abortedBy(first *engine.Error) *engine.Error {
	if first == nil {
		return &engine.Error{Kind: engine.ErrTxAborted, Message: "transaction aborted by an earlier error"}
	}
	return &engine.Error{
		Kind:    engine.ErrTxAborted,
		Message: "transaction aborted by an earlier error: " + first.Message,
		Code:    first.Code,
		Retry:   first.Retry,
		Err:     first,
	}
}

// unknownBy says that what was sent may be committed.
func unknownBy(failed *engine.Error) *engine.Error {
	failed.Kind = engine.ErrCommitUnknown
	failed.Message = engine.ErrCommitUnknown.Error() + ": " + failed.Message
	failed.Retry = engine.RetryForbidden
	failed.Aborts = engine.AbortsSession
	return failed
}

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
	ctx, cancel := engine.Detached(ctx)
	defer cancel()
	status := s.pgx.PgConn().TxStatus()
	switch {
	case s.pgx.IsClosed():
		s.release()
		return engine.RolledBack, fmt.Errorf("commit: %w", s.explain(ctx, pgconn.ErrConnClosed))
	case s.ended():
		s.giveBack()
		return engine.Unknown, fmt.Errorf("commit: %w", errControlled)
	case status == 'E':
		return engine.RolledBack, s.rollBackInstead(ctx, abortedBy(s.aborted))
	}
	tag, err := s.end(ctx, "commit")
	got := reply{tag: tag, err: err, readOnly: s.opts.ReadOnly || !s.used, unreplicated: s.missedStandbys()}
	got.awaited = s.used && (observed || s.opts.Isolation == sql.LevelSerializable)
	outcome, failed := got.outcome()
	if outcome == engine.Unknown {
		s.destroy()
	} else {
		s.release()
	}
	if failed == nil {
		return outcome, nil
	}
	return outcome, fmt.Errorf("commit: %w", failed)
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
	awaited  bool // somebody acts on the answer, or the server may still refuse

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
	case r.readOnly && !r.awaited:
		return engine.Committed, nil // nothing can be lost
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

package probe

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/tholedb/thole/internal/engine"
)

// This file has the faults of a session's end that its engine can't be made to have:
// what becomes of the session is done, and its caller is told what he would be.

// awaited reports whether anybody waits for COMMIT to say something. On SQLite
// somebody always does; the rule is PostgreSQL's on both.
func awaited(opts engine.Options, observed bool) bool {
	return !opts.ReadOnly || observed || opts.Isolation == sql.LevelSerializable
}

// undo ends a session whose COMMIT has failed.
func undo(ctx context.Context, s *session, failed *engine.Error) (engine.Outcome, error) {
	cause := fmt.Errorf("commit: %w", failed)
	outcome, err := s.inner.Rollback(ctx, cause)
	if err != nil {
		return outcome, err
	}
	return outcome, cause
}

// loseBefore ends a session whose COMMIT did not arrive. lost is what the caller is
// told of a session that has changed nothing, unknown of any other.
func loseBefore(ctx context.Context, s *session, lost, unknown *engine.Error) (engine.Outcome, error) {
	if s.opts.ReadOnly {
		return undo(ctx, s, lost)
	}
	if outcome, err := undo(ctx, s, unknown); outcome != engine.RolledBack {
		return outcome, err
	}
	return engine.Unknown, fmt.Errorf("commit: %w", unknown)
}

// loseAfter ends a session the answer to whose COMMIT did not arrive.
func loseAfter(ctx context.Context, s *session, lost, unknown *engine.Error) (engine.Outcome, error) {
	if s.opts.ReadOnly {
		return undo(ctx, s, lost)
	}
	_, _ = s.inner.Commit(ctx, true) // what it says is lost
	return engine.Unknown, fmt.Errorf("commit: %w", unknown)
}

// failToRollBack ends a session whose ROLLBACK has failed. It is undone all the
// same, with its connection.
func failToRollBack(ctx context.Context, s *session, cause error, failed *engine.Error) (engine.Outcome, error) {
	outcome, err := s.inner.Rollback(ctx, cause)
	if err == nil {
		err = cause
	}
	return outcome, errors.Join(err, fmt.Errorf("roll back: %w", failed))
}

package probe

import (
	"context"
	"time"

	"github.com/tholedb/thole/internal/engine"
)

// onSQLite are the faults of a SQLite database. Its disk is really full, COMMIT is
// really refused, and an interrupt takes with it what SQLite's does. The other
// errors are made here, with SQLite's names for them, and mean what they mean from
// the engine.
type onSQLite struct{}

// breakable is what SQLite's sessions, and its connections outside one, can be made
// to fail by.
type breakable interface {
	Interrupt(ctx context.Context, text string) error
	Delay(ctx context.Context, text string, delay time.Duration) error
	FillDisk(ctx context.Context, text string) error
}

func (onSQLite) failBegin(context.Context, point) error {
	return &engine.Error{
		Code:    "SQLITE_CANTOPEN",
		Message: "begin session: unable to open database file",
		Aborts:  engine.AbortsSession,
	}
}

// loseConnection says what the engine says of a connection that is closed.
func (onSQLite) loseConnection(context.Context, point) error {
	return &engine.Error{Kind: engine.ErrConnLost, Message: "connection is closed", Aborts: engine.AbortsSession}
}

func (onSQLite) interrupt(ctx context.Context, at point) error {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	return at.conn.(breakable).Interrupt(ctx, at.text)
}

func (onSQLite) slowQuery(ctx context.Context, at point, delay time.Duration) error {
	return at.conn.(breakable).Delay(ctx, at.text, delay)
}

func (onSQLite) diskFull(ctx context.Context, at point) error {
	return at.conn.(breakable).FillDisk(ctx, at.text)
}

// failCommit has SQLite's commit hook refuse it, which it does not ask of a session
// that only reads.
func (onSQLite) failCommit(ctx context.Context, s *session) (engine.Outcome, error) {
	if s.opts.ReadOnly {
		return undo(ctx, s, ioFailed("SQLITE_IOERR"))
	}
	s.inner.(interface{ RefuseCommit() }).RefuseCommit()
	return s.inner.Commit(ctx, true)
}

func (onSQLite) failSerialization(ctx context.Context, s *session) (engine.Outcome, error) {
	return undo(ctx, s, &engine.Error{
		Kind:    engine.ErrSerialization,
		Code:    "SQLITE_BUSY_SNAPSHOT",
		Message: "database is locked",
		Retry:   engine.RetryUnasked,
	})
}

func (onSQLite) loseCommit(ctx context.Context, s *session) (engine.Outcome, error) {
	return loseBefore(ctx, s, ioFailed("SQLITE_IOERR"), commitInDoubt())
}

func (onSQLite) loseCommitReply(ctx context.Context, s *session) (engine.Outcome, error) {
	return loseAfter(ctx, s, ioFailed("SQLITE_IOERR"), commitInDoubt())
}

func (onSQLite) failRollback(ctx context.Context, s *session, cause error) (engine.Outcome, error) {
	return failToRollBack(ctx, s, cause, ioFailed("SQLITE_IOERR_WRITE"))
}

// ioFailed is what a disk that fails is told as.
func ioFailed(code string) *engine.Error {
	return &engine.Error{Code: code, Message: "disk I/O error"}
}

// commitInDoubt is what is told where the disk has failed under COMMIT, and goes on
// failing.
func commitInDoubt() *engine.Error {
	failed := ioFailed("SQLITE_IOERR_FSYNC")
	failed.Kind, failed.Retry = engine.ErrCommitUnknown, engine.RetryForbidden
	return failed
}

var _ damages = onSQLite{}

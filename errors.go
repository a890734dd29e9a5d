package thole

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tholedb/thole/internal/engine"
	"github.com/tholedb/thole/internal/migrate"
)

// What a statement or a session can fail with, on both engines, found with
// [errors.Is]. The table names the SQLSTATEs of [PostgreSQL] and the extended
// result codes of [SQLite] behind each; *[Error] has the code itself. Nothing
// is ever concluded from the text of a message.
//
//	              PostgreSQL                       SQLite (without SQLITE_)
//	ErrUnique        23505                         CONSTRAINT_UNIQUE, _PRIMARYKEY, _ROWID
//	ErrForeignKey    23503                         CONSTRAINT_FOREIGNKEY
//	ErrNotNull       23502                         CONSTRAINT_NOTNULL
//	ErrCheck         23514                         CONSTRAINT_CHECK
//	ErrExclusion     23P01                         (has none)
//	ErrSerialization 40001                         BUSY_SNAPSHOT
//	ErrDeadlock      40P01                         (has none)
//	ErrLocked        55P03                         BUSY, LOCKED, and the wait for the writer
//	ErrReadOnly      25006                         READONLY and its kin
//	ErrTimeout       57014, a deadline of a ctx    a deadline of a ctx
//	ErrConnLost      class 08, 57P01 to 57P05,     (has none)
//	                 25P03, 25P04, FATAL, PANIC,
//	                 and a connection that broke
//	ErrTxAborted     25P02                         the engine rolled back by itself
//
// [errors.ErrUnsupported] is what a session can't do: SQLSTATE 25001, COPY from
// STDIN; ATTACH, DETACH and VACUUM on SQLite.
//
// [PostgreSQL]: https://www.postgresql.org/docs/current/errcodes-appendix.html
// [SQLite]: https://www.sqlite.org/rescode.html
var (
	// ErrUnique is returned by a statement, or by the COMMIT of a deferred
	// constraint, that would have made a second row with the same key.
	ErrUnique = engine.ErrUnique

	// ErrForeignKey is returned by a statement, or by the COMMIT of a deferred
	// constraint, that would have left a reference to no row.
	ErrForeignKey = engine.ErrForeignKey

	// ErrNotNull is returned by a statement that would have left a required
	// column empty.
	ErrNotNull = engine.ErrNotNull

	// ErrCheck is returned by a statement whose row a CHECK refuses.
	ErrCheck = engine.ErrCheck

	// ErrExclusion is returned by a statement whose row conflicts with another
	// under an EXCLUDE constraint.
	ErrExclusion = engine.ErrExclusion

	// ErrSerialization is returned when concurrent sessions could not have run
	// one after the other. Running the session again cures it, see
	// [SessionOptions.MaxAttempts].
	ErrSerialization = engine.ErrSerialization

	// ErrDeadlock is returned to one of several sessions that wait for each
	// other. Running it again cures it, and locking rows in one order
	// everywhere prevents it.
	ErrDeadlock = engine.ErrDeadlock

	// ErrLocked is returned when a lock was not had in time: SQLite's writer, or
	// one of its readers, within [SessionOptions.LockTimeout], NOWAIT or
	// lock_timeout on PostgreSQL.
	ErrLocked = engine.ErrLocked

	// ErrReadOnly is returned by a statement that writes in a read-only
	// session, or on a database that is read-only.
	ErrReadOnly = engine.ErrReadOnly

	// ErrTimeout is returned when a deadline ended a statement or a session:
	// Timeout, StatementTimeout, or the ctx's own. Where it was a deadline of
	// the program the error also matches [context.DeadlineExceeded].
	ErrTimeout = engine.ErrTimeout

	// ErrConnLost is returned when the connection broke before COMMIT was
	// sent: nothing happened.
	ErrConnLost = engine.ErrConnLost

	// ErrTxAborted is returned by a session that could not commit although fn
	// returned nil, because a statement in it had failed, and by statements
	// after that one. It wraps the first failure, so that it matches what that
	// was, too: test for ErrTxAborted before [ErrUnique] and the like. On
	// PostgreSQL every failed statement does this, on SQLite few; to go on after
	// one on both, run it in a session of its own, with [Tx.WithSession].
	ErrTxAborted = engine.ErrTxAborted

	// ErrTxControl is returned by SQL that begins or ends a transaction or a
	// savepoint, by Commit and Rollback of a view, and by the session in which
	// that happened. Use [Tx.WithSession] for a savepoint.
	ErrTxControl = engine.ErrTxControl

	// ErrTxDone is returned by whatever is used after its session has ended.
	// It is also [sql.ErrTxDone].
	ErrTxDone = engine.ErrTxDone

	// ErrNested is returned when a session is used while one nested in it is
	// open, when a nested session asks for what the outer one rules out, and when
	// SQLite's writer was waited for in vain because a session further up in the
	// same goroutine has it: use its Tx, or the ctx of [Tx.Context].
	ErrNested = engine.ErrNested

	// ErrBusy is returned by a statement that comes while another of the same
	// session, or its rows, are in progress.
	ErrBusy = errors.New("session is busy")

	// ErrRowsOpen is returned by a session whose fn returned nil and left rows
	// open. It is rolled back.
	ErrRowsOpen = errors.New("rows left open")

	// ErrCommitUnknown is returned when COMMIT, or a statement outside a
	// session, was sent and the connection broke before the answer came: it
	// may have happened or not. Also when the server has committed and says
	// that it stopped waiting for its standbys, when ctx ended among the rows
	// of a statement outside a session that the server had finished, and when
	// the disk failed under SQLite's COMMIT and went on failing: a process that
	// opened the file again might find the work in its log.
	ErrCommitUnknown = engine.ErrCommitUnknown

	// ErrAlreadyCommitted is returned by a session whose
	// [SessionOptions.IdempotencyKey] an earlier call has committed. fn has not
	// run, or has been rolled back.
	ErrAlreadyCommitted = engine.ErrAlreadyCommitted

	// ErrClosed is returned by everything on a DB that was closed.
	ErrClosed = engine.ErrClosed

	// ErrMigrationDirty is returned by [DB.Migrate] on a database that another
	// tool left in the middle of a migration: see what that did, and repair it
	// with that tool.
	ErrMigrationDirty = migrate.ErrDirty

	// ErrMigrationUnknown is returned by [DB.Migrate] on a database with a
	// migration that the files don't have: a newer program has migrated it.
	ErrMigrationUnknown = migrate.ErrUnknown

	// ErrURL is returned by [Open] and [ParseURL] for a database URL that they
	// can't follow.
	ErrURL = engine.ErrURL
)

// Error is a failure of a statement or a session with what is known of it.
// [errors.As] finds it, [errors.Is] finds the sentinel that it is, and
// unwrapping leads to the driver's own error. Its text has no password, and what
// the engine is known to quote of arguments and rows is cut out of it; the
// driver's own error is whole.
type Error struct {
	Engine     Engine
	Code       string // the SQLSTATE, or SQLite's name of the extended result code
	Constraint string // where the engine names it
	Table      string // where the engine names it
	Column     string // where the engine names it
	Query      string // the text of the statement, as it was given
	Caller     string // file and line of the call that failed
	Err        error  `json:"-"` // the cause

	kind error
	text string
}

// Error reads "what happened (code), running "query" at file:line".
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("thole: ")
	b.WriteString(e.text)
	if e.Query != "" {
		fmt.Fprintf(&b, ", running %q", shorten(e.Query))
	}
	if e.Caller != "" {
		fmt.Fprintf(&b, " at %s", e.Caller)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is the sentinel that e stands for.
func (e *Error) Is(target error) bool {
	return e.kind != nil && (target == e.kind || errors.Is(e.kind, target))
}

// shorten keeps a statement readable within a message: one line, 80 characters.
func shorten(query string) string {
	const most = 80
	line := []rune(strings.Join(strings.Fields(query), " "))
	if len(line) <= most {
		return string(line)
	}
	return string(line[:most-1]) + "…"
}

// failure is an error of thole's own: nothing was sent.
func failure(kind error, format string, args ...any) *Error {
	return &Error{kind: kind, text: fmt.Sprintf(format, args...)}
}

// because is a failure with a cause, whose text ends the message.
func because(kind, cause error, format string, args ...any) *Error {
	e := failure(kind, format, args...)
	e.Err = cause
	e.text += ": " + strings.TrimPrefix(cause.Error(), "thole: ")
	return e
}

// explained is what the engine says of a failure, with the statement and the
// place in the program.
func (db *DB) explained(cause error, query string) *Error {
	e := &Error{Engine: db.Engine(), Query: query, Caller: engine.Here().String(), Err: cause, text: cause.Error()}
	if told, ok := errors.AsType[*engine.Error](cause); ok {
		e.kind, e.Code, e.Constraint, e.Table, e.Column = told.Kind, told.Code, told.Constraint, told.Table, told.Column
	}
	return e
}

// kindOf is the sentinel that the engine's explanation in err is.
func kindOf(err error) error {
	if told, ok := errors.AsType[*engine.Error](err); ok {
		return told.Kind
	}
	return nil
}

// contextError is why ctx is done: it matches ctx.Err() and context.Cause(ctx).
func contextError(ctx context.Context, what string) *Error {
	var kind error
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		kind = ErrTimeout
	}
	cause := engine.Cause(ctx)
	if errors.Is(cause, ctx.Err()) {
		return because(kind, cause, "%s", what)
	}
	return because(kind, &bothErrors{ctx.Err(), cause}, "%s", what)
}

// bothErrors reads on one line and matches either.
type bothErrors [2]error

func (b *bothErrors) Error() string   { return b[0].Error() + ": " + b[1].Error() }
func (b *bothErrors) Unwrap() []error { return b[:] }

// Outcome is what became of a session.
type Outcome uint8

const (
	// RolledBack says that nothing of the session is in the database.
	RolledBack = Outcome(engine.RolledBack)

	// Committed says that all of it is, as durably as the database is configured.
	Committed = Outcome(engine.Committed)

	// Unknown says that all of it is, or nothing.
	Unknown = Outcome(engine.Unknown)
)

// String is the outcome in words.
func (o Outcome) String() string {
	return [...]string{RolledBack: "rolled back", Committed: "committed", Unknown: "unknown"}[o]
}

// OutcomeOf says what became of the session whose WithSession returned err, or
// of the statement outside a session that did; of [ErrAlreadyCommitted] that the
// earlier call's is committed. Where sessions are nested, or fn used another DB, it
// is the outermost session's. err must be what was returned, or wrap it: any other
// error reads as rolled back.
//
// An error of reading what a statement outside a session returned (a column
// without a field, a second row for [One]) undoes the statement on SQLite; on
// PostgreSQL it is committed then, and the outcome says so.
func OutcomeOf(err error) Outcome {
	if err == nil {
		return Committed
	}
	if end, ok := errors.AsType[*ended](err); ok {
		return end.outcome
	}
	return RolledBack
}

// ended marks an error with the outcome that OutcomeOf finds in it.
type ended struct {
	outcome Outcome
	error
}

func (e *ended) Unwrap() error { return e.error }

// withOutcome marks err, unless OutcomeOf finds the right answer without.
func withOutcome(outcome Outcome, err error) error {
	if OutcomeOf(err) == outcome {
		return err
	}
	return &ended{outcome, err}
}

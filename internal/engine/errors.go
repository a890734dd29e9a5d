package engine

import (
	"context"
	"database/sql"
	"errors"
	"reflect"
	"strings"
)

// The kinds of failure. The root package exports them under the same names and
// documents them.
var (
	ErrUnique        = errors.New("unique constraint violated")
	ErrForeignKey    = errors.New("foreign key violated")
	ErrNotNull       = errors.New("null value in a not-null column")
	ErrCheck         = errors.New("check constraint violated")
	ErrExclusion     = errors.New("exclusion constraint violated")
	ErrSerialization = errors.New("serialization failure")
	ErrDeadlock      = errors.New("deadlock")
	ErrLocked        = errors.New("locked by another session")
	ErrReadOnly      = errors.New("read-only")
	ErrTimeout       = errors.New("timed out")
	ErrConnLost      = errors.New("connection lost")
	ErrTxAborted     = errors.New("transaction aborted")
	ErrTxControl     = errors.New("transaction control is the session's own")
	ErrTxDone        = sql.ErrTxDone
	ErrNested        = errors.New("nested session")
	ErrCommitUnknown = errors.New("it is unknown whether COMMIT took effect")
	ErrClosed        = errors.New("database is closed")
	ErrURL           = errors.New("invalid database URL")

	ErrAlreadyCommitted = errors.New("already committed by an earlier call")
)

// Error is a failure that the engine explained.
type Error struct {
	// Kind is one of the variables above, or nil.
	Kind error

	// Code is the SQLSTATE, or SQLite's name of the extended result code.
	Code string

	// What the engine names, where it does.
	Constraint, Table, Column string

	// Message is the engine's text, without values of arguments or rows.
	Message string

	// Retry says whether running the session again can cure it.
	Retry Retry

	// Aborts says what the failure takes with it.
	Aborts Extent

	// Err is the driver's own error, with the context's where that was the
	// reason. It can quote values, so it is not marshalled.
	Err error `json:"-"`
}

// Error is the message with its code.
func (e *Error) Error() string {
	if e.Code == "" {
		return e.Message
	}
	return e.Message + " (" + e.Code + ")"
}

// Is reports whether target is the kind of the failure.
func (e *Error) Is(target error) bool { return e.Kind != nil && target == e.Kind }

// Unwrap returns the driver's own error.
func (e *Error) Unwrap() error { return e.Err }

// Cause is [context.Cause] of a ctx that has ended. It may be the error of
// another session, as with errgroup, and is [Foreign] then.
func Cause(ctx context.Context) error { return Foreign(context.Cause(ctx)) }

// Foreign is the error of another session as the cause of one in this. It says
// nothing of what became of this one.
func Foreign(err error) error { return foreign{err} }

// foreign is an error in which none of thole's own is found.
type foreign struct{ error }

func (f foreign) Is(target error) bool {
	switch target {
	case ErrCommitUnknown, ErrTxControl, ErrAlreadyCommitted:
		return false
	}
	return errors.Is(f.error, target)
}

func (f foreign) As(target any) bool {
	own := reflect.TypeFor[Error]().PkgPath()
	t := reflect.TypeOf(target).Elem()
	if t.Kind() == reflect.Pointer && t.Elem().PkgPath() != "" && strings.HasPrefix(own, t.Elem().PkgPath()) {
		return false
	}
	return errors.As(f.error, target)
}

// Retry says whether running a session again can cure its failure.
type Retry uint8

// What can cure a failure.
const (
	RetryNever     Retry = iota
	RetryAsked           // where the session's options ask for attempts
	RetryUnasked         // also where they don't
	RetryForbidden       // never, whatever else stands in the same error: something may be committed
)

// Extent is how much of a session a failure takes with it.
type Extent uint8

// The extents of a failure.
const (
	AbortsNothing Extent = iota
	AbortsLevel          // until the innermost savepoint, or the session, is rolled back
	AbortsSession        // the whole session: only Rollback is left
)

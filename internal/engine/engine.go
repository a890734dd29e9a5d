// Package engine is what a session needs of a database engine, and no more.
//
// The root package writes the semantics of a session once, over [Engine] and
// [Session]; the packages below this one know how their engine does it. What
// the interface leaves open is what makes an engine fast or a test undoable:
//
//   - Begin may send nothing and take no connection until the first statement.
//   - Commit may put several sessions into one physical transaction, and
//     returns when it is known what became of it.
//   - Begin, Commit and Rollback may be a savepoint of a transaction that is
//     never committed.
//   - Several handles may stand over one session: they all come through the
//     same [Conn].
package engine

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"log/slog"
	"time"

	"github.com/tholedb/thole/internal/sqltext"
)

// Engine is one open database. Its methods may be called by any number of
// goroutines.
type Engine interface {
	// Name is "sqlite" or "postgres".
	Name() string

	// DriverName is the name under which sqlx knows how the engine writes
	// placeholders.
	DriverName() string

	// Dialect is how the engine reads SQL.
	Dialect() sqltext.Dialect

	// String says which database it is, without a password.
	String() string

	// CheckNamedValue converts an argument to what the driver takes.
	CheckNamedValue(value *driver.NamedValue) error

	// Array is a slice as one argument: what CheckNamedValue and the driver take.
	// A nil one is NULL.
	Array(list any) (any, error)

	// Isolation is the level that a session is given at least when it asks for
	// one, or an error that matches [errors.ErrUnsupported].
	Isolation(asked sql.IsolationLevel) (sql.IsolationLevel, error)

	// Begin starts a session. What the engine can't honour of the options is
	// an error that matches [errors.ErrUnsupported], before anything is sent.
	// A Begin that failed left nothing behind.
	Begin(ctx context.Context, opts Options) (Session, error)

	// Conn gives a connection for statements outside a session, each of which
	// commits by itself. Rows that a statement returned may be read until the
	// connection is closed.
	Conn(ctx context.Context) (AutoConn, error)

	// Keys is what differs between engines about the table of idempotency keys.
	Keys() Keys

	// Ping asks the database for an answer.
	Ping(ctx context.Context) error

	// BeginMigration starts a session in which a migration runs: the table
	// schema_migrations, as golang-migrate lays it out, exists in it, and until
	// it ends no other process is in such a session. It waits for its turn
	// until ctx is done.
	BeginMigration(ctx context.Context) (Session, error)

	// Close closes every connection. Those still in use when ctx is done are
	// closed when they come back, and the error says how many they were.
	Close(ctx context.Context) error
}

// Env is what an engine is given by the DB that opens it.
type Env struct {
	Log      *slog.Logger // for what an operator must know; never nil
	Sessions *Registry    // the sessions open on the DB, for messages
}

// Options are what a session asks of the engine. The zero value is a
// read-write session at the engine's defaults.
type Options struct {
	ReadOnly         bool
	Isolation        sql.IsolationLevel
	Deferrable       bool          // only with ReadOnly and LevelSerializable
	LockTimeout      time.Duration // 0 is the engine's default
	StatementTimeout time.Duration // 0 is none
	Timeout          time.Duration // the session's own, by which ctx ends already; 0 is none
	Settings         map[string]string
	Once             bool  // fn can't run again, or must not
	Info             *Info // who the session is, for messages
}

// Conn runs statements. One goroutine at a time calls it, and not while rows
// of an earlier statement are open. The text is in the engine's own dialect.
// The statements of PrepareContext implement [driver.StmtExecContext] and
// [driver.StmtQueryContext].
//
// The methods of the driver interfaces, and the rows and statements they
// return, return the driver's own errors, driver.ErrBadConn excepted; each is
// then handed to Failed.
type Conn interface {
	driver.ExecerContext
	driver.QueryerContext
	driver.ConnPrepareContext

	// Failed explains the error of a statement that ran under ctx, and takes
	// note of what it means for the connection.
	Failed(ctx context.Context, err error) *Error
}

// AutoConn is a [Conn] outside a session.
type AutoConn interface {
	Conn

	// Abandon says that the rows which are open can't be read. Where the engine
	// still can, closing them undoes their statement. It returns what becomes
	// of that.
	Abandon() Outcome

	// Close gives the connection back. Open rows are closed.
	Close() error
}

// Session is one transaction, as its caller sees it. Savepoints are a stack:
// Release and RollbackTo end the innermost. After Commit or Rollback nothing is
// called any more.
//
// Errors that Session's own methods return are explained already: each is, or
// wraps, an [*Error].
//
// Savepoint, Release, RollbackTo, Commit and Rollback do not end with ctx, which
// may have ended before; where the engine can bound them, [Detached] does.
type Session interface {
	Conn

	// Savepoint opens one inside the innermost. With readOnly the engine
	// refuses to write until it has ended.
	Savepoint(ctx context.Context, readOnly bool) error

	// Release keeps what the innermost savepoint did and ends it.
	Release(ctx context.Context) error

	// RollbackTo undoes what the innermost savepoint did and ends it. After an
	// error the session can only be rolled back.
	RollbackTo(ctx context.Context) error

	// InsertRows inserts rows into one table, by the fastest way that the engine
	// has. After an error some may be there: the caller ends the level. Like
	// those of a statement its errors are handed to Failed.
	InsertRows(ctx context.Context, rows Rows) error

	// Commit ends the session. The error is nil exactly when the outcome is
	// Committed. With observed somebody acts on the commit; without it a
	// session that has changed nothing need not wait for an answer.
	Commit(ctx context.Context, observed bool) (Outcome, error)

	// Rollback ends the session and undoes it; with ReadOnly, or when ctx has
	// ended, it need not wait for an answer. Before anybody else has the connection
	// it is clean, or gone. Nil says that cause may be told to the caller; an error
	// is told instead, and wraps cause unless cause was concluded from work of
	// others that is gone. The outcome is RolledBack, or Unknown where SQL has ended
	// the transaction before.
	Rollback(ctx context.Context, cause error) (Outcome, error)
}

// settling bounds what ends a session, or a level of it, whose ctx has no later
// deadline.
const settling = 5 * time.Second

// Detached is ctx for what ends a session, or a level of it: it has the values,
// and is not cancelled with ctx.
func Detached(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithDeadline(context.WithoutCancel(ctx), Bound(ctx))
}

// Bound is when the ctx of [Detached] ends.
func Bound(ctx context.Context) time.Time {
	until := time.Now().Add(settling)
	if deadline, ok := ctx.Deadline(); ok && deadline.After(until) {
		until = deadline
	}
	return until
}

// Rows are rows for one table.
type Rows struct {
	Table   []string // its schema, if it is given, and its name
	Columns []string
	Len     int

	// Row sets the values of row i, for each column one that CheckNamedValue has
	// returned.
	Row func(i int, values []driver.NamedValue) error
}

// Keys are statements about the table thole_idempotency_keys.
type Keys struct {
	Missing string // returns whether there is no such table
	Expired string // deletes what is older than a week, 10,000 rows at most
}

// Outcome is what became of a session.
type Outcome uint8

// The outcomes of a session.
const (
	RolledBack Outcome = iota // nothing of it is in the database
	Committed                 // it is as durable as the engine is configured
	Unknown                   // COMMIT was sent and no answer came
)

package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/tholedb/thole/internal/engine"
)

// explain says what an error of the driver means. ctx is the one under which it arose.
func explain(ctx context.Context, err error) *engine.Error {
	var explained *engine.Error
	var failure *sqlite.Error
	switch {
	case errors.As(err, &explained):
		return explained
	case errors.As(err, &failure):
		return explainCode(ctx, failure.Code(), failure.Error(), failure)
	case isContext(err):
		return interrupted(ctx, err)
	case errors.Is(err, driver.ErrBadConn):
		return &engine.Error{Kind: engine.ErrConnLost, Message: "connection is closed"}
	}
	return &engine.Error{Message: err.Error(), Err: err}
}

// explainCode decides by the result code. The text gives the names only.
func explainCode(ctx context.Context, code int, text string, err error) *engine.Error {
	e := &engine.Error{Code: codeName(code), Message: message(code, text), Err: err}
	switch code {
	case sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_ROWID:
		e.Kind = engine.ErrUnique
		nameColumns(e)
	case sqlite3.SQLITE_CONSTRAINT_NOTNULL:
		e.Kind = engine.ErrNotNull
		nameColumns(e)
	case sqlite3.SQLITE_CONSTRAINT_CHECK:
		e.Kind = engine.ErrCheck
		_, e.Constraint, _ = strings.Cut(e.Message, ": ")
	case sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
		e.Kind = engine.ErrForeignKey
	case sqlite3.SQLITE_BUSY_SNAPSHOT:
		e.Kind, e.Retry = engine.ErrSerialization, engine.RetryUnasked
	default:
		explainFamily(ctx, e, code)
	}
	return e
}

// explainFamily decides by the primary code, which is the lowest byte.
func explainFamily(ctx context.Context, e *engine.Error, code int) {
	switch code & 0xff {
	case sqlite3.SQLITE_BUSY:
		e.Kind, e.Retry = engine.ErrLocked, engine.RetryUnasked
	case sqlite3.SQLITE_LOCKED:
		e.Kind, e.Retry = engine.ErrLocked, engine.RetryAsked
	case sqlite3.SQLITE_READONLY:
		e.Kind = engine.ErrReadOnly
	case sqlite3.SQLITE_INTERRUPT:
		if ctx.Err() != nil {
			name := e.Code
			*e = *interrupted(ctx, errors.Join(ctx.Err(), e.Err))
			e.Code = name
		}
	}
}

// interrupted explains that ctx has ended; err matches its error.
func interrupted(ctx context.Context, err error) *engine.Error {
	e := &engine.Error{Message: err.Error(), Err: err}
	cause := context.Cause(ctx)
	if own, ok := errors.AsType[timeoutError](cause); ok {
		e.Message = own.Error() // that of the program is not ours to log
	} else if ctx.Err() != nil {
		e.Message = ctx.Err().Error()
	}
	if cause != nil && !errors.Is(err, cause) {
		e.Err = errors.Join(err, engine.Cause(ctx))
	}
	if errors.Is(e.Err, context.DeadlineExceeded) {
		e.Kind = engine.ErrTimeout
	}
	return e
}

// message returns SQLite's own text. The driver puts that of the primary code before it and the code behind it.
func message(code int, text string) string {
	text = strings.TrimSuffix(text, " (SQLITE_BUSY)")
	text = strings.TrimSuffix(text, fmt.Sprintf(" (%d)", code))
	if _, own, ok := strings.Cut(text, ": "); ok {
		return own
	}
	return text
}

// nameColumns reads "UNIQUE constraint failed: t.a, t.b", or index 'name' instead of the columns if it is one on
// expressions. SQLite tells the names nowhere else.
func nameColumns(e *engine.Error) {
	_, list, _ := strings.Cut(e.Message, ": ")
	if index, ok := strings.CutPrefix(list, "index '"); ok {
		e.Constraint = strings.TrimSuffix(index, "'")
		return
	}
	var columns []string
	for name := range strings.SplitSeq(list, ", ") {
		table, column, _ := strings.Cut(name, ".")
		e.Table = table
		columns = append(columns, column)
	}
	e.Column = strings.Join(columns, ", ")
}

// withoutValue cuts a message before the value that it may quote: "bad JSON path: 'a'", "fts5: syntax error near
// "a"", "no such database: a" are what functions and modules say about an argument or a row.
func withoutValue(message string) string {
	rest, _ := strings.CutPrefix(message, "fts5: ")
	start := len(message) - len(rest)
	end := start + len(rest)
	for _, mark := range []string{": ", "'", `"`, "["} {
		if i := strings.Index(rest, mark); i >= 0 {
			end = min(end, start+i)
		}
	}
	return strings.TrimSpace(message[:end])
}

// during returns the explained err with what was being done before its message.
func during(ctx context.Context, doing string, err error) *engine.Error {
	e := *explain(ctx, err)
	e.Message = doing + ": " + e.Message
	return &e
}

// isContext reports whether err says that a context has ended.
func isContext(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// hasCode reports whether err has one of the primary codes.
func hasCode(err error, primary int) bool {
	var failure *sqlite.Error
	return errors.As(err, &failure) && failure.Code()&0xff == primary
}

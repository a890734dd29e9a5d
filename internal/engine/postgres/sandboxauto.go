package postgres

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tholedb/thole/internal/engine"
)

// boxedAuto is a connection outside a session, in a sandbox: each statement is a
// session there. Rows are read to their end before they are returned, so that the
// next statement can run beside them, as on a connection of its own. What runs on
// pgx's own connection ends with Close.
type boxedAuto struct {
	box       *Sandbox
	open      *boxed // the session of what ends with Close
	failed    bool   // what ran there has
	committed bool   // the statement that ran last is, and its rows are being read
}

var _ interface {
	engine.AutoConn
	Native
} = (*boxedAuto)(nil)

// ExecContext implements [driver.ExecerContext].
func (a *boxedAuto) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	return alone(ctx, a, func(s *boxed) (driver.Result, error) { return s.ExecContext(ctx, query, args) })
}

// QueryContext implements [driver.QueryerContext].
func (a *boxedAuto) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	return alone(ctx, a, func(s *boxed) (driver.Rows, error) {
		rows, err := s.QueryContext(ctx, query, args)
		if err != nil {
			return nil, err
		}
		return engine.Keep(rows)
	})
}

// PrepareContext implements [driver.ConnPrepareContext].
func (a *boxedAuto) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	prepared, err := alone(ctx, a, func(s *boxed) (driver.Stmt, error) { return s.PrepareContext(ctx, query) })
	if err != nil {
		return nil, err
	}
	own := *prepared.(*stmt)
	own.on = a
	return &own, nil
}

// ExecNative implements [Native].
func (a *boxedAuto) ExecNative(ctx context.Context, query string, args []any) (pgconn.CommandTag, error) {
	return alone(ctx, a, func(s *boxed) (pgconn.CommandTag, error) { return s.ExecNative(ctx, query, args) })
}

// QueryNative implements [Native].
func (a *boxedAuto) QueryNative(ctx context.Context, query string, args []any) (*Rows, error) {
	return alone(ctx, a, func(s *boxed) (*Rows, error) {
		rows, err := s.QueryNative(ctx, query, args)
		if err != nil {
			return nil, err
		}
		return rows, rows.result.keep()
	})
}

// Native implements [Native].
func (a *boxedAuto) Native(ctx context.Context, query string, texts ...string) (*pgx.Conn, error) {
	return a.enter().Native(ctx, query, texts...)
}

// enter opens a session, which Close ends.
func (a *boxedAuto) enter() *boxed {
	if a.open == nil {
		a.open = a.box.session(engine.Options{})
	}
	return a.open
}

// alone runs a statement in a session of its own.
func alone[T any](ctx context.Context, a *boxedAuto, run func(*boxed) (T, error)) (none T, _ error) {
	s := a.enter()
	a.committed = false
	got, err := run(s)
	if err != nil {
		err = s.Failed(ctx, err)
	}
	if _, failed := s.end(ctx, err); failed != nil {
		err = failed
	}
	a.open = nil
	if err != nil {
		return none, needsDatabase(err)
	}
	a.committed = true
	return got, nil
}

// end commits, or rolls back because of cause, and returns what is to be told
// beside that.
func (s *boxed) end(ctx context.Context, cause error) (engine.Outcome, error) {
	if cause != nil {
		return s.Rollback(ctx, cause)
	}
	return s.Commit(ctx, true)
}

// needsDatabase adds advice to the error of a statement that can't run in a
// transaction.
//
// https://www.postgresql.org/docs/current/errcodes-appendix.html (25001)
func needsDatabase(err error) error {
	failed, ok := errors.AsType[*engine.Error](err)
	if !ok || failed.Code != "25001" {
		return err
	}
	own := *failed
	own.Message = fmt.Sprintf("%s, which a sandbox is: use dbtest.Database", own.Message)
	return &own
}

// Failed implements [engine.Conn].
func (a *boxedAuto) Failed(ctx context.Context, err error) *engine.Error {
	a.failed = true
	if a.committed && isContext(err) {
		return unknownBy(byContext(ctx, &engine.Error{Message: "the statement had ended before its rows were read", Err: err}))
	}
	if told, ok := errors.AsType[*engine.Error](err); ok {
		return told
	}
	return a.enter().Failed(ctx, err)
}

// Abandon implements [engine.AutoConn], as on a server that commits each statement.
func (*boxedAuto) Abandon() engine.Outcome { return engine.Committed }

// Close implements [engine.AutoConn]. It ends what has run on pgx's own connection.
func (a *boxedAuto) Close() error {
	s := a.open
	if s == nil {
		return nil
	}
	a.open = nil
	if s.conn != nil && s.conn.result != nil {
		_ = s.conn.result.close() // whose error was told
	}
	var cause error
	if a.failed || s.conn != nil && s.conn.status() != 'T' {
		cause = errors.New("the statement failed")
	}
	_, err := s.end(context.Background(), cause)
	return err
}

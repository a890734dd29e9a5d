package probe

import (
	"context"
	"database/sql/driver"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tholedb/thole/internal/engine"
	"github.com/tholedb/thole/internal/engine/postgres"
)

// auto is a connection outside a session that is watched. It has its turn during
// each statement; with pgx's own connection until it is closed.
type auto struct {
	probe *Probe
	inner engine.AutoConn
	note  *Session
	use   *Use
	holds bool // the turn, until Close
	noted bool
}

var _ interface {
	engine.AutoConn
	postgres.Native
} = (*auto)(nil)

// enter takes the turn, and notes the connection before its first statement.
func (a *auto) enter(ctx context.Context, text string) error {
	if err := a.probe.refuse(); err != nil {
		return err
	}
	if a.holds {
		return nil
	}
	a.note.Info.Query = text
	if err := a.probe.turns.take(ctx, a.note.Info, 0); err != nil {
		return err
	}
	if !a.noted {
		a.noted = true
		a.probe.begin(a.note)
	}
	return nil
}

// runAlone runs a statement and notes it.
func runAlone[T any](ctx context.Context, a *auto, text string, args []any, do func(context.Context) (T, error)) (got T, err error) {
	if err := a.enter(ctx, text); err != nil {
		return got, err
	}
	if !a.holds {
		defer a.probe.turns.pass()
	}
	st := a.probe.note(a.note, 0, text, args)
	err = a.probe.strikeStatement(ctx, point{conn: a.inner, text: text})
	if err == nil {
		got, err = do(ctx)
	}
	return follow(a.probe, st, got, err)
}

// hold is runAlone for what lasts until Close.
func hold[T any](ctx context.Context, a *auto, text string, args []any, do func(context.Context) (T, error)) (got T, err error) {
	if err := a.enter(ctx, text); err != nil {
		return got, err
	}
	a.holds = true
	return runAlone(ctx, a, text, args, do)
}

// ExecContext implements [driver.ExecerContext].
func (a *auto) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	return runAlone(ctx, a, query, values(args), func(ctx context.Context) (driver.Result, error) {
		return a.inner.ExecContext(ctx, query, args)
	})
}

// QueryContext implements [driver.QueryerContext].
func (a *auto) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	return runAlone(ctx, a, query, values(args), func(ctx context.Context) (driver.Rows, error) {
		return a.inner.QueryContext(ctx, query, args)
	})
}

// PrepareContext implements [driver.ConnPrepareContext].
func (a *auto) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	if err := a.enter(ctx, query); err != nil {
		return nil, err
	}
	if !a.holds {
		defer a.probe.turns.pass()
	}
	prepared, err := a.inner.PrepareContext(ctx, query)
	if err != nil {
		a.probe.noted(a.probe.note(a.note, 0, query, nil), -1, err)
		return nil, err
	}
	return &autoStmt{prepared, a, query}, nil
}

// ExecNative implements [postgres.Native].
func (a *auto) ExecNative(ctx context.Context, query string, args []any) (pgconn.CommandTag, error) {
	return runAlone(ctx, a, query, args, func(ctx context.Context) (pgconn.CommandTag, error) {
		return a.inner.(postgres.Native).ExecNative(ctx, query, args)
	})
}

// QueryNative implements [postgres.Native].
func (a *auto) QueryNative(ctx context.Context, query string, args []any) (*postgres.Rows, error) {
	return runAlone(ctx, a, query, args, func(ctx context.Context) (*postgres.Rows, error) {
		return a.inner.(postgres.Native).QueryNative(ctx, query, args)
	})
}

// Native implements [postgres.Native].
func (a *auto) Native(ctx context.Context, query string, texts ...string) (*pgx.Conn, error) {
	if err := a.enter(ctx, query); err != nil {
		return nil, err
	}
	a.holds = true
	for _, text := range texts {
		if _, err := hold(ctx, a, text, nil, func(context.Context) (any, error) { return nil, nil }); err != nil {
			return nil, err
		}
	}
	return a.inner.(postgres.Native).Native(ctx, query, texts...)
}

// Failed implements [engine.Conn].
func (a *auto) Failed(ctx context.Context, err error) *engine.Error {
	if own, ok := err.(*engine.Error); ok { //nolint:errorlint // what wraps one is the engine's
		told := *own
		return a.probe.explained(a.note, &told)
	}
	return a.probe.explained(a.note, a.inner.Failed(ctx, err))
}

// Abandon implements [engine.AutoConn].
func (a *auto) Abandon() engine.Outcome { return a.inner.Abandon() }

// Close implements [engine.AutoConn].
func (a *auto) Close() error {
	err := a.inner.Close()
	a.probe.giveBack(a.use)
	if a.holds {
		a.holds = false
		a.probe.turns.pass()
	}
	return err
}

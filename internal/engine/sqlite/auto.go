package sqlite

import (
	"context"
	"database/sql/driver"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/tholedb/thole/internal/engine"
	"github.com/tholedb/thole/internal/sqltext"
)

// autoConn runs statements outside a session. One that may write is a session of its own, so that several in one text
// happen together or not at all, and so that an error always means that nothing happened.
type autoConn struct {
	engine *Engine
	rows   *rows // the last ones, which have a connection until they are closed
}

// Conn implements [engine.Engine]. Each statement takes a connection for itself.
func (e *Engine) Conn(context.Context) (engine.AutoConn, error) {
	return &autoConn{engine: e}, nil
}

// ExecContext implements [engine.Conn].
func (a *autoConn) ExecContext(
	ctx context.Context, query string, args []driver.NamedValue,
) (result driver.Result, err error) {
	if standsAlone(query) {
		return a.execAlone(ctx, query, args)
	}
	s := a.engine.session(engine.Options{Info: statement(query)})
	ran := false // not when a function that the caller has registered panics
	defer func() {
		if !ran {
			err = s.fail(ctx, err)
		}
	}()
	if result, err = s.ExecContext(ctx, query, args); err != nil {
		return nil, s.Failed(ctx, err)
	}
	ran = true
	if err := s.commit(context.WithoutCancel(ctx)); err != nil {
		return nil, err
	}
	return result, nil
}

// execAlone runs a statement that doesn't run in a transaction.
func (a *autoConn) execAlone(
	ctx context.Context, query string, args []driver.NamedValue,
) (result driver.Result, err error) {
	s, err := a.engine.acquire(ctx, claim{patience: lockTimeout, info: statement(query)})
	if err != nil {
		return nil, err
	}
	defer a.engine.release(s)
	if err := a.engine.clean(ctx, s.conn); err != nil {
		return nil, err
	}
	err = untilFree(ctx, time.Now(), a.engine.cfg.BusyTimeout, func() error {
		prepared, err := s.conn.prepare(ctx, query, refusedAlone)
		if err == nil {
			result, err = prepared.execOnce(ctx, args)
		}
		return err
	})
	return result, err
}

// QueryContext implements [engine.Conn]. A statement that a reader refuses to run it has not begun to run, and the writer
// runs it; of several the first would have run twice.
func (a *autoConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	runs := a.queryReader
	if changesConnection(query) || sqltext.IsScript(sqltext.SQLite, query) && !reads(query) {
		runs = a.queryWriter
	}
	r, err := runs(ctx, query, args)
	if hasCode(err, sqlite3.SQLITE_READONLY) {
		r, err = a.queryWriter(ctx, query, args)
	}
	if err != nil {
		return nil, err
	}
	if a.engine.image != nil && r.finish == nil {
		return keep(r)
	}
	a.rows = r
	return r, nil
}

func (a *autoConn) queryReader(ctx context.Context, query string, args []driver.NamedValue) (*rows, error) {
	return a.queryAlone(ctx, claim{readOnly: true, patience: lockTimeout, info: statement(query)}, query, args)
}

func (a *autoConn) queryWriter(ctx context.Context, query string, args []driver.NamedValue) (r *rows, err error) {
	if standsAlone(query) {
		return a.queryAlone(ctx, claim{patience: lockTimeout, info: statement(query)}, query, args)
	}
	s := a.engine.session(engine.Options{Info: statement(query)})
	defer func() {
		if r == nil {
			err = s.fail(ctx, err)
		}
	}()
	prepared, err := s.prepare(ctx, query)
	if err != nil {
		return nil, err
	}
	if r, err = prepared.queryOnce(ctx, args); err != nil {
		return nil, s.Failed(ctx, err)
	}
	r.finish = func(ok bool) error {
		if ok {
			return s.commit(context.WithoutCancel(ctx))
		}
		return s.rollback(context.WithoutCancel(ctx), nil)
	}
	return r, nil
}

// queryAlone runs a statement in no transaction.
func (a *autoConn) queryAlone(
	ctx context.Context, want claim, query string, args []driver.NamedValue,
) (r *rows, err error) {
	s, err := a.engine.acquire(ctx, want)
	if err != nil {
		return nil, err
	}
	defer func() {
		if r == nil {
			a.engine.release(s)
		}
	}()
	if err := a.engine.clean(ctx, s.conn); err != nil {
		return nil, err
	}
	err = untilFree(ctx, time.Now(), a.engine.cfg.BusyTimeout, func() error {
		prepared, err := s.conn.prepare(ctx, query, refusedAlone)
		if err == nil {
			r, err = prepared.queryOnce(ctx, args)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	r.release = func() { a.engine.release(s) }
	return r, nil
}

// clean makes sure that the statement will not run in a transaction that a hook of the caller's has left open: what it
// read would be as old as that.
func (e *Engine) clean(ctx context.Context, c *conn) error {
	if e.cfg.Driver == nil {
		return nil
	}
	idle, err := c.isIdle(ctx)
	if err == nil && !idle {
		e.warnLeftOpen(ctx)
		_, err = c.rollback(ctx)
	}
	if err != nil {
		return during(ctx, "look for what is left on the connection", err)
	}
	return nil
}

// PrepareContext implements [engine.Conn]. The statement takes a connection each time it runs; preparing it on one now
// tells whether SQLite understands it.
func (a *autoConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	s, err := a.engine.acquire(ctx, claim{readOnly: true, patience: lockTimeout, info: statement(query)})
	if err != nil {
		return nil, err
	}
	defer a.engine.release(s)
	prepared, err := s.conn.prepare(ctx, query, refusedAlone)
	if err != nil {
		return nil, err
	}
	return &autoStmt{a, query}, prepared.Close()
}

// Failed implements [engine.Conn].
func (a *autoConn) Failed(ctx context.Context, err error) *engine.Error { return explain(ctx, err) }

// Abandon implements [engine.AutoConn]. A statement commits behind its last row.
func (a *autoConn) Abandon() engine.Outcome {
	if a.rows == nil || a.rows.ended {
		return engine.Committed
	}
	a.rows.failed = true
	return engine.RolledBack
}

// Close implements [engine.AutoConn].
func (a *autoConn) Close() error {
	if a.rows == nil {
		return nil
	}
	return a.rows.Close()
}

// statement says who has a connection while a statement outside a session runs. Where it was called would cost more than
// all else.
func statement(query string) *engine.Info { return &engine.Info{Query: query, Began: time.Now()} }

// autoStmt is a prepared statement of no connection in particular.
type autoStmt struct {
	conn *autoConn
	text string
}

var _ driverStmt = (*autoStmt)(nil)

// NumInput leaves it to SQLite to count.
func (s *autoStmt) NumInput() int { return -1 }

// Exec is only there for [driver.Stmt].
func (s *autoStmt) Exec([]driver.Value) (driver.Result, error) { return nil, driver.ErrSkip }

// Query is only there for [driver.Stmt].
func (s *autoStmt) Query([]driver.Value) (driver.Rows, error) { return nil, driver.ErrSkip }

// Close implements [driver.Stmt].
func (s *autoStmt) Close() error { return nil }

// ExecContext implements [driver.StmtExecContext].
func (s *autoStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	return s.conn.ExecContext(ctx, s.text, args)
}

// QueryContext implements [driver.StmtQueryContext].
func (s *autoStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return s.conn.QueryContext(ctx, s.text, args)
}

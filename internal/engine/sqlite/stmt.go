package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/tholedb/thole/internal/engine"
	"github.com/tholedb/thole/internal/sqltext"
)

// stmt is a prepared statement of one connection. Its errors are explained.
type stmt struct {
	conn    *conn
	raw     driverStmt
	text    string
	reads   bool // that is all it does
	script  bool // it is several statements
	seals   bool // the transaction can't be shared any more
	hasArgs bool // it was last run with arguments
	running bool // also when a function that the caller has registered has panicked

	kept bool // in the connection's cache
	lent bool // somebody uses it, who will close it
}

func newStmt(c *conn, raw driver.Stmt, text string) *stmt {
	return &stmt{
		conn: c, raw: raw.(driverStmt), text: text,
		reads: reads(text), script: sqltext.IsScript(sqltext.SQLite, text), seals: seals(text),
	}
}

// driverStmt is what the driver's statements do.
type driverStmt interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

var _ driverStmt = (*stmt)(nil)

// NumInput leaves it to SQLite to count.
func (s *stmt) NumInput() int { return -1 }

// Exec is only there for [driver.Stmt].
func (s *stmt) Exec([]driver.Value) (driver.Result, error) { return nil, driver.ErrSkip }

// Query is only there for [driver.Stmt].
func (s *stmt) Query([]driver.Value) (driver.Rows, error) { return nil, driver.ErrSkip }

// Close implements [driver.Stmt]. A statement that is kept can be taken again.
func (s *stmt) Close() error {
	switch {
	case s.kept && !s.running:
		s.lent = false
		return nil
	case s.kept:
		s.conn.statements.forget(s)
	}
	if err := s.raw.Close(); err != nil {
		return explain(context.Background(), err)
	}
	return nil
}

// ExecContext implements [driver.StmtExecContext].
func (s *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	ctx, cancel := s.conn.limit(ctx)
	defer cancel()
	if err := ctx.Err(); err != nil {
		return nil, explain(ctx, err)
	}
	s.hasArgs, s.conn.sealed = len(args) > 0, s.conn.sealed || s.seals
	s.running = true
	result, err := s.raw.ExecContext(s.interruptible(ctx), args)
	s.running = false
	if err == nil && s.isSheltered() {
		err = ctx.Err()
	}
	if err != nil {
		return nil, s.failed(ctx, err)
	}
	if result == nil { // the text has no statement
		return driver.RowsAffected(0), nil
	}
	return result, nil
}

// execOnce runs the statement and closes it.
func (s *stmt) execOnce(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	defer func() { _ = s.Close() }() // what it says, the statement has said
	return s.ExecContext(ctx, args)
}

// queryOnce runs the statement, which is closed with its rows.
func (s *stmt) queryOnce(ctx context.Context, args []driver.NamedValue) (r *rows, err error) {
	defer func() {
		if r == nil { // also when a function that the caller has registered panics
			_ = s.Close()
		}
	}()
	if r, err = s.query(ctx, args); err != nil {
		return nil, err
	}
	r.closing = s.Close
	return r, nil
}

// QueryContext implements [driver.StmtQueryContext].
func (s *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	r, err := s.query(ctx, args)
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (s *stmt) query(ctx context.Context, args []driver.NamedValue) (*rows, error) {
	ctx, cancel := s.conn.limit(ctx)
	if err := ctx.Err(); err != nil {
		cancel()
		return nil, explain(ctx, err)
	}
	s.hasArgs, s.conn.sealed = len(args) > 0, s.conn.sealed || s.seals
	s.running = true
	raw, err := s.raw.QueryContext(s.interruptible(ctx), args)
	s.running = false
	if err != nil {
		err = s.failed(ctx, err)
		cancel()
		return nil, err
	}
	return &rows{driverRows: raw.(driverRows), ctx: ctx, cancel: cancel, stmt: s}, nil
}

// isSheltered reports whether the statement must run to its end: interrupted, a write undoes the whole transaction, in
// which there is work of other sessions, https://sqlite.org/c3ref/interrupt.html.
func (s *stmt) isSheltered() bool { return s.conn.shared && !s.reads }

// interruptible returns the context by which the driver interrupts the statement.
func (s *stmt) interruptible(ctx context.Context) context.Context {
	if s.isSheltered() {
		return context.WithoutCancel(ctx)
	}
	return ctx
}

// limit returns the context of a statement.
func (c *conn) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	if c.timeout == 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, c.timeout, timeoutError(c.timeout))
}

// timeoutError is the cause when a StatementTimeout has ended a statement.
type timeoutError time.Duration

func (r timeoutError) Error() string {
	return fmt.Sprintf("StatementTimeout of %s ran out", time.Duration(r))
}

// failed explains an error of the statement, which had begun to run.
func (s *stmt) failed(ctx context.Context, err error) error {
	s.conn.note(err)
	e := explain(ctx, err)
	switch {
	case s.conn.undone:
		e.Aborts = engine.AbortsSession
	case isContext(e) && !s.conn.queryOnly && !s.reads:
		// An interrupted write would have ended the transaction. This one was through when the
		// driver saw that ctx has ended, and what it did mustn't be committed.
		e.Aborts = engine.AbortsLevel
	case !s.conn.queryOnly && s.script && !s.reads:
		e.Aborts = engine.AbortsLevel // the statements before the one that failed have happened
	}
	if s.kept && e.Code == codes[sqlite3.SQLITE_ERROR] {
		if stale := s.stale(ctx); stale != nil {
			stale.Aborts = e.Aborts
			return stale
		}
	}
	quotes := e.Code == codes[sqlite3.SQLITE_ERROR] || e.Code == codes[sqlite3.SQLITE_CANTOPEN]
	if quotes && (s.hasArgs || !s.script) {
		e.Message = withoutValue(e.Message) // in a script it is rather the text that is wrong
	}
	return e
}

// stale says why the statement can't be prepared any more, if that is so. Unlike what it says when it is run, this
// quotes nothing but the text.
func (s *stmt) stale(ctx context.Context) *engine.Error {
	raw, err := s.conn.raw.PrepareContext(context.WithoutCancel(ctx), s.text)
	if err != nil {
		return explain(ctx, err)
	}
	_ = raw.Close() // it says nothing
	return nil
}

// rows are the rows of a statement.
type rows struct {
	driverRows
	ctx    context.Context
	cancel context.CancelFunc
	stmt   *stmt
	failed bool
	ended  bool

	// What ends with them, in this order; each may be nil.
	closing func() error        // closes the statement
	finish  func(ok bool) error // ends its session
	release func()              // gives the connection back
}

// driverRows is what the driver's rows do.
type driverRows interface {
	driver.Rows
	driver.RowsColumnTypeDatabaseTypeName
	driver.RowsColumnTypeLength
	driver.RowsColumnTypeNullable
	driver.RowsColumnTypePrecisionScale
	driver.RowsColumnTypeScanType
}

// Next implements [driver.Rows]. It ends with the statement's context; the driver itself doesn't look at it between
// two rows.
func (r *rows) Next(values []driver.Value) error {
	if r.ended {
		return io.EOF
	}
	err := r.ctx.Err()
	if err == nil {
		failed := r.failed
		r.stmt.running, r.failed = true, true // when a function that the caller has registered panics
		err = r.driverRows.Next(values)
		r.stmt.running, r.failed = false, failed
	}
	switch {
	case errors.Is(err, io.EOF):
		if err := r.end(); err != nil {
			return err
		}
	case err != nil:
		r.failed = true
		return r.stmt.failed(r.ctx, err)
	}
	keepEmpty(values)
	return err
}

// keepEmpty tells an empty blob from NULL, which the driver doesn't.
func keepEmpty(values []driver.Value) {
	for i, v := range values {
		if blob, ok := v.([]byte); ok && blob == nil {
			values[i] = []byte{}
		}
	}
}

// Close implements [driver.Rows]. It may be called again.
func (r *rows) Close() error {
	if r.ended {
		return nil
	}
	var cut error
	if r.finish != nil && !r.failed && r.ctx.Err() != nil {
		// database/sql tells that to who reads them: nothing must have happened.
		cut, r.failed = explain(r.ctx, r.ctx.Err()), true
	}
	return errors.Join(cut, r.end())
}

// end closes the rows, and then what they belong to: with the session the connection goes to somebody else.
func (r *rows) end() error {
	if r.ended {
		return nil
	}
	r.ended = true
	defer r.cancel()
	err := r.driverRows.Close()
	if err != nil {
		err = r.stmt.failed(r.ctx, err)
		r.failed = true
	}
	if r.closing != nil {
		err = errors.Join(err, r.closing())
	}
	if r.finish != nil {
		err = errors.Join(err, r.finish(!r.failed))
	}
	if r.release != nil {
		r.release()
	}
	return err
}

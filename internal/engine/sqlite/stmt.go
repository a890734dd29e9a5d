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
	hasArgs bool // it was last run with arguments
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

// Close implements [driver.Stmt].
func (s *stmt) Close() error {
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
	s.hasArgs = len(args) > 0
	result, err := s.raw.ExecContext(ctx, args)
	if err != nil {
		return nil, s.failed(ctx, err)
	}
	if result == nil { // the text has no statement
		return driver.RowsAffected(0), nil
	}
	return result, nil
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
	s.hasArgs = len(args) > 0
	raw, err := s.raw.QueryContext(ctx, args)
	if err != nil {
		err = s.failed(ctx, err)
		cancel()
		return nil, err
	}
	return &rows{driverRows: raw.(driverRows), ctx: ctx, cancel: cancel, stmt: s}, nil
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
	case isContext(e) && !s.conn.queryOnly && !reads(s.text):
		// An interrupted write would have ended the transaction. This one was through when the
		// driver saw that ctx has ended, and what it did mustn't be committed.
		e.Aborts = engine.AbortsLevel
	case !s.conn.queryOnly && sqltext.IsScript(sqltext.SQLite, s.text) && !reads(s.text):
		e.Aborts = engine.AbortsLevel // the statements before the one that failed have happened
	}
	quotes := e.Code == codes[sqlite3.SQLITE_ERROR] || e.Code == codes[sqlite3.SQLITE_CANTOPEN]
	if quotes && (s.hasArgs || !sqltext.IsScript(sqltext.SQLite, s.text)) {
		e.Message = withoutValue(e.Message) // in a script it is rather the text that is wrong
	}
	return e
}

// rows are the rows of a statement.
type rows struct {
	driverRows
	ctx    context.Context
	cancel context.CancelFunc
	stmt   *stmt
	failed bool
	closed bool

	// What else ends with them; each may be nil.
	closing func() error        // closes the statement
	finish  func(ok bool) error // called behind the last row, or by Close
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
	if r.closed {
		return io.EOF
	}
	err := r.ctx.Err()
	if err == nil {
		err = r.driverRows.Next(values)
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

// end finishes what the rows belong to, once.
func (r *rows) end() error {
	finish := r.finish
	r.finish = nil
	if finish == nil {
		return nil
	}
	return finish(!r.failed)
}

// Close implements [driver.Rows]. It may be called again.
func (r *rows) Close() error {
	if r.closed {
		return nil
	}
	r.closed = true
	defer r.cancel()
	if r.release != nil {
		defer r.release()
	}
	err := r.driverRows.Close()
	if err != nil {
		err = r.stmt.failed(r.ctx, err)
		r.failed = true
	}
	if err == nil && r.finish != nil && !r.failed && r.ctx.Err() != nil {
		// database/sql tells that to who reads them: nothing must have happened.
		err, r.failed = explain(r.ctx, r.ctx.Err()), true
	}
	if r.closing != nil {
		err = errors.Join(err, r.closing())
	}
	return errors.Join(err, r.end())
}

package postgres

import (
	"cmp"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/tholedb/thole/internal/engine"
)

// endTimeout bounds what is said to the server on behalf of nobody: a ROLLBACK
// before a connection goes back, the farewell to one that is given up.
const endTimeout = 5 * time.Second

// conn is a connection that was taken from the pool: what session and auto have
// in common.
type conn struct {
	std *stdlib.Conn // runs queries: its rows convert values for database/sql
	pgx *pgx.Conn    // runs everything else: its errors keep their cause

	tracer pgx.QueryTracer   // the pool's, or nil
	mode   pgx.QueryExecMode // how statements run behind a pooler; 0 without one

	// Of the statement that ran last.
	query string
	rows  driver.Rows // nil if it was no query
	sent  bool        // it may have been executed

	described bool // it runs by a description that pgx may have kept

	used       bool          // a statement of the caller's may have been executed
	once       bool          // nobody else gets the connection
	controlled bool          // a statement ended or began a transaction
	lost       *engine.Error // the error that lost the connection
}

var errBusy = errors.New("rows of an earlier statement are open")

// start notes the statement that is about to run. It returns an error if
// nothing may be sent.
func (c *conn) start(ctx context.Context, query string) error {
	if c.pgx.PgConn().IsBusy() {
		return errBusy
	}
	c.query, c.rows, c.sent, c.described = query, nil, false, false
	switch {
	case c.pgx.IsClosed():
		return pgconn.ErrConnClosed
	case c.controlled:
		return errControlled
	case copiesOverConnection(query):
		return errCopy
	}
	return ctx.Err()
}

// run executes a text of our own by the simple protocol, in one round trip.
func (c *conn) run(ctx context.Context, text string) error {
	if err := c.start(ctx, text); err != nil {
		return err
	}
	_, err := c.pgx.Exec(ctx, text)
	return err
}

// set sets what lasts as long as the transaction.
func (c *conn) set(ctx context.Context, settings map[string]string) error {
	if len(settings) == 0 {
		return nil
	}
	var text strings.Builder
	text.WriteString("select ")
	params := make([][]byte, 0, 2*len(settings))
	for i, name := range slices.Sorted(maps.Keys(settings)) {
		if i > 0 {
			text.WriteString(", ")
		}
		fmt.Fprintf(&text, "set_config($%d, $%d, true)", 2*i+1, 2*i+2)
		params = append(params, []byte(name), []byte(settings[name]))
	}
	if err := c.start(ctx, text.String()); err != nil {
		return err
	}
	return c.pgx.PgConn().ExecParams(ctx, text.String(), params, nil, nil, nil).Read().Err
}

// ExecContext implements [driver.ExecerContext]. A text without arguments goes
// by the simple protocol and may hold several statements.
func (c *conn) ExecContext(ctx context.Context, query string, named []driver.NamedValue) (driver.Result, error) {
	if err := c.start(ctx, query); err != nil {
		return nil, err
	}
	c.sent, c.used = true, true
	if len(named) == 0 {
		return c.script(ctx, query)
	}
	args := values(named)
	tag, err := c.pgx.Exec(ctx, query, c.withMode(args)...)
	if c.outOfDate(ctx, args, err) {
		tag, err = c.pgx.Exec(ctx, query, c.withMode(args)...)
	}
	if err != nil {
		return nil, c.blame(ctx, args, err)
	}
	return c.result(tag), nil
}

// runner runs statements: a conn in a session, an auto outside.
type runner interface {
	driver.ExecerContext
	driver.QueryerContext
}

// script executes a text by the simple protocol, as pgx itself would do without
// arguments, and looks at what each statement in it says it was, of which pgx
// keeps the last only. The result is that of the last.
func (c *conn) script(ctx context.Context, query string) (result driver.Result, err error) {
	var last pgconn.CommandTag
	if c.tracer != nil {
		ctx = c.tracer.TraceQueryStart(ctx, c.pgx, pgx.TraceQueryStartData{SQL: query})
		defer func() {
			c.tracer.TraceQueryEnd(ctx, c.pgx, pgx.TraceQueryEndData{CommandTag: last, Err: err})
		}()
	}
	results := c.pgx.PgConn().Exec(ctx, query)
	for results.NextResult() {
		last, _ = results.ResultReader().Close() // its error comes again
		result = c.result(last)
	}
	err = results.Close()
	if err == nil && c.controlled {
		err = errControlled
	}
	if err != nil {
		return nil, err
	}
	return result, nil
}

func (c *conn) result(tag pgconn.CommandTag) driver.Result {
	switch tag.String() {
	case "BEGIN", "START TRANSACTION", "COMMIT", "ROLLBACK", "PREPARE TRANSACTION":
		c.controlled = true
	}
	return driver.RowsAffected(tag.RowsAffected())
}

// QueryContext implements [driver.QueryerContext].
func (c *conn) QueryContext(ctx context.Context, query string, named []driver.NamedValue) (driver.Rows, error) {
	if err := c.start(ctx, query); err != nil {
		return nil, err
	}
	c.sent, c.used = true, true
	args := values(named)
	rows, err := c.std.QueryContext(ctx, query, c.queryWithMode(named))
	if c.outOfDate(ctx, args, err) {
		rows, err = c.std.QueryContext(ctx, query, c.queryWithMode(named))
	}
	if errors.Is(err, driver.ErrBadConn) {
		// The cause, which stdlib threw away, is one of these.
		err = cmp.Or(ctx.Err(), pgconn.ErrConnClosed)
	}
	if err != nil {
		return nil, c.blame(ctx, args, err)
	}
	c.rows = rows
	return rows, nil
}

// PrepareContext implements [driver.ConnPrepareContext].
func (c *conn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	if err := c.start(ctx, query); err != nil {
		return nil, err
	}
	prepare := c.std.PrepareContext
	if c.mode != 0 {
		prepare = c.describe
	}
	prepared, err := prepare(ctx, query)
	if err != nil {
		return nil, err
	}
	return &stmt{Stmt: prepared, on: c, query: query}, nil
}

// stmt is a statement that the connection has prepared under its text.
type stmt struct {
	driver.Stmt
	on    runner
	query string
}

// ExecContext implements [driver.StmtExecContext].
func (s *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	return s.on.ExecContext(ctx, s.query, args)
}

// QueryContext implements [driver.StmtQueryContext].
func (s *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return s.on.QueryContext(ctx, s.query, args)
}

func values(named []driver.NamedValue) []any {
	args := make([]any, len(named))
	for i, v := range named {
		args[i] = v.Value
	}
	return args
}

// argumentError says which argument pgx could not encode. The error of pgx
// quotes the value.
type argumentError struct {
	text string
	err  error
}

func (e *argumentError) Error() string { return e.text }

func (e *argumentError) Unwrap() error { return e.err }

// blame finds the argument that is to blame for an error with which pgx sent
// nothing: it asks the server what the statement takes.
func (c *conn) blame(ctx context.Context, args []any, err error) error {
	if errors.As(err, new(*pgconn.PgError)) || c.pgx.IsClosed() || ctx.Err() != nil || len(args) == 0 {
		return err
	}
	taken, describeErr := c.pgx.PgConn().Prepare(ctx, "", c.query, nil)
	if describeErr != nil {
		return err
	}
	if len(taken.ParamOIDs) != len(args) {
		text := fmt.Sprintf("the statement takes %d arguments, not %d", len(taken.ParamOIDs), len(args))
		return &argumentError{text, err}
	}
	var b pgx.ExtendedQueryBuilder
	for i, oid := range taken.ParamOIDs {
		one := &pgconn.StatementDescription{ParamOIDs: []uint32{oid}}
		if b.Build(c.pgx.TypeMap(), one, args[i:i+1]) != nil {
			return &argumentError{fmt.Sprintf("argument %d: %T does not encode as %s", i+1, args[i], c.typeName(oid)), err}
		}
	}
	return err
}

func (c *conn) typeName(oid uint32) string {
	if t, ok := c.pgx.TypeMap().TypeForOID(oid); ok {
		return t.Name
	}
	return fmt.Sprintf("the type with OID %d", oid)
}

// explain says what the error of a statement means, the connection considered.
func (c *conn) explain(ctx context.Context, err error) *engine.Error {
	if c.lost != nil {
		return &engine.Error{
			Kind:    engine.ErrConnLost,
			Message: "connection lost earlier: " + c.lost.Message,
			Retry:   c.lost.Retry,
			Aborts:  engine.AbortsSession,
			Err:     c.lost.Err,
		}
	}
	if told, ok := errors.AsType[*engine.Error](err); ok {
		own := *told
		return &own
	}
	failed := explain(err, c.query)
	if ctx.Err() != nil && (failed.Code == "" || failed.Code == queryCanceled) {
		failed = byContext(ctx, failed)
	}
	switch {
	case c.pgx.IsClosed():
		c.lost = lostBy(failed)
		return c.lost
	case c.pgx.PgConn().TxStatus() == 'E':
		failed.Aborts = engine.AbortsLevel
		c.cureOutOfDate(failed)
	}
	return failed
}

// lastWord is how long before its bound an unanswered COMMIT or ROLLBACK is
// cancelled, so that a server which is only slow says what became of it.
const lastWord = time.Second

// end sends COMMIT or ROLLBACK and returns the tag of the answer. At the
// deadline of ctx it gives up, also on a server that is frozen: pgx itself would
// wait until the cancel request has had its time.
func (c *conn) end(ctx context.Context, text string) (string, error) {
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		giveUp := time.AfterFunc(left, func() {
			_ = c.pgx.PgConn().Conn().SetDeadline(time.Unix(0, 1)) // fails only on a connection that is closed
		})
		defer func() { c.once = c.once || !giveUp.Stop() }()
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-min(lastWord, left/2)))
		defer cancel()
	}
	result := c.pgx.PgConn().ExecParams(ctx, text, nil, nil, nil, nil).Read()
	if result.Err != nil && ctx.Err() != nil {
		return "", withContext(ctx, result.Err)
	}
	return result.CommandTag.String(), result.Err
}

// giveBack gives the connection to the pool, rolled back and with no rows open.
// The pool destroys it where that doesn't work.
func (c *conn) giveBack() {
	if c.rows != nil {
		_ = c.rows.Close() // what they fail with was told, or is of no interest any more
	}
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	if !c.pgx.IsClosed() && c.pgx.PgConn().TxStatus() != 'I' {
		if _, err := c.end(ctx, "rollback"); err != nil {
			_ = c.pgx.Close(ctx) // it is given up
		}
	}
	c.release()
}

// release gives the connection to the pool, or ends it where the next one must
// not have it.
func (c *conn) release() {
	if c.once || c.controlled || c.pgx.PgConn().CustomData()[cancelUnderWay] != nil {
		c.destroy()
		return
	}
	_ = c.std.Close() // never fails
}

// destroy closes the connection and tells the pool.
func (c *conn) destroy() {
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	_ = c.pgx.Close(ctx) // it is given up
	_ = c.std.Close()    // never fails
}

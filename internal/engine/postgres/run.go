package postgres

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tholedb/thole/internal/sqltext"
)

// This file runs statements on a connection, alone where nothing else has to be
// sent, and otherwise as flight.go does.

// Tag is the tag of a statement as its result.
type Tag struct{ pgconn.CommandTag }

// LastInsertId implements [driver.Result]. PostgreSQL has none.
func (Tag) LastInsertId() (int64, error) { return driver.RowsAffected(0).LastInsertId() }

// RowsAffected implements [driver.Result].
func (t Tag) RowsAffected() (int64, error) { return t.CommandTag.RowsAffected(), nil }

// exec runs a text whose rows nobody wants: a statement, or several.
func (c *conn) exec(ctx context.Context, query string, args []any) (Tag, error) {
	if err := c.start(ctx, query); err != nil {
		return Tag{}, err
	}
	if isScript(query, len(args)) {
		if err := c.catchUp(ctx); err != nil {
			return Tag{}, err
		}
		c.used = true
		return c.script(ctx, query)
	}
	run := &running{text: query, args: args, protocol: c.protocol}
	if len(args) == 0 {
		run.protocol = byText // there is nothing that it takes, and nothing to be read
	}
	r, err := c.send(ctx, run)
	if err != nil {
		return Tag{}, err
	}
	if err := r.close(); err != nil {
		return Tag{}, c.judge(run, err)
	}
	return Tag{r.tag}, nil
}

// isScript reports whether a text has several statements.
func isScript(query string, args int) bool {
	return args == 0 && sqltext.IsScript(sqltext.Postgres, query)
}

// runner runs statements: a session, or an auto outside.
type runner interface {
	driver.ExecerContext
	driver.QueryerContext
}

// script executes several statements by the simple protocol, and looks at what
// each says it was. The result is that of the last.
func (c *conn) script(ctx context.Context, query string) (_ Tag, err error) {
	var last pgconn.CommandTag
	ctx, traced := c.trace(ctx, query, nil)
	defer func() { traced(last, err) }()
	results := c.wire.Exec(ctx, query)
	for results.NextResult() {
		last, _ = results.ResultReader().Close() // its error comes again
		c.see(last, nil)
	}
	err = results.Close()
	if err == nil && c.controlled {
		err = errControlled
	}
	return Tag{last}, err
}

// see takes note of what a statement says it was, and reports whether one has
// ended or begun a transaction.
func (c *conn) see(tag pgconn.CommandTag, known *statement) (controlled bool) {
	switch text := tag.String(); text {
	case "BEGIN", "START TRANSACTION", "COMMIT", "ROLLBACK", "PREPARE TRANSACTION":
		c.controlled = true
	default:
		if known == nil && reshapes(text, c.query) || known != nil && known.reshapesBy(text) {
			c.reshape()
		}
	}
	return c.controlled
}

// run runs a statement up to its first row. A native one is read by pgx's types.
func (c *conn) run(ctx context.Context, query string, args []any, native bool) (*result, error) {
	if err := c.start(ctx, query); err != nil {
		return nil, err
	}
	run := &running{text: query, args: args, protocol: c.protocol, native: native}
	if len(args) == 0 && !isKept(query) {
		run.protocol = byText
	}
	r, err := c.send(ctx, run)
	if err != nil {
		return nil, err
	}
	r.native = native
	if err := r.begin(); err != nil {
		return nil, c.judge(run, err)
	}
	c.result = r
	return r, nil
}

// running is a statement on its way.
type running struct {
	text     string
	args     []any
	protocol protocol
	native   bool       // its rows are read by pgx's types
	known    *statement // what it runs by
	fresh    bool       // that was found out just now
	synced   bool       // its flight has its end
}

// formats are those in which the columns of a statement that is known come.
func (r *running) formats() []int16 {
	if r.native {
		return r.known.native
	}
	return r.known.formats
}

// send sends a statement that start has let through.
func (c *conn) send(ctx context.Context, run *running) (r *result, err error) {
	ctx, traced := c.trace(ctx, run.text, run.args)
	defer func() {
		if r == nil {
			traced(pgconn.CommandTag{}, err)
		}
	}()
	r, err = c.dispatch(ctx, run)
	if err != nil {
		return nil, c.judge(run, c.blame(ctx, run, err))
	}
	r.known, r.traced = run.known, traced
	return r, nil
}

// dispatch sends it alone, where nothing waits and it is known, or in a flight.
func (c *conn) dispatch(ctx context.Context, run *running) (*result, error) {
	ready, err := c.prime(run)
	if err != nil {
		return nil, err
	}
	if !ready || c.ahead.waiting() {
		return c.fly(ctx, run, ready)
	}
	c.sent, c.used = true, true
	r := &result{conn: c}
	b, known := &c.builder, run.known
	switch {
	case known == nil:
		r.reader = c.wire.ExecParams(ctx, run.text, b.ParamValues, nil, b.ParamFormats, nil)
	case known.wire.Name == "":
		r.reader = c.wire.ExecParams(ctx, run.text, b.ParamValues, known.params.ParamOIDs, b.ParamFormats, nil)
	default:
		r.reader = c.wire.ExecStatement(ctx, known.wire, b.ParamValues, b.ParamFormats, run.formats())
	}
	return r, nil
}

// prime encodes the arguments of a statement, if it is known what it takes. One
// that no longer takes them is forgotten.
func (c *conn) prime(run *running) (ready bool, err error) {
	if run.protocol == byText {
		return true, c.encode(nil, run.args)
	}
	run.known = c.known.find(c.key(run.text))
	if run.known == nil {
		return false, nil
	}
	if c.encode(run.known, run.args) != nil {
		c.known.forget(run.known.key)
		run.known = nil
	}
	return run.known != nil, nil
}

// judge takes note of a failure that refutes what was known of a statement, and
// so came before it was executed. Others may be out of date for the same reason.
func (c *conn) judge(run *running, err error) error {
	if err != nil && run.known != nil && !run.fresh && disproved(err) {
		c.known.forgetAll()
		c.stale = true
	}
	return err
}

// key is what a statement is known by.
func (c *conn) key(text string) string { return text + c.scope }

// encode writes arguments as the statement takes them, or as text where that is
// not known.
func (c *conn) encode(known *statement, args []any) error {
	if known == nil {
		return c.builder.Build(c.types(), nil, args)
	}
	return c.builder.Build(c.types(), known.params, args)
}

// trace tells the pool's tracer of a statement, and of its end.
func (c *conn) trace(ctx context.Context, query string, args []any) (context.Context, func(pgconn.CommandTag, error)) {
	if c.tracer == nil {
		return ctx, func(pgconn.CommandTag, error) {}
	}
	ctx = c.tracer.TraceQueryStart(ctx, c.pgx, pgx.TraceQueryStartData{SQL: query, Args: args})
	return ctx, func(tag pgconn.CommandTag, err error) {
		c.tracer.TraceQueryEnd(ctx, c.pgx, pgx.TraceQueryEndData{CommandTag: tag, Err: err})
	}
}

// isKept reports whether a query without arguments is worth being kept: those
// that are not run by their text in one round trip.
func isKept(query string) bool {
	switch word := firstWord(query); {
	case equalFold(word, "select"), equalFold(word, "with"), equalFold(word, "values"), equalFold(word, "table"),
		equalFold(word, "insert"), equalFold(word, "update"), equalFold(word, "delete"), equalFold(word, "merge"):
		return true
	}
	return false
}

// prepared is a statement that the server has looked at. Nothing is held for it
// but what the connection keeps of every one: it runs by its text.
func (c *conn) prepared(ctx context.Context, query string) (*stmt, error) {
	if err := c.start(ctx, query); err != nil {
		return nil, err
	}
	known := c.known.find(c.key(query))
	if known == nil {
		var err error
		if known, err = c.prepare(ctx, query); err != nil {
			return nil, err
		}
	}
	return &stmt{query: query, takes: len(known.params.ParamOIDs)}, nil
}

// prepare has the server look at a statement, in one round trip.
func (c *conn) prepare(ctx context.Context, query string) (*statement, error) {
	flight := c.wire.StartPipeline(ctx)
	c.ahead.send(flight, query)
	known, err := c.describe(flight, &running{text: query, protocol: c.protocol})
	if !c.wire.IsClosed() {
		_ = flight.Sync() // the connection is closed where that fails
	}
	if closing := flight.Close(); err == nil {
		err = closing
	}
	return known, err
}

// stmt is a statement that was prepared. It runs by its text.
type stmt struct {
	on    runner
	query string
	takes int
}

var _ interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
} = (*stmt)(nil)

// Close implements [driver.Stmt].
func (s *stmt) Close() error { return nil }

// NumInput implements [driver.Stmt].
func (s *stmt) NumInput() int { return s.takes }

// ExecContext implements [driver.StmtExecContext].
func (s *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	return s.on.ExecContext(ctx, s.query, args)
}

// QueryContext implements [driver.StmtQueryContext].
func (s *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return s.on.QueryContext(ctx, s.query, args)
}

// Exec is never called: there is ExecContext.
func (s *stmt) Exec([]driver.Value) (driver.Result, error) { return nil, driver.ErrSkip }

// Query is never called: there is QueryContext.
func (s *stmt) Query([]driver.Value) (driver.Rows, error) { return nil, driver.ErrSkip }

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
// nothing. Where what the statement takes is not known it asks the server.
func (c *conn) blame(ctx context.Context, run *running, err error) error {
	if errors.As(err, new(*pgconn.PgError)) || c.wire.IsClosed() || ctx.Err() != nil || len(run.args) == 0 {
		return err
	}
	known := c.known.find(c.key(run.text))
	if known == nil {
		if known, _ = c.prepare(ctx, run.text); known == nil {
			return err
		}
	}
	taken := known.params.ParamOIDs
	if len(taken) != len(run.args) {
		return &argumentError{fmt.Sprintf("the statement takes %d arguments, not %d", len(taken), len(run.args)), err}
	}
	var b pgx.ExtendedQueryBuilder
	for i, oid := range taken {
		one := &pgconn.StatementDescription{ParamOIDs: []uint32{oid}}
		if b.Build(c.types(), one, run.args[i:i+1]) != nil {
			return &argumentError{fmt.Sprintf("argument %d: %T does not encode as %s", i+1, run.args[i], c.typeName(oid)), err}
		}
	}
	return err
}

func (c *conn) typeName(oid uint32) string {
	if t, ok := c.types().TypeForOID(oid); ok {
		return t.Name
	}
	return fmt.Sprintf("the type with OID %d", oid)
}

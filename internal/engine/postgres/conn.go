package postgres

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tholedb/thole/internal/engine"
	"github.com/tholedb/thole/internal/sqltext"
)

// endTimeout bounds the farewell to a connection that is given up.
const endTimeout = 5 * time.Second

// conn is a connection that was taken from the pool: what session and auto have
// in common.
type conn struct {
	pooled *pgxpool.Conn
	pgx    *pgx.Conn
	wire   *pgconn.PgConn

	tracer   pgx.QueryTracer // the pool's, or nil
	protocol protocol        // of statements with arguments or rows
	known    *statements     // to this connection
	scope    string          // of the session: the settings that statements are read by
	ahead    *ahead          // what the next statement brings along; nil outside a session
	builder  pgx.ExtendedQueryBuilder

	autocommits bool // the end of a statement is that of a transaction

	// Of the statement that ran last.
	query  string
	result *result // nil if it was no query
	sent   bool    // it may have been executed
	stale  bool    // it failed because what was known of it is out of date

	used       bool          // a statement of the caller's may have been executed
	reshaped   bool          // a statement changed the schema
	once       bool          // nobody else gets the connection
	controlled bool          // a statement ended or began a transaction
	lost       *engine.Error // the error that lost the connection
}

var errBusy = errors.New("rows of an earlier statement are open")

func (c *conn) types() *pgtype.Map { return c.pgx.TypeMap() }

// start notes the statement that is about to run. It returns an error if
// nothing may be sent.
func (c *conn) start(ctx context.Context, query string) error {
	if c.wire.IsBusy() {
		return errBusy
	}
	c.query, c.result, c.sent, c.stale = query, nil, false, false
	switch {
	case c.wire.IsClosed():
		return pgconn.ErrConnClosed
	case c.controlled:
		return errControlled
	case copiesOverConnection(query):
		return errCopy
	}
	return ctx.Err()
}

// say executes a text of our own by the simple protocol, in one round trip.
func (c *conn) say(ctx context.Context, text string) error {
	if err := c.start(ctx, text); err != nil {
		return err
	}
	if err := c.catchUp(ctx); err != nil {
		return err
	}
	return c.wire.Exec(ctx, text).Close()
}

// Tag is the tag of a statement as its result.
type Tag struct{ pgconn.CommandTag }

// LastInsertId implements [driver.Result]. PostgreSQL has none.
func (Tag) LastInsertId() (int64, error) { return driver.RowsAffected(0).LastInsertId() }

// RowsAffected implements [driver.Result].
func (t Tag) RowsAffected() (int64, error) { return t.CommandTag.RowsAffected(), nil }

// exec runs a statement that returns no rows, or several.
func (c *conn) exec(ctx context.Context, query string, args []any) (Tag, error) {
	if err := c.start(ctx, query); err != nil {
		return Tag{}, err
	}
	if len(args) == 0 && sqltext.IsScript(sqltext.Postgres, query) {
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

// reshape forgets what is known of statements, as they may be others now, and
// once more when the session ends, which may undo that.
func (c *conn) reshape() {
	c.reshaped = true
	c.known.forgetAll()
}

// settle is called when the session ends, or a part of it is undone.
func (c *conn) settle() {
	if c.reshaped {
		c.known.forgetAll()
	}
}

// reshapes reports whether a statement, of which the text and the tag are given,
// may have changed what others mean: the schema, the path in which their names are
// looked up, or that they are prepared.
func reshapes(tag, query string) bool {
	verb, _, _ := strings.Cut(tag, " ")
	switch verb {
	case "", "INSERT", "UPDATE", "DELETE", "MERGE", "FETCH", "MOVE", "COPY", "SHOW", "EXPLAIN",
		"LOCK", "TRUNCATE", "NOTIFY", "LISTEN", "UNLISTEN", "DECLARE", "CLOSE", "ANALYZE", "VACUUM":
		return false
	case "SELECT": // also the tag of CREATE TABLE AS
		return !isKept(query) && hasFold(query, "create") || hasFold(query, "set_config") ||
			equalFold(firstWord(query), "select") && hasFold(query, "into")
	case "SET", "RESET":
		return hasFold(query, "search_path") || hasFold(query, "role") || hasFold(query, "authorization") || hasFold(query, "all")
	}
	return true
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
	if c.ahead.waiting() {
		return c.fly(ctx, run)
	}
	ready, err := c.prime(run)
	if err != nil {
		return nil, err
	}
	if !ready {
		return c.fly(ctx, run)
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
	case c.wire.IsClosed():
		c.lost = lostBy(failed)
		return c.lost
	case c.status() == 'E':
		failed.Aborts = engine.AbortsLevel
		if c.stale {
			failed.Kind, failed.Retry = nil, engine.RetryAsked // it is described anew
		}
	}
	return failed
}

// status is what the server said of the transaction when it was last ready; 0
// while it is not.
func (c *conn) status() byte {
	if c.wire.IsBusy() {
		return 0
	}
	return c.wire.TxStatus()
}

// lastWord is how long before its bound an unanswered COMMIT or ROLLBACK is
// cancelled, so that a server which is only slow says what became of it.
const lastWord = time.Second

// end sends COMMIT or ROLLBACK and returns the tag of the answer. It does not end
// with ctx, and gives up at its bound, see [engine.Bound], also on a server that is
// frozen: pgx itself would wait until the cancel request has had its time.
func (c *conn) end(ctx context.Context, text string) (string, error) {
	until := engine.Bound(ctx)
	left := time.Until(until)
	giveUp := time.AfterFunc(left, func() {
		_ = c.wire.Conn().SetDeadline(time.Unix(0, 1)) // fails only on a connection that is closed
	})
	defer func() { c.once = c.once || !giveUp.Stop() }()
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), until.Add(-min(lastWord, left/2)))
	defer cancel()
	tag, err := c.wire.ExecParams(ctx, text, nil, nil, nil, nil).Close()
	if err != nil && ctx.Err() != nil {
		err = withContext(ctx, err)
	}
	return tag.String(), err
}

// giveBack gives the connection to the pool, rolled back and with no rows open.
// The pool destroys it where that doesn't work.
func (c *conn) giveBack() {
	if c.result != nil {
		_ = c.result.close() // what it fails with was told, or is of no interest any more
	}
	if !c.wire.IsClosed() && c.wire.TxStatus() != 'I' {
		if _, err := c.end(context.Background(), "rollback"); err != nil {
			c.destroy()
			return
		}
	}
	c.release()
}

// release gives the connection to the pool, or ends it where the next one must
// not have it.
func (c *conn) release() {
	if c.once || c.controlled || c.wire.CustomData()[cancelUnderWay] != nil {
		c.destroy()
		return
	}
	own(c.wire, false)
	c.pooled.Release()
}

// destroy closes the connection and tells the pool.
func (c *conn) destroy() {
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	_ = c.pgx.Close(ctx) // it is given up
	c.pooled.Release()
}

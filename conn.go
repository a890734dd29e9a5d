package thole

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/tholedb/thole/internal/engine"
	"github.com/tholedb/thole/internal/sqltext"
)

// This file and rows.go stand between database/sql, whose Rows, Row and Stmt the
// query methods return and sqlx scans, and the engine: a *sql.DB over
// connections that are nothing by themselves. With its first statement a
// connection becomes that of the session which the ctx carries; without one it
// takes the engine's for statements outside a session. It is used once, and
// never says driver.ErrBadConn, upon which database/sql would run a statement
// again.

// connector makes connections for database/sql.
type connector struct{ db *DB }

// Connect gives a connection, which takes nothing before its first statement.
func (c *connector) Connect(context.Context) (driver.Conn, error) {
	return &conn{db: c.db}, nil
}

// Driver returns a driver that only says how to get a connection.
func (c *connector) Driver() driver.Driver { return noDriver{} }

// newViews is a *sql.DB over the connector.
func (db *DB) newViews() *sqlx.DB {
	views := sql.OpenDB(&connector{db})
	views.SetMaxIdleConns(-1)
	return sqlx.NewDb(views, db.engine.DriverName())
}

// views is what makes the Rows, Row and Stmt of a statement, until done is
// called. After Close it is one for the moment, so that the engine says that it
// is closed, or the session that it has ended, and not database/sql.
func (db *DB) views() (views *sqlx.DB, done func()) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if !db.closed {
		return db.sqlx, func() {}
	}
	late := db.newViews()
	return late, func() { _ = late.Close() }
}

type noDriver struct{}

func (noDriver) Open(string) (driver.Conn, error) {
	return nil, failure(nil, "open connection: use thole.Open")
}

// conn is a connection as database/sql sees it.
type conn struct {
	db   *DB
	tx   *Tx             // the session it belongs to, or nil
	auto engine.AutoConn // outside a session, once there was a statement
	stmt *stmt           // that was prepared outside a session

	reads bool // its rows end with ctx when they are read on, and whoever reads them closes them

	closing sync.Once
}

var _ interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.NamedValueChecker
	driver.Pinger
} = (*conn)(nil)

// join makes a connection that was not used yet the one of the session that ctx
// carries. (The ctx of Connect can be database/sql's own.)
func (c *conn) join(ctx context.Context) {
	if c.tx == nil && c.auto == nil {
		c.tx = c.db.current(original(ctx))
	}
}

// engineConn is what statements run on.
func (c *conn) engineConn(ctx context.Context) (engine.Conn, error) {
	if c.tx != nil {
		return c.tx.session.inner, nil
	}
	if c.auto == nil {
		if c.db.isClosed() {
			return nil, c.db.whyClosed("run statement")
		}
		auto, err := c.db.engine.Conn(ctx)
		if err != nil {
			return nil, err
		}
		c.auto = auto
	}
	return c.auto, nil
}

// Close gives back what the connection took. It may be called again.
func (c *conn) Close() (err error) {
	if c.auto != nil {
		c.closing.Do(func() {
			if c.stmt != nil {
				c.stmt.drop() // while the connection is ours
			}
			err = c.auto.Close()
		})
	}
	return err
}

// settled gives the connection back behind a statement that has ended with err.
// Where it is only then committed, as what runs on a sandbox's connection by itself,
// that may fail.
func (c *conn) settled(err error, query string) error {
	failed := c.Close()
	if err != nil || failed == nil {
		return err
	}
	return withOutcome(RolledBack, c.db.explained(failed, query))
}

// exec runs a statement that returns no rows, to which database/sql would add
// nothing.
func (db *DB) exec(r running) (sql.Result, error) {
	c := &conn{db: db}
	args, err := c.values(r.args)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }() // what it says, the statement has said
	return c.ExecContext(r.ctx, r.text, args)
}

// values converts arguments, as database/sql does.
func (c *conn) values(args []any) ([]driver.NamedValue, error) {
	values := make([]driver.NamedValue, len(args))
	for i, arg := range args {
		values[i] = driver.NamedValue{Ordinal: i + 1, Value: arg}
		if named, ok := arg.(sql.NamedArg); ok {
			values[i].Name, values[i].Value = named.Name, named.Value
		}
		if err := c.CheckNamedValue(&values[i]); err != nil {
			name := cmp.Or(values[i].Name, "$"+strconv.Itoa(i+1))
			return nil, fmt.Errorf("sql: converting argument %s type: %w", name, err)
		}
	}
	return values, nil
}

// IsValid keeps database/sql from giving the connection to another statement.
func (c *conn) IsValid() bool { return false }

// CheckNamedValue leaves arguments to the engine.
func (c *conn) CheckNamedValue(value *driver.NamedValue) error {
	given := value.Value
	list, ok := asList(given)
	var err error
	if ok {
		value.Value, err = c.db.engine.Array(list)
	} else {
		err = c.db.engine.CheckNamedValue(value)
	}
	if err == nil {
		return nil
	}
	failed := because(nil, err, "convert a %T", given)
	failed.Engine = c.db.Engine()
	return failed
}

// Ping asks the database outside any session.
func (c *conn) Ping(ctx context.Context) error { return c.db.PingContext(ctx) }

// ExecContext runs a statement.
func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	return c.exec(ctx, query, args, func(st *statement) (driver.Result, error) {
		return st.conn.ExecContext(st.ctx, st.text, args)
	})
}

// QueryContext runs a statement whose rows keep the session busy until they are
// closed.
func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if made, ok := ctx.(*call); ok && made.feed != nil {
		return made.feed, nil
	}
	return c.query(ctx, query, args, func(st *statement) (driver.Rows, error) {
		return st.conn.QueryContext(st.ctx, st.text, args)
	})
}

func (c *conn) exec(ctx context.Context, query string, args []driver.NamedValue, run func(*statement) (driver.Result, error)) (driver.Result, error) {
	st, err := c.start(ctx, query)
	if err != nil {
		return nil, err
	}
	defer st.end()
	if err := st.count(args); err != nil {
		return nil, err
	}
	returned := false
	defer func() {
		if !returned {
			st.panicked()
		}
	}()
	result, err := run(st)
	returned = true
	if err != nil {
		return nil, st.failed(err)
	}
	return result, nil
}

// panicked takes note of a panic in a function of the caller's that the engine
// has called: what the statement has done so far must not be committed, though
// fn may recover.
func (st *statement) panicked() {
	if st.tx != nil {
		st.tx.abort(engine.AbortsLevel, failure(ErrTxAborted, "session can't go on: %q panicked", shorten(st.query)))
	}
}

func (c *conn) query(ctx context.Context, query string, args []driver.NamedValue, run func(*statement) (driver.Rows, error)) (driver.Rows, error) {
	st, err := c.start(ctx, query)
	if err != nil {
		return nil, err
	}
	defer func() {
		if st.rows == nil {
			st.end()
		}
	}()
	if err := st.count(args); err != nil {
		return nil, err
	}
	if c.tx != nil || !c.reads {
		st.cancellable()
	}
	returned := false
	defer func() {
		if !returned {
			st.panicked()
		}
		if !returned && c.tx == nil {
			_ = c.Close() // database/sql forgets it in a panic
		}
	}()
	got, err := run(st)
	returned = true
	if err != nil {
		return nil, st.failed(err)
	}
	kept := st.keep(got)
	if c.tx == nil && !c.reads {
		c.expire(kept)
	}
	return kept, nil
}

// expire closes rows outside a session when their ctx ends, and gives back what
// they hold: they may have been forgotten.
func (c *conn) expire(r *rows) {
	r.mu.Lock() // ctx may have ended
	defer r.mu.Unlock()
	release := r.st.cancel
	stop := context.AfterFunc(r.st.ctx, func() {
		if r.expire() {
			_ = c.Close()
		}
	})
	r.st.cancel = func() { stop(); release() }
}

// Prepare is never called: there is PrepareContext.
func (c *conn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
}

// PrepareContext prepares a statement, which lives as long as the session.
func (c *conn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	st, err := c.start(ctx, query)
	if err != nil {
		return nil, err
	}
	defer st.end()
	prepared, err := st.conn.PrepareContext(st.ctx, st.text)
	if err != nil {
		return nil, st.failed(err)
	}
	s := &stmt{conn: c, query: query, inner: prepared}
	if c.tx != nil {
		c.tx.own(s)
	} else {
		c.stmt = s
	}
	return s, nil
}

// statement is a statement in progress.
type statement struct {
	db     *DB
	tx     *Tx         // nil outside a session
	conn   engine.Conn // what it runs on
	query  string      // as it was given
	text   string      // as the engine reads it
	params int         // how many arguments it takes
	ctx    context.Context
	cancel context.CancelFunc
	caller engine.Caller // of a query in a session
	rows   *rows         // open ones
}

// start claims the session for a statement, and refuses one that must not run.
func (c *conn) start(ctx context.Context, query string) (*statement, error) {
	c.join(ctx)
	st := &statement{db: c.db, tx: c.tx, query: query}
	if err := st.read(ctx); err != nil {
		return nil, err
	}
	ctx, st.cancel = original(ctx), func() {}
	if st.tx != nil {
		if err := st.claim(); err != nil {
			return nil, err
		}
		ctx, st.cancel = st.tx.join(ctx)
	}
	st.ctx = ctx
	if ctx.Err() != nil {
		defer st.end()
		return nil, st.refuse(contextError(ctx, "run statement"))
	}
	conn, err := c.engineConn(ctx)
	if err != nil {
		defer st.end()
		return nil, st.unconnected(err)
	}
	st.conn = conn
	return st, nil
}

// unconnected is why there is no connection for the statement.
func (st *statement) unconnected(err error) error {
	if own, ok := err.(*Error); ok { //nolint:errorlint // what wraps one is the engine's
		return st.refuse(own)
	}
	return st.db.explained(err, st.query)
}

// read turns the text into the engine's own, unless that was done, and refuses
// what is the session's to do.
func (st *statement) read(ctx context.Context) error {
	made, _ := ctx.(*call)
	bound := made != nil && made.bound
	if bound {
		st.query, st.text = made.query, st.query
	}
	if verb := sqltext.Control(st.db.engine.Dialect(), st.query); verb != 0 {
		err := st.refuse(failure(ErrTxControl, "%s", adviceFor(verb)))
		if st.tx != nil {
			st.tx.abort(engine.AbortsLevel, because(ErrTxControl, err, "session can't go on"))
		}
		return err
	}
	if strings.IndexByte(st.query, 0) >= 0 {
		return st.refuse(failure(nil, "read statement: it has a NUL byte"))
	}
	if bound {
		st.params = bindsItself
		if made.err != nil {
			return st.refuse(because(nil, made.err, "read statement"))
		}
		return nil
	}
	t, err := st.db.template(st.query, false)
	if err != nil {
		return st.refuse(because(nil, err, "read statement"))
	}
	st.text, st.params = t.Text, t.Params
	return nil
}

// bindsItself stands for the number of arguments where [DB.bind] has counted.
const bindsItself = -1

// count refuses arguments that the text has no place for, which SQLite would
// pass over, or too few of them. Named ones are the engine's to find.
func (st *statement) count(args []driver.NamedValue) error {
	named := slices.ContainsFunc(args, func(arg driver.NamedValue) bool { return arg.Name != "" })
	if named || st.params == bindsItself || len(args) == st.params {
		return nil
	}
	return st.refuse(because(nil, wrongNumber(st.params, len(args)), "read statement"))
}

func adviceFor(verb sqltext.Verb) string {
	if verb.IsSavepoint() {
		return fmt.Sprintf("refuse %s: savepoints are the session's own; use tx.WithSession, which is one", verb)
	}
	return fmt.Sprintf("refuse %s: use WithSession, which begins and ends the transaction", verb)
}

// refuse is why the statement was not sent.
func (st *statement) refuse(why *Error) *Error {
	why.Engine, why.Query, why.Caller = st.db.Engine(), st.query, engine.Here().String()
	return why
}

// claim makes the session busy with the statement.
func (st *statement) claim() error {
	s := st.tx.session
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := st.tx.usable(); err != nil {
		return err
	}
	s.use = st
	return nil
}

// cancellable lets rows be cut short when the session ends.
func (st *statement) cancellable() {
	if st.tx != nil {
		st.caller = engine.Here()
	}
	ctx, cancel := context.WithCancel(st.ctx)
	release := st.cancel
	st.ctx, st.cancel = ctx, func() { cancel(); release() }
}

// end lets the session go on.
func (st *statement) end() {
	st.cancel()
	if st.tx == nil {
		return
	}
	s := st.tx.session
	s.mu.Lock()
	defer s.mu.Unlock()
	s.use = nil
	s.idle.Broadcast()
}

// failed explains the driver's error, and takes note of what it means for the
// session.
func (st *statement) failed(err error) error {
	told := st.conn.Failed(st.ctx, err)
	if st.tx != nil {
		return st.tx.fail(told, st.query)
	}
	failed := st.db.explained(told, st.query)
	if errors.Is(told.Kind, ErrCommitUnknown) {
		return withOutcome(Unknown, failed)
	}
	return withOutcome(RolledBack, failed)
}

// cut explains a failure before the last row, which in a session keeps what
// the statement did from being committed.
func (st *statement) cut(err error) error {
	failed := st.failed(err)
	if st.tx != nil {
		st.tx.abort(engine.AbortsLevel, because(ErrTxAborted, failed, "session can't go on"))
	}
	return failed
}

// inProgress says what the session is busy with.
func (st *statement) inProgress() string {
	if st.rows != nil {
		return fmt.Sprintf("the rows of %q at %s are open", shorten(st.query), st.caller)
	}
	return fmt.Sprintf("%q is in progress", shorten(st.query))
}

// keep makes the statement last until its rows are closed.
func (st *statement) keep(got driver.Rows) *rows {
	kept := &rows{Rows: got, st: st}
	if st.tx == nil {
		st.rows = kept
		return kept
	}
	s := st.tx.session
	s.mu.Lock()
	defer s.mu.Unlock()
	st.rows = kept
	return kept
}

// stmt is a prepared statement, as database/sql sees it.
type stmt struct {
	conn  *conn
	query string
	inner driver.Stmt

	once sync.Once
}

var _ interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
} = (*stmt)(nil)

// ExecContext runs the statement.
func (s *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	return s.conn.exec(ctx, s.query, args, func(st *statement) (driver.Result, error) {
		return s.inner.(driver.StmtExecContext).ExecContext(st.ctx, args)
	})
}

// QueryContext runs the statement, see [conn.QueryContext].
func (s *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return s.conn.query(ctx, s.query, args, func(st *statement) (driver.Rows, error) {
		return s.inner.(driver.StmtQueryContext).QueryContext(st.ctx, args)
	})
}

// NumInput is how many arguments the statement takes, or -1.
func (s *stmt) NumInput() int { return s.inner.NumInput() }

// Exec is never called: there is ExecContext.
func (s *stmt) Exec([]driver.Value) (driver.Result, error) { return nil, driver.ErrSkip }

// Query is never called: there is QueryContext.
func (s *stmt) Query([]driver.Value) (driver.Rows, error) { return nil, driver.ErrSkip }

// Close gives up what the engine holds for the statement, at the end of its
// level if the session is busy now.
func (s *stmt) Close() error {
	closing := &statement{tx: s.conn.tx, query: "the end of a prepared statement", cancel: func() {}}
	if s.conn.tx != nil && closing.claim() != nil {
		return nil
	}
	defer closing.end()
	s.drop()
	if s.conn.tx != nil {
		s.conn.tx.disown(s)
	}
	return nil
}

// drop closes the engine's statement.
func (s *stmt) drop() {
	s.once.Do(func() { _ = s.inner.Close() })
}

// own keeps a prepared statement until the level ends.
func (tx *Tx) own(s *stmt) {
	tx.session.mu.Lock()
	defer tx.session.mu.Unlock()
	if tx.stmts == nil {
		tx.stmts = make(map[*stmt]struct{})
	}
	tx.stmts[s] = struct{}{}
}

// disown forgets a prepared statement that was closed.
func (tx *Tx) disown(s *stmt) {
	tx.session.mu.Lock()
	defer tx.session.mu.Unlock()
	delete(tx.stmts, s)
}

// whyClosed is why rows can't be read any more.
func (st *statement) whyClosed() error {
	if st.tx != nil && st.tx.isDone() {
		return st.tx.whyDone()
	}
	return failure(nil, "read rows: they are closed")
}

// Begin is never called: there is BeginTx.
func (c *conn) Begin() (driver.Tx, error) {
	return c.BeginTx(context.Background(), driver.TxOptions{})
}

// BeginTx begins a transaction for code that has a *sqlx.DB: outside a session
// it is a session of its own; inside it is that session, and sends nothing.
func (c *conn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	c.join(ctx)
	options := SessionOptions{ReadOnly: opts.ReadOnly, Isolation: sql.IsolationLevel(opts.Isolation)}
	if c.tx != nil {
		options.ReadOnly = options.ReadOnly || c.tx.opts.ReadOnly // false is what TxOptions say by themselves
		options.Nested = NestedJoin
		if err := c.tx.checkNested(options); err != nil {
			return nil, err
		}
		return joined{c.tx}, nil
	}
	options = options.or(c.db.defaults)
	options.MaxAttempts = 1 // nobody runs it again
	if err := c.db.check(options); err != nil {
		return nil, err
	}
	ctx, cancel := options.bound(original(ctx))
	info := &engine.Info{Label: options.Label, Caller: engine.Here(), Began: time.Now()}
	tx, err := c.db.begin(ctx, options, info, 1)
	if err != nil {
		cancel()
		return nil, err
	}
	c.tx = tx
	return &owned{c, tx, cancel}, nil
}

// joined is a transaction that is the session's. WithSession ends it.
type joined struct{ tx *Tx }

// Commit refuses.
func (j joined) Commit() error { return j.refuse("Commit") }

// Rollback refuses, but to the session itself, which ends the view so.
func (j joined) Rollback() error {
	if j.tx.isDone() {
		return nil
	}
	return j.refuse("Rollback")
}

func (j joined) refuse(method string) error {
	err := failure(ErrTxControl, "refuse %s: WithSession ends the transaction, when its fn returns", method)
	err.Caller = engine.Here().String()
	j.tx.abort(engine.AbortsLevel, because(ErrTxControl, err, "session can't go on"))
	return err
}

// owned is a session that database/sql began and ends.
type owned struct {
	conn   *conn
	tx     *Tx
	cancel context.CancelFunc // releases the session's timeout
}

// Commit commits, and answers as [DB.WithSession] does.
func (o *owned) Commit() error {
	defer o.leave()
	return o.tx.end(nil)
}

// Rollback rolls back.
func (o *owned) Rollback() error {
	defer o.leave()
	asked := failure(nil, "Rollback was called")
	if err := o.tx.end(asked); err != error(asked) { //nolint:errorlint // asked itself is not a failure
		return err
	}
	return nil
}

// leave takes the connection out of the session.
func (o *owned) leave() {
	o.cancel()
	o.conn.tx = nil
}

package postgres

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tholedb/thole/internal/engine"
)

// session is a transaction on one connection, which it takes for its first
// statement; BEGIN and the options go ahead of that, in the same flight.
type session struct {
	engine  *Engine
	opts    engine.Options
	ahead   ahead
	conn    *conn         // nil before the first statement
	depth   int           // savepoints that are open, those that wait included
	reading int           // the depth of the outermost that is read-only, or 0
	aborted *engine.Error // the failure that aborted the transaction, or nil
}

var _ engine.Session = (*session)(nil)

// ExecContext implements [driver.ExecerContext].
func (s *session) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	return on(ctx, s, query, func(c *conn) (driver.Result, error) { return c.exec(ctx, query, values(args)) })
}

// QueryContext implements [driver.QueryerContext].
func (s *session) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	return on(ctx, s, query, func(c *conn) (driver.Rows, error) { return c.run(ctx, query, values(args), false) })
}

// PrepareContext implements [driver.ConnPrepareContext].
func (s *session) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	prepared, err := on(ctx, s, query, func(c *conn) (*stmt, error) { return c.prepared(ctx, query) })
	if err != nil {
		return nil, err
	}
	prepared.on = s
	return prepared, nil
}

// on runs what sends the first statement, or a later one. Until the server has
// begun the transaction nothing can have been done: where the connection was
// dead, or what was known of the statement is out of date, it is sent once more.
func on[T any](ctx context.Context, s *session, query string, run func(*conn) (T, error)) (none T, _ error) {
	if err := s.refuse(query); err != nil {
		return none, err
	}
	if s.ahead.begun {
		s.ended() // what it notes keeps statements back
		return run(s.conn)
	}
	if err := s.connect(ctx); err != nil {
		return none, err
	}
	opening := s.ahead.commands // nobody changes them in place
	got, err := run(s.conn)
	if err == nil || !s.mayStartAnew(ctx) {
		return got, err
	}
	if failed := s.startAnew(ctx, opening); failed != nil {
		return got, failed
	}
	return run(s.conn)
}

// refuse says why a text must not run in the session, or nil.
func (s *session) refuse(query string) error {
	if (s.opts.ReadOnly || s.reading > 0) && setsMode(query) {
		return errMode
	}
	return nil
}

// connect takes a connection for the first statement.
func (s *session) connect(ctx context.Context) error {
	if s.conn != nil {
		return nil
	}
	c, err := s.engine.connect(unpinged(ctx))
	if err != nil {
		return unconnected(ctx, err)
	}
	s.adopt(c)
	return nil
}

// unconnected says that a session that got no connection can't go on, unless it was
// only that somebody did not wait for one.
func unconnected(ctx context.Context, err error) error {
	told, ok := errors.AsType[*engine.Error](err)
	if !ok || ctx.Err() != nil {
		return err
	}
	own := *told
	own.Aborts = engine.AbortsSession
	return &own
}

func (s *session) adopt(c *conn) {
	c.ahead, c.scope = &s.ahead, scopeOf(s.opts.Settings)
	s.conn = c
}

// scopeOf are the settings by which a statement is read.
func scopeOf(settings map[string]string) string {
	scope := ""
	if len(settings) == 0 {
		return scope
	}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		if equalFold(name, "search_path") || equalFold(name, "role") {
			scope += "\x00" + name + "\x00" + settings[name]
		}
	}
	return scope
}

// mayStartAnew reports whether the first statement failed before anything was
// done, and may succeed when it is sent again: the connection broke without an
// answer to BEGIN, or the transaction has nothing in it but a statement that was
// refused because what was known of it is out of date.
func (s *session) mayStartAnew(ctx context.Context) bool {
	if ctx.Err() != nil {
		return false
	}
	return s.conn.wire.IsClosed() && !s.ahead.begun || s.conn.stale && !s.conn.wire.IsClosed()
}

// startAnew makes the session as it was before its first statement, on a
// connection that has answered just now.
func (s *session) startAnew(ctx context.Context, opening []command) error {
	s.ahead = ahead{commands: opening}
	if s.conn.wire.IsClosed() {
		s.conn.release()
		s.conn = nil
		c, err := s.engine.take(ctx, func(c *conn) error { return c.pgx.Ping(ctx) })
		if err != nil {
			return unconnected(ctx, err)
		}
		s.adopt(c)
		return nil
	}
	_, err := s.conn.end(ctx, "rollback")
	return err
}

// begin begins the transaction now, for what can't go with BEGIN in one flight.
func (s *session) begin(ctx context.Context) error {
	_, err := on(ctx, s, "", func(c *conn) (any, error) {
		if err := c.start(ctx, ""); err != nil {
			return nil, err
		}
		return nil, c.catchUp(ctx)
	})
	return err
}

// Failed implements [engine.Conn]. A session that could not be begun can't go on.
func (s *session) Failed(ctx context.Context, err error) *engine.Error {
	if s.conn == nil {
		return explain(err, "") // which says what it is by itself
	}
	failed := s.conn.explain(ctx, err)
	if failed.Aborts == engine.AbortsLevel && s.aborted == nil {
		s.aborted = failed
	}
	if failed.Code == readOnlyTransaction && !s.opts.ReadOnly && s.reading == 0 {
		failed.Retry, s.conn.once = engine.RetryAsked, true
	}
	if s.ended() || !s.ahead.begun && errors.As(err, new(*pgconn.PgError)) {
		failed.Aborts = engine.AbortsSession
	}
	return failed
}

// ended reports whether a statement ended the transaction behind our back, or
// may have: with "commit; begin" only the tag gives it away.
func (s *session) ended() bool {
	s.conn.controlled = s.conn.controlled || s.ahead.begun && !s.conn.wire.IsClosed() && s.conn.status() == 'I'
	return s.conn.controlled
}

// Savepoint implements [engine.Session]. It is sent with the first statement in
// it. The server forgets at the end of a subtransaction that it was read-only,
// however it ends.
func (s *session) Savepoint(_ context.Context, readOnly bool) error {
	s.depth++
	s.ahead.push(savepoint(s.depth, readOnly)...)
	if readOnly && s.reading == 0 {
		s.reading = s.depth
	}
	return nil
}

// Release implements [engine.Session]. It is sent with the next statement, if
// there is one: COMMIT releases all.
func (s *session) Release(context.Context) error {
	if s.aborted != nil {
		return fmt.Errorf("release savepoint: %w", abortedBy(s.aborted))
	}
	if !s.ahead.withdraw(s.depth) {
		s.ahead.push(command{text: "release " + savepointName(s.depth)})
	}
	s.pop()
	return nil
}

// pop notes that the innermost savepoint has ended.
func (s *session) pop() {
	s.depth--
	if s.reading > s.depth {
		s.reading = 0
	}
}

// RollbackTo implements [engine.Session]. The savepoint is released too, or the
// server would keep a subtransaction for it.
func (s *session) RollbackTo(ctx context.Context) error {
	ctx, cancel := engine.Detached(ctx)
	defer cancel()
	unsent := s.ahead.withdraw(s.depth)
	switch {
	case !unsent:
		s.ahead.commands = nil // they are about what is undone
		s.conn.settle()
		if err := s.rollBackTo(ctx, savepointName(s.depth)); err != nil {
			return fmt.Errorf("roll back to savepoint: %w", s.Failed(ctx, err))
		}
		s.aborted = nil
	case s.aborted != nil:
		return fmt.Errorf("roll back to savepoint: %w", abortedBy(s.aborted))
	}
	s.pop()
	return nil
}

func (s *session) rollBackTo(ctx context.Context, name string) error {
	if err := s.conn.start(ctx, ""); err != nil {
		return err
	}
	s.ahead.push(command{text: "rollback to " + name}, command{text: "release " + name})
	return s.conn.catchUp(ctx)
}

// Rollback implements [engine.Session]. It is answered in the background where the
// caller has nothing to wait for: the session can hold no locks on rows, or the
// caller has gone.
func (s *session) Rollback(ctx context.Context, cause error) (engine.Outcome, error) {
	switch {
	case s.conn == nil:
	case s.conn.wire.IsClosed():
		s.conn.release()
		if !errors.Is(cause, engine.ErrConnLost) {
			return engine.RolledBack, errors.Join(cause, s.conn.explain(ctx, pgconn.ErrConnClosed))
		}
	case s.ended():
		s.conn.giveBack()
		return engine.Unknown, errors.Join(cause, errControlled)
	case !s.ahead.begun && s.conn.status() == 'I':
		s.conn.release()
	case s.opts.ReadOnly || ctx.Err() != nil:
		s.finish(ctx, "rollback")
	default:
		return engine.RolledBack, s.rollBack(ctx, cause)
	}
	return engine.RolledBack, nil
}

// rollBack waits until the server has rolled back. Where it does not say so it
// does it when the connection is gone.
func (s *session) rollBack(ctx context.Context, cause error) error {
	s.conn.settle()
	if _, err := s.conn.end(ctx, "rollback"); err != nil {
		s.conn.destroy()
		return errors.Join(cause, fmt.Errorf("roll back: %w", s.conn.explain(ctx, err)))
	}
	s.conn.release() // the pool destroys a connection that isn't idle
	return nil
}

// finish ends the transaction in the background, where the caller need not know
// what the server says.
func (s *session) finish(ctx context.Context, text string) {
	s.conn.settle()
	go func() { // the pool waits for it when it is closed
		err := s.conn.endAlone(text)
		if err == nil {
			s.conn.release() // the pool destroys a connection that isn't idle
			return
		}
		level := slog.LevelDebug // the connection was gone, and the transaction with it
		if pgconn.Timeout(err) {
			level = slog.LevelWarn
		}
		s.engine.env.Log.Log(ctx, level, "thole: gave up a connection on which "+text+" failed",
			"database", s.engine.name, "error", s.conn.explain(context.Background(), err).Error())
		s.conn.destroy()
	}()
}

package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tholedb/thole/internal/engine"
)

// Sandbox is an engine for one test: a transaction that is never committed, in
// which sessions, one after the other, are savepoints. What a session can see of
// its end is as it is with COMMIT:
//
//   - Deferred constraints are checked when it commits, and are deferred again in
//     the next one.
//   - What it has SET, also with SET LOCAL, is reset, and temporary tables that end
//     with a transaction are dropped or emptied.
//   - It may ask for any isolation level: nothing can happen that one of them
//     excludes, for nobody else is in the database. The transaction itself is READ
//     COMMITTED. As a serializable one it would keep DEFERRABLE sessions in all other
//     databases of the server waiting.
//
// What can be seen nevertheless: now() is the time at which the first statement
// ran, sequences are not reset, NOTIFY is never delivered, and locks are held
// until Close. What is prepared by name outlives it, so its connection is not used
// again then, nor when pgx's own was lent.
//
// One session at a time may be used.
type Sandbox struct {
	*Engine
	outer  *session
	reset  []command // what is behind each session's end
	checks constraints
	temps  []temporary   // that end, or are emptied, at each COMMIT
	over   *engine.Error // why there is no use of it any more
}

// Sandboxes makes sandboxes on one database, in which nobody commits.
type Sandboxes struct {
	*Engine
	checks sharedConstraints
}

// NewSandboxes makes sandboxes on the connections of e.
func NewSandboxes(e *Engine) *Sandboxes { return &Sandboxes{Engine: e} }

var _ engine.Engine = (*Sandbox)(nil)

// New returns a sandbox. name is what its connection is called in
// pg_stat_activity. Nothing is sent, and no connection taken, before its first
// statement.
func (b *Sandboxes) New(name string) *Sandbox {
	opts := engine.Options{Isolation: sql.LevelReadCommitted, Settings: map[string]string{"application_name": name}}
	return &Sandbox{
		Engine: b.Engine,
		checks: constraints{shared: &b.checks},
		outer:  &session{engine: b.Engine, opts: engine.Options{Isolation: opts.Isolation}, ahead: ahead{commands: opening(opts)}},
		reset: []command{
			{text: "close all"},
			{text: "reset all"},
			{text: "reset session authorization"},
			settings(engine.Options{Settings: map[string]string{"application_name": name, "role": "none"}}),
		},
	}
}

// Connect takes the connection now, and not before the first statement, so that who
// waits for one learns it early.
func (b *Sandbox) Connect(ctx context.Context) error { return b.outer.connect(ctx) }

// HasEscaped reports whether a statement has ended the transaction. What was done
// before is in the database.
func (b *Sandbox) HasEscaped() bool { return b.over != nil }

// Begin implements [engine.Engine].
func (b *Sandbox) Begin(_ context.Context, opts engine.Options) (engine.Session, error) {
	if _, err := b.Isolation(opts.Isolation); err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	return b.session(opts), nil
}

func (b *Sandbox) session(opts engine.Options) *boxed {
	return &boxed{session: b.outer, box: b, opts: opts}
}

// Conn implements [engine.Engine].
func (b *Sandbox) Conn(context.Context) (engine.AutoConn, error) { return &boxedAuto{box: b}, nil }

// Ping implements [engine.Engine].
func (b *Sandbox) Ping(ctx context.Context) error {
	s := b.session(engine.Options{})
	_, err := s.ExecContext(ctx, "select 1", nil)
	if err != nil {
		err = s.Failed(ctx, err)
	}
	_, failed := s.end(ctx, err)
	return errors.Join(err, failed)
}

// BeginMigration implements [engine.Engine]. There is nobody to wait for.
func (b *Sandbox) BeginMigration(ctx context.Context) (engine.Session, error) {
	const table = "create table if not exists schema_migrations (version bigint not null primary key, dirty boolean not null)"
	s := b.session(engine.Options{})
	if _, err := s.ExecContext(ctx, table, nil); err != nil {
		err = fmt.Errorf("begin migration: %w", s.Failed(ctx, err))
		_, failed := s.end(ctx, err)
		return nil, errors.Join(err, failed)
	}
	return s, nil
}

// Close rolls everything back, unless [Sandbox.HasEscaped].
func (b *Sandbox) Close(ctx context.Context) error {
	c := b.outer.conn
	if c == nil {
		return nil
	}
	b.outer.conn = nil
	switch {
	case c.controlled, b.outer.ahead.begun && !c.wire.IsClosed() && c.status() == 'I':
		_ = b.escape()
		c.destroy()
		return nil
	case c.wire.IsClosed():
		c.release()
		return nil
	}
	c.settle()
	ctx, cancel := engine.Detached(ctx)
	defer cancel()
	// Advisory locks of the connection outlive a transaction.
	err := c.wire.Exec(ctx, "rollback; select pg_catalog.pg_advisory_unlock_all()").Close()
	if err != nil && !c.wire.IsClosed() { // the server rolls back what has no connection any more
		c.destroy()
		return fmt.Errorf("roll the sandbox back: %w", c.explain(ctx, err))
	}
	c.release()
	return nil
}

// boxed is a session in a sandbox.
type boxed struct {
	*session // the sandbox's
	box      *Sandbox
	opts     engine.Options
	entered  bool
}

var _ interface {
	engine.Session
	Native
} = (*boxed)(nil)

// enter opens the session's savepoint before its first statement. That sends
// nothing.
func (s *boxed) enter(ctx context.Context) error {
	if s.box.over != nil {
		return s.box.over
	}
	if s.entered {
		return nil
	}
	s.entered = true
	if err := s.session.Savepoint(ctx, s.opts.ReadOnly); err != nil {
		return err
	}
	if set := settings(s.opts); set.text != "" {
		s.ahead.push(set)
	}
	s.readBy(s.opts.Settings)
	return nil
}

// readBy says by which settings statements are read from now on.
func (s *boxed) readBy(settings map[string]string) {
	s.session.opts.Settings = settings
	if s.conn != nil {
		s.conn.scope = scopeOf(settings)
	}
}

// Commit implements [engine.Session].
func (s *boxed) Commit(ctx context.Context, _ bool) (engine.Outcome, error) {
	if !s.entered {
		return engine.Committed, nil
	}
	ctx, cancel := engine.Detached(ctx)
	defer cancel()
	c := s.conn
	switch {
	case c == nil:
		return engine.Committed, s.leave(ctx)
	case c.wire.IsClosed():
		return engine.RolledBack, fmt.Errorf("commit: %w", c.explain(ctx, pgconn.ErrConnClosed))
	case s.ended():
		return engine.Unknown, fmt.Errorf("commit: %w", s.box.escape())
	case c.status() == 'E':
		return s.undo(ctx, fmt.Errorf("commit: %w", abortedBy(s.aborted)))
	}
	if err := s.check(ctx); err != nil {
		return s.undo(ctx, fmt.Errorf("commit: %w", explain(err, "")))
	}
	if err := s.leave(ctx); err != nil {
		return engine.RolledBack, err
	}
	return engine.Committed, nil
}

// check does what COMMIT would before it commits.
func (s *boxed) check(ctx context.Context) error {
	c := s.conn
	if !c.used {
		return nil
	}
	if err := s.box.checks.learn(ctx, c); err != nil {
		return err
	}
	if err := c.start(ctx, ""); err != nil {
		return err
	}
	s.ahead.push(s.box.checks.found.check()...)
	s.ahead.push(endTemporaries(s.box.temps)...)
	if err := c.catchUp(ctx); err != nil {
		return err
	}
	s.box.temps = slices.DeleteFunc(s.box.temps, func(t temporary) bool { return t.drops })
	return nil
}

// leave ends the savepoint, and what was set in it. It is sent with the next
// statement.
func (s *boxed) leave(ctx context.Context) error {
	sent := !s.ahead.has(s.depth)
	err := s.session.Release(ctx)
	if sent {
		s.ahead.push(s.box.reset...)
		s.ahead.push(s.box.checks.found.reset()...)
	}
	s.left()
	return err
}

// left makes the sandbox ready for the next session.
func (s *boxed) left() {
	if s.conn != nil {
		s.conn.settle()
		s.conn.reshaped, s.conn.used = false, false
	}
	s.readBy(nil)
}

// undo rolls back to the savepoint because of cause.
func (s *boxed) undo(ctx context.Context, cause error) (engine.Outcome, error) {
	s.box.checks.forget(s.conn)
	if err := s.session.RollbackTo(ctx); err != nil {
		cause = errors.Join(cause, err)
	}
	s.left()
	return engine.RolledBack, cause
}

// Rollback implements [engine.Session]. Levels that are open inside are undone with
// the session.
func (s *boxed) Rollback(ctx context.Context, cause error) (engine.Outcome, error) {
	c := s.conn
	switch {
	case !s.entered:
		return engine.RolledBack, nil
	case c == nil:
		s.rollBackLater() // nothing was sent
		return engine.RolledBack, nil
	case c.wire.IsClosed():
		s.left()
		if !errors.Is(cause, engine.ErrConnLost) {
			return engine.RolledBack, errors.Join(cause, c.explain(ctx, pgconn.ErrConnClosed))
		}
		return engine.RolledBack, nil
	case s.ended():
		return engine.Unknown, errors.Join(cause, s.box.escape())
	}
	s.rollBackLater()
	return engine.RolledBack, nil
}

// rollBackLater rolls back to the savepoint, and with it to those that are open
// inside. It is sent with the next statement: nobody else waits for its locks.
func (s *boxed) rollBackLater() {
	if !s.ahead.withdraw(1) {
		name := savepointName(1)
		s.ahead.commands = []command{{text: "rollback to " + name}, {text: "release " + name}}
	}
	s.aborted, s.depth, s.reading = nil, 0, 0
	s.left()
}

// escape notes that the transaction was ended behind our back. The sandbox is of no
// use any more.
func (b *Sandbox) escape() *engine.Error {
	own := *errControlled
	own.Aborts = engine.AbortsSession
	b.over = &own
	return b.over
}

// ExecContext implements [driver.ExecerContext].
func (s *boxed) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	return inBox(ctx, s, query, func() (driver.Result, error) { return s.session.ExecContext(ctx, query, args) })
}

// QueryContext implements [driver.QueryerContext].
func (s *boxed) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	return inBox(ctx, s, query, func() (driver.Rows, error) { return s.session.QueryContext(ctx, query, args) })
}

// PrepareContext implements [driver.ConnPrepareContext].
func (s *boxed) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	return inBox(ctx, s, query, func() (driver.Stmt, error) { return s.session.PrepareContext(ctx, query) })
}

// QueryNative implements [Native].
func (s *boxed) QueryNative(ctx context.Context, query string, args []any) (*Rows, error) {
	return inBox(ctx, s, query, func() (*Rows, error) { return s.session.QueryNative(ctx, query, args) })
}

// ExecNative implements [Native].
func (s *boxed) ExecNative(ctx context.Context, query string, args []any) (pgconn.CommandTag, error) {
	return inBox(ctx, s, query, func() (pgconn.CommandTag, error) { return s.session.ExecNative(ctx, query, args) })
}

// Native implements [Native].
func (s *boxed) Native(ctx context.Context, query string, texts ...string) (*pgx.Conn, error) {
	texts = slices.Clone(texts)
	conn, err := inBox(ctx, s, strings.Join(append(texts, query), ";"), func() (*pgx.Conn, error) {
		return s.session.Native(ctx, query, texts...)
	})
	if err == nil && len(texts) == 0 {
		s.conn.once = true // nobody knows what runs there
	}
	return conn, err
}

// InsertRows implements [engine.Session].
func (s *boxed) InsertRows(ctx context.Context, rows engine.Rows) error {
	_, err := inBox(ctx, s, "", func() (any, error) { return nil, s.session.InsertRows(ctx, rows) })
	return err
}

// Savepoint implements [engine.Session].
func (s *boxed) Savepoint(ctx context.Context, readOnly bool) error {
	_, err := inBox(ctx, s, "", func() (any, error) { return nil, s.session.Savepoint(ctx, readOnly) })
	return err
}

// inBox runs what is done in a session of a sandbox.
func inBox[T any](ctx context.Context, s *boxed, query string, run func() (T, error)) (got T, err error) {
	if err := s.enter(ctx); err != nil {
		return got, err
	}
	if got, err = run(); err != nil {
		return got, err
	}
	s.box.temps = append(s.box.temps, temporaries(query)...)
	s.conn.once = s.conn.once || prepares(query)
	return got, nil
}

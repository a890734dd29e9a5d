package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"github.com/tholedb/thole/internal/engine"
)

// session is a transaction on a connection of its own.
type session struct {
	engine *Engine
	slot   *slot
	conn   *conn  // of slot
	levels []bool // of each savepoint, whether the level around it was read-only
	failed *engine.Error
}

var _ engine.Session = (*session)(nil)

// Begin implements [engine.Engine].
func (e *Engine) Begin(ctx context.Context, opts engine.Options) (engine.Session, error) {
	if _, err := e.Isolation(opts.Isolation); err != nil {
		return nil, during(ctx, "begin session", err)
	}
	if len(opts.Settings) > 0 {
		return nil, &engine.Error{Message: "begin session: SQLite has no Settings", Err: errors.ErrUnsupported}
	}
	s, err := e.begin(ctx, opts)
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (e *Engine) begin(ctx context.Context, opts engine.Options) (*session, error) {
	patience := opts.LockTimeout
	if patience == 0 {
		patience = lockTimeout
	}
	s, err := e.start(ctx, claim{opts.ReadOnly, patience, opts.Info})
	if err != nil {
		return nil, err
	}
	s.conn.timeout = opts.StatementTimeout
	return s, nil
}

// start begins a session. Its patience is both for the line in this process and for the locks of others.
func (e *Engine) start(ctx context.Context, want claim) (*session, error) {
	since := time.Now()
	slot, err := e.acquire(ctx, want)
	if err != nil {
		return nil, err
	}
	begin := func() error {
		if want.readOnly {
			return slot.conn.begin(context.WithoutCancel(ctx), "BEGIN")
		}
		return slot.conn.beginImmediate(ctx, want.patience, since)
	}
	if err = begin(); isWithout(err) {
		e.warnLeftOpen(ctx)
		err = begin() // the first has rolled back
	}
	if err != nil {
		e.release(slot)
		return nil, during(ctx, "begin session", err)
	}
	return &session{engine: e, slot: slot, conn: slot.conn}, nil
}

func (e *Engine) warnLeftOpen(ctx context.Context) {
	e.env.Log.WarnContext(ctx, "thole: a transaction was left open on a connection, and is rolled back", "database", e.name)
}

// beginImmediate takes the lock for writing, for which other processes may have to be waited for.
func (c *conn) beginImmediate(ctx context.Context, patience time.Duration, since time.Time) error {
	if patience == 0 {
		return untilFree(ctx, 0, func() error { return c.begin(ctx, "BEGIN IMMEDIATE") })
	}
	const atLeast = 10 * time.Millisecond // what the line has left may be too short to ask for a lock that is free
	waiting, cancel := context.WithTimeout(ctx, max(patience-time.Since(since), atLeast))
	defer cancel()
	err := c.begin(waiting, "BEGIN IMMEDIATE")
	if isContext(err) && ctx.Err() == nil {
		return &engine.Error{
			Kind:    engine.ErrLocked,
			Message: fmt.Sprintf("another process holds the lock, gave up after %s", patience),
			Retry:   engine.RetryUnasked,
		}
	}
	return err
}

// BeginMigration implements [engine.Engine]. The table is golang-migrate's.
func (e *Engine) BeginMigration(ctx context.Context) (engine.Session, error) {
	s, err := e.start(ctx, claim{info: &engine.Info{Label: "migration", Caller: engine.Here(), Began: time.Now()}})
	if err != nil {
		return nil, err
	}
	const table = `CREATE TABLE IF NOT EXISTS schema_migrations (version uint64, dirty bool);
		CREATE UNIQUE INDEX IF NOT EXISTS version_unique ON schema_migrations (version)`
	if _, err := s.ExecContext(ctx, table, nil); err != nil {
		return nil, s.fail(ctx, err)
	}
	return s, nil
}

// ExecContext implements [engine.Conn].
func (s *session) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if err := s.refused(query); err != nil {
		return nil, err
	}
	return s.conn.exec(ctx, query, args)
}

// QueryContext implements [engine.Conn].
func (s *session) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if err := s.refused(query); err != nil {
		return nil, err
	}
	r, err := s.conn.query(ctx, query, args)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// PrepareContext implements [engine.Conn].
func (s *session) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	if err := s.refused(query); err != nil {
		return nil, err
	}
	prepared, err := s.conn.prepare(ctx, query)
	if err != nil {
		return nil, err
	}
	return &sessionStmt{prepared, s}, nil
}

// sessionStmt is a statement that doesn't outlive its session's transaction: it would commit by itself.
type sessionStmt struct {
	*stmt
	session *session
}

// ExecContext implements [driver.StmtExecContext].
func (s *sessionStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	if err := s.session.gone(); err != nil {
		return nil, err
	}
	return s.stmt.ExecContext(ctx, args)
}

// QueryContext implements [driver.StmtQueryContext].
func (s *sessionStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	if err := s.session.gone(); err != nil {
		return nil, err
	}
	return s.stmt.QueryContext(ctx, args)
}

// Failed implements [engine.Conn].
func (s *session) Failed(ctx context.Context, err error) *engine.Error {
	e := explain(ctx, err)
	if e.Aborts == engine.AbortsSession && s.failed == nil {
		s.failed = e
	}
	return e
}

// refused returns the error of a text that can't run in the session.
func (s *session) refused(query string) error {
	if err := s.gone(); err != nil {
		return err
	}
	if word := changesConnectionIn(query); word != "" {
		return &engine.Error{
			Message: word + " can't run in a session; run it on the DB, outside one",
			Err:     errors.ErrUnsupported,
		}
	}
	return nil
}

// gone returns an error when the transaction has ended already, or nil. What ran nevertheless would commit by itself.
func (s *session) gone() error {
	if s.conn.committed {
		return errControlled
	}
	if !s.conn.undone {
		return nil
	}
	e := &engine.Error{
		Kind:    engine.ErrTxAborted,
		Message: "SQLite has rolled the transaction back",
		Aborts:  engine.AbortsSession,
	}
	if s.failed != nil {
		e.Message += ": " + s.failed.Message
		e.Err = s.failed
	}
	return e
}

// Savepoint implements [engine.Session].
func (s *session) Savepoint(ctx context.Context, readOnly bool) error {
	if err := s.gone(); err != nil {
		return err
	}
	if err := s.control(ctx, "SAVEPOINT %s", len(s.levels)+1); err != nil {
		return err
	}
	s.levels = append(s.levels, s.conn.queryOnly)
	if err := s.conn.setQueryOnly(ctx, s.conn.queryOnly || readOnly); err != nil {
		return during(ctx, "begin savepoint", errors.Join(err, s.RollbackTo(ctx)))
	}
	return nil
}

// Release implements [engine.Session].
func (s *session) Release(ctx context.Context) error {
	return s.endLevel(ctx, "RELEASE %s")
}

// RollbackTo implements [engine.Session].
func (s *session) RollbackTo(ctx context.Context) error {
	return s.endLevel(ctx, "ROLLBACK TO %[1]s; RELEASE %[1]s")
}

func (s *session) endLevel(ctx context.Context, text string) error {
	if err := s.gone(); err != nil {
		return err
	}
	depth := len(s.levels)
	if err := s.control(ctx, text, depth); err != nil {
		return err
	}
	around := s.levels[depth-1]
	s.levels = s.levels[:depth-1]
	if err := s.conn.setQueryOnly(ctx, around); err != nil {
		return during(ctx, "end savepoint", err)
	}
	return nil
}

// control runs a statement about the savepoint of a depth.
func (s *session) control(ctx context.Context, text string, depth int) error {
	text = fmt.Sprintf(text, fmt.Sprintf("thole_%d", depth))
	if err := s.conn.settle(ctx, text); err != nil {
		return during(ctx, "run "+text, err)
	}
	return nil
}

// Commit implements [engine.Session]. SQLite's COMMIT is waited for.
func (s *session) Commit(ctx context.Context, _ bool) (engine.Outcome, error) {
	defer s.engine.release(s.slot)
	err := s.commit(ctx)
	return outcomeOf(err), err
}

// errControlled says that the transaction has ended, and neither we nor SQLite by itself ended it.
var errControlled = &engine.Error{
	Kind:    engine.ErrTxControl,
	Message: "something ended the transaction of the session, and what it did before may be committed",
	Retry:   engine.RetryForbidden,
	Aborts:  engine.AbortsSession,
}

// outcomeOf returns what became of a session whose end failed with err. COMMIT itself says what became of it.
func outcomeOf(err error) engine.Outcome {
	switch {
	case err == nil:
		return engine.Committed
	case errors.Is(err, error(errControlled)):
		return engine.Unknown
	}
	return engine.RolledBack
}

func (s *session) commit(ctx context.Context) error {
	if err := s.gone(); err != nil {
		_, _ = s.conn.rollback(ctx) // what somebody has begun since
		return err
	}
	err := s.conn.commit(ctx)
	switch {
	case err == nil:
		return nil
	case isWithout(err):
		return errControlled
	}
	return during(ctx, "commit", err)
}

// Rollback implements [engine.Session].
func (s *session) Rollback(ctx context.Context, cause error) (engine.Outcome, error) {
	defer s.engine.release(s.slot)
	err := s.rollback(ctx, cause)
	if err == nil {
		return engine.RolledBack, nil
	}
	return outcomeOf(err), err
}

func (s *session) rollback(ctx context.Context, cause error) error {
	committed, undone := s.conn.committed, s.conn.undone
	open, err := s.conn.rollback(ctx)
	switch {
	case err != nil:
		return errors.Join(cause, during(ctx, "roll back", err))
	case committed, !open && !undone:
		return errors.Join(cause, errControlled)
	}
	return nil
}

// fail rolls back because of cause, and returns what is to be told.
func (s *session) fail(ctx context.Context, cause error) error {
	if _, err := s.Rollback(ctx, cause); err != nil {
		return err
	}
	return cause
}

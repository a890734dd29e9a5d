package sqlite

import (
	"cmp"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"strconv"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/tholedb/thole/internal/engine"
)

// session is a transaction, or a part of one that sessions share. It begins with its first statement, so that what the
// caller does before that keeps nobody waiting.
type session struct {
	engine  *Engine
	want    claim
	slot    *slot     // nil before it has begun
	conn    *conn     // of slot
	entered time.Time // when it got the writer
	follows bool      // it runs in a savepoint of a transaction that it shares with those before it
	planned []bool    // savepoints of its own before it has begun, and whether each is read-only
	levels  []bool    // of each savepoint of its own, whether the level around it was read-only
	failed  *engine.Error
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
	return e.session(opts), nil
}

// session returns one that has not begun. One with a timeout shares no transaction: its writes can be interrupted, and
// it waits for nobody behind it.
func (e *Engine) session(opts engine.Options) *session {
	return &session{engine: e, want: claim{
		readOnly: opts.ReadOnly,
		patience: cmp.Or(opts.LockTimeout, lockTimeout),
		timeout:  opts.StatementTimeout,
		shares:   !opts.ReadOnly && opts.Timeout == 0 && opts.StatementTimeout == 0,
		info:     opts.Info,
	}}
}

// begin begins the transaction before the first statement, whose text is given. It fails when the transaction has
// ended, and for good when it could not begin: the caller may rely on what was not done.
func (s *session) begin(ctx context.Context, text string) error {
	switch {
	case s.slot != nil:
		return s.gone()
	case s.failed != nil:
		return s.failed
	}
	s.want.shares = s.want.shares && !seals(text)
	err := s.start(ctx)
	for _, readOnly := range s.planned {
		if err == nil {
			err = s.savepoint(context.WithoutCancel(ctx), readOnly)
		}
	}
	s.planned = nil
	if err != nil {
		failed := *explain(ctx, err)
		failed.Aborts = engine.AbortsSession
		s.failed = &failed
		return s.failed
	}
	return nil
}

// start waits for a connection and begins the transaction on it. Its patience is both for the line in this process and
// for the locks of others.
func (s *session) start(ctx context.Context) error {
	since := time.Now()
	slot, err := s.engine.acquire(ctx, s.want)
	if err != nil {
		return err
	}
	s.conn = slot.conn
	if s.want.readOnly {
		err = s.beginAnew(ctx, func() error { return s.conn.begin(ctx, "BEGIN") })
	} else {
		err = s.engine.writer.enter(ctx, s, since)
	}
	if err != nil {
		s.engine.handBack(slot)
		return during(ctx, "begin session", err)
	}
	s.slot = slot
	return nil
}

// beginAnew calls begin, and again where that has rolled back what somebody left open.
func (s *session) beginAnew(ctx context.Context, begin func() error) error {
	err := begin()
	if isWithout(err) {
		s.engine.warnLeftOpen(ctx)
		err = begin()
	}
	return err
}

func (e *Engine) warnLeftOpen(ctx context.Context) {
	e.env.Log.WarnContext(ctx, "thole: a transaction was left open on a connection, and is rolled back", "database", e.name)
}

// beginImmediate takes the lock for writing, for which other processes may have to be waited for. It is asked for anew
// again and again, as SQLite's own handler does: that would need a goroutine to end with ctx, also where nobody else
// has the lock.
func (s *session) beginImmediate(ctx context.Context, since time.Time) error {
	patience, busy := s.want.patience, s.engine.cfg.BusyTimeout
	if now := time.Now(); patience > 0 && now.Add(busy).Before(since.Add(patience)) {
		since, patience = now, busy
	}
	err := untilFree(ctx, since, patience, func() error { return s.conn.begin(ctx, "BEGIN IMMEDIATE") })
	if hasCode(err, sqlite3.SQLITE_BUSY) {
		locked := explain(ctx, err)
		locked.Message = fmt.Sprintf("another process holds the lock, gave up after %s", patience)
		return locked
	}
	return err
}

// BeginMigration implements [engine.Engine]. The table is golang-migrate's.
func (e *Engine) BeginMigration(ctx context.Context) (engine.Session, error) {
	s := &session{engine: e, want: claim{
		info: &engine.Info{Label: "migration", Caller: engine.Here(), Began: time.Now()},
	}}
	const table = `CREATE TABLE IF NOT EXISTS schema_migrations (version uint64, dirty bool);
		CREATE UNIQUE INDEX IF NOT EXISTS version_unique ON schema_migrations (version)`
	if _, err := s.ExecContext(ctx, table, nil); err != nil {
		return nil, s.fail(ctx, err)
	}
	return s, nil
}

// ExecContext implements [engine.Conn].
func (s *session) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	prepared, err := s.prepare(ctx, query)
	if err != nil {
		return nil, err
	}
	return prepared.execOnce(ctx, args)
}

// QueryContext implements [engine.Conn].
func (s *session) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	prepared, err := s.prepare(ctx, query)
	if err != nil {
		return nil, err
	}
	r, err := prepared.queryOnce(ctx, args)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// PrepareContext implements [engine.Conn].
func (s *session) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	prepared, err := s.prepare(ctx, query)
	if err != nil {
		return nil, err
	}
	return &sessionStmt{prepared, s}, nil
}

func (s *session) prepare(ctx context.Context, query string) (*stmt, error) {
	if err := s.begin(ctx, query); err != nil {
		return nil, err
	}
	return s.conn.prepare(ctx, query, refusedInSession)
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

// gone returns an error when the transaction has ended already, or nil. What ran nevertheless would commit by itself.
func (s *session) gone() error {
	if e := s.conn.gone(s.failed); e != nil {
		return e
	}
	return nil
}

// gone returns an error when the transaction has ended, or nil. cause is what failed before, if that is known.
func (c *conn) gone(cause *engine.Error) *engine.Error {
	if c.committed {
		return errControlled
	}
	if !c.undone {
		return nil
	}
	e := &engine.Error{
		Kind:    engine.ErrTxAborted,
		Message: "SQLite has rolled the transaction back",
		Aborts:  engine.AbortsSession,
	}
	if cause != nil {
		e.Message += ": " + cause.Message
		e.Err = cause
	}
	return e
}

// Savepoint implements [engine.Session]. Before the session has begun it does nothing: who waits for the writer does so
// with the context of a statement.
func (s *session) Savepoint(ctx context.Context, readOnly bool) error {
	switch {
	case s.slot != nil:
		return s.savepoint(ctx, readOnly)
	case s.failed != nil:
		return s.failed
	}
	s.planned = append(s.planned, readOnly)
	return nil
}

func (s *session) savepoint(ctx context.Context, readOnly bool) error {
	if err := s.gone(); err != nil {
		return err
	}
	if err := s.control(ctx, "SAVEPOINT ", len(s.levels)+1); err != nil {
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
	return s.endLevel(ctx, "RELEASE ")
}

// RollbackTo implements [engine.Session].
func (s *session) RollbackTo(ctx context.Context) error {
	return s.endLevel(ctx, "ROLLBACK TO ", "RELEASE ")
}

func (s *session) endLevel(ctx context.Context, verbs ...string) error {
	switch {
	case s.slot == nil && s.failed != nil:
		return s.failed
	case s.slot == nil:
		s.planned = s.planned[:len(s.planned)-1]
		return nil
	}
	if err := s.gone(); err != nil {
		return err
	}
	depth := len(s.levels)
	for _, verb := range verbs {
		if err := s.control(ctx, verb, depth); err != nil {
			return err
		}
	}
	around := s.levels[depth-1]
	s.levels = s.levels[:depth-1]
	if err := s.conn.setQueryOnly(ctx, around); err != nil {
		return during(ctx, "end savepoint", err)
	}
	return nil
}

// control runs a statement about the savepoint of a depth.
func (s *session) control(ctx context.Context, verb string, depth int) error {
	text := verb + "thole_" + strconv.Itoa(depth)
	if err := s.conn.settle(ctx, text); err != nil {
		return during(ctx, "run "+text, err)
	}
	return nil
}

// Commit implements [engine.Session]. SQLite's COMMIT is waited for, and that of others who share the transaction.
func (s *session) Commit(ctx context.Context, _ bool) (engine.Outcome, error) {
	err := s.commit(context.WithoutCancel(ctx))
	return outcomeOf(err), err
}

func (s *session) commit(ctx context.Context) error {
	switch {
	case s.failed != nil && s.slot == nil:
		return s.failed
	case s.slot == nil:
		return nil
	case !s.want.readOnly:
		s.engine.writer.pace.note(s.want.info, time.Since(s.entered))
		return s.engine.writer.keep(ctx, s)
	}
	defer s.engine.release(s.slot)
	if err := s.gone(); err != nil {
		_, _ = s.conn.rollback(ctx) // what somebody has begun since
		return err
	}
	if failed := s.conn.commit(ctx); failed != nil {
		return failed
	}
	return nil
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
	own, ok := err.(*engine.Error) //nolint:errorlint // what it wraps can be of another session
	switch {
	case err == nil:
		return engine.Committed
	case ok && errors.Is(own.Kind, engine.ErrCommitUnknown), errors.Is(err, error(errControlled)):
		return engine.Unknown
	}
	return engine.RolledBack
}

// Rollback implements [engine.Session].
func (s *session) Rollback(ctx context.Context, cause error) (engine.Outcome, error) {
	err := s.rollback(context.WithoutCancel(ctx), cause)
	if err == nil {
		return engine.RolledBack, nil
	}
	return outcomeOf(err), err
}

func (s *session) rollback(ctx context.Context, cause error) error {
	switch {
	case s.slot == nil:
		return nil
	case !s.want.readOnly:
		s.engine.writer.pace.note(s.want.info, time.Since(s.entered))
		return s.engine.writer.undo(ctx, s, cause)
	}
	defer s.engine.release(s.slot)
	return s.rollbackAll(ctx, cause)
}

// rollbackAll rolls the whole transaction back.
func (s *session) rollbackAll(ctx context.Context, cause error) error {
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

package thole

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/tholedb/thole/internal/engine"
)

// Tx is a session, or a session nested in one, while its fn runs. It satisfies
// [sqlx.ExtContext] and the DBTX that sqlc generates for database/sql. One
// goroutine uses it at a time ([ErrBusy] tells), and nobody after fn has
// returned ([ErrTxDone]).
//
// Each statement ends with the ctx that it is given or with the session's,
// whichever ends first.
type Tx struct {
	queries
	db      *DB
	session *session
	parent  *Tx // the level outside, nil at the outermost
	opts    SessionOptions
	ctx     context.Context
	cancel  context.CancelFunc // releases what ctx holds
	caller  engine.Caller      // where the level was opened
	viewing sync.Once          // makes view

	// Guarded by session.mu.
	hooks   hooks
	stmts   map[*stmt]struct{} // prepared; their end is the level's
	view    *sqlx.Tx
	aborted *Error // why the level can't be kept
	ended   string // how it ended; "" while it can be used
	cause   error  // why it was rolled back
	decided bool   // nothing is registered with it any more
	undone  bool   // it has ended, and what it did is rolled back
}

// session is one transaction with its levels, of which only the innermost can
// be used.
type session struct {
	inner   engine.Session
	info    *engine.Info
	attempt int
	key     *keyed // nil if it has no idempotency key

	mu     sync.Mutex
	idle   sync.Cond         // signalled when use becomes nil
	top    *Tx               // the innermost level that is open
	use    *statement        // the one in progress, or whose rows are open
	broken *Error            // why nothing but rolling back is left
	undone []func()          // OnRollback hooks of nested sessions that were rolled back
	named  map[string]string // statements that Pgx has prepared, by their names

	committed bool
}

// Context is the session's: it has the values of the ctx that the session was
// opened with, ends when that ends or when Timeout has passed, and carries the
// session, so that WithSession and queries on the DB, given it or a ctx made
// from it, run inside.
func (tx *Tx) Context() context.Context { return tx.ctx }

// Attempt is 1 when fn runs for the first time, 2 when it runs again.
func (tx *Tx) Attempt() int { return tx.session.attempt }

// Engine is the engine of the session's DB.
func (tx *Tx) Engine() Engine { return tx.db.Engine() }

// sessionKey finds in a ctx the session of one DB: that of another DB is
// another key.
type sessionKey struct{ db *DB }

// current is the session of db that ctx carries, or nil. It may have ended.
func (db *DB) current(ctx context.Context) *Tx {
	if ctx == nil {
		return nil
	}
	tx, _ := ctx.Value(sessionKey{db}).(*Tx)
	return tx
}

// carry is ctx with the session in it.
func (tx *Tx) carry(ctx context.Context) context.Context {
	if tx.db.current(ctx) == tx {
		return ctx
	}
	return context.WithValue(ctx, sessionKey{tx.db}, tx)
}

// begin opens an outermost session.
func (db *DB) begin(ctx context.Context, opts SessionOptions, info *engine.Info, attempt int) (*Tx, error) {
	if ctx.Err() != nil {
		return nil, contextError(ctx, "open session")
	}
	if err := db.enter(info); err != nil {
		return nil, err
	}
	inner, err := db.engine.Begin(ctx, engine.Options{
		ReadOnly:         opts.ReadOnly,
		Isolation:        opts.Isolation,
		Deferrable:       opts.Deferrable,
		LockTimeout:      opts.LockTimeout,
		StatementTimeout: opts.StatementTimeout,
		Timeout:          opts.Timeout,
		Settings:         opts.Settings,
		Once:             opts.MaxAttempts == 1,
		Info:             info,
	})
	if err != nil {
		db.leave(info)
		return nil, db.explained(err, "BEGIN")
	}
	s := &session{inner: inner, info: info, attempt: attempt}
	s.idle.L = &s.mu
	tx := &Tx{db: db, session: s, opts: opts, caller: info.Caller, cancel: func() {}}
	tx.queries = queries{on: db, in: tx}
	tx.ctx = context.WithValue(ctx, sessionKey{db}, tx)
	s.top = tx
	return tx, nil
}

// open opens a session nested in tx.
func (tx *Tx) open(ctx context.Context, opts SessionOptions) (*Tx, error) {
	// What it has, whatever it asked for.
	opts.Isolation, opts.Deferrable, opts.Settings = tx.opts.Isolation, tx.opts.Deferrable, tx.opts.Settings
	inner := &Tx{db: tx.db, session: tx.session, parent: tx, opts: opts, caller: engine.HereOr(ctx)}
	inner.queries = queries{on: tx.db, in: inner}
	if err := tx.push(inner); err != nil {
		return nil, err
	}
	if opts.Nested != NestedJoin {
		if err := tx.session.inner.Savepoint(engine.AsAt(tx.ctx, ctx), opts.ReadOnly); err != nil {
			failed := tx.fail(err, "SAVEPOINT")
			tx.session.release(tx)
			return nil, failed
		}
	}
	ctx, inner.cancel = tx.within(ctx, opts.Timeout)
	inner.ctx = context.WithValue(ctx, sessionKey{tx.db}, inner)
	tx.session.release(inner)
	return inner, nil
}

// within is ctx, ended also by the end of tx's and after timeout.
func (tx *Tx) within(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	ctx, release := tx.join(ctx)
	if timeout <= 0 {
		return ctx, release
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	return ctx, func() { cancel(); release() }
}

// join is ctx, ended also by the end of tx's. In the usual case, where a
// statement is given the ctx that the session was opened with, or one that tx
// gave out, it costs nothing.
func (tx *Tx) join(ctx context.Context) (context.Context, context.CancelFunc) {
	if tx.ctx.Done() == nil || ctx.Done() == tx.ctx.Done() {
		return ctx, func() {}
	}
	endDeadline := context.CancelFunc(func() {})
	if deadline, ok := tx.ctx.Deadline(); ok {
		ctx, endDeadline = context.WithDeadline(ctx, deadline)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(tx.ctx, func() {
		if !errors.Is(tx.ctx.Err(), context.DeadlineExceeded) { // that comes to ctx by itself
			cancel(context.Cause(tx.ctx))
		}
	})
	return ctx, func() { stop(); cancel(nil); endDeadline() }
}

// usable says why tx can't be used now, or nil. The caller holds session.mu.
func (tx *Tx) usable() error {
	s := tx.session
	switch {
	case tx.ended != "":
		return tx.doneError()
	case s.broken != nil:
		return s.broken
	case s.top != tx:
		return failure(ErrNested, "use session: the one nested in it, opened at %s, is open; use its Tx", s.top.caller)
	case s.use != nil:
		return failure(ErrBusy, "use session: %s", s.use.inProgress())
	case tx.aborted != nil:
		return tx.aborted
	}
	return nil
}

// doneError says how the level ended. The caller holds session.mu.
func (tx *Tx) doneError() *Error {
	if tx.cause != nil {
		return because(ErrTxDone, tx.cause, "use session opened at %s: %s", tx.caller, tx.ended)
	}
	return failure(ErrTxDone, "use session opened at %s: %s", tx.caller, tx.ended)
}

// whyDone is [Tx.doneError] for who does not hold session.mu.
func (tx *Tx) whyDone() error {
	tx.session.mu.Lock()
	defer tx.session.mu.Unlock()
	return tx.doneError()
}

// push makes inner the innermost level, busy until the session is released.
func (tx *Tx) push(inner *Tx) error {
	s := tx.session
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := tx.usable(); err != nil {
		return err
	}
	s.top, s.use = inner, &statement{query: "SAVEPOINT"}
	return nil
}

// release ends what the session is busy with; top can be used from now on.
func (s *session) release(top *Tx) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.top, s.use = top, nil
	s.idle.Broadcast()
}

// fail takes note of what a failure means for the session: what an engine can't
// undo, and what would be half done, must not be committed.
func (tx *Tx) fail(err error, query string) *Error {
	failed := tx.db.explained(err, query)
	told, ok := errors.AsType[*engine.Error](err)
	if !ok || told.Aborts == engine.AbortsNothing {
		return failed
	}
	kind := ErrTxAborted
	if errors.Is(told.Kind, ErrConnLost) {
		kind = ErrConnLost
	}
	tx.abort(told.Aborts, because(kind, failed, "session can't go on"))
	return failed
}

// abort notes why the level, or the whole session, can't be kept. The first
// reason stays.
func (tx *Tx) abort(extent engine.Extent, why *Error) {
	s := tx.session
	s.mu.Lock()
	defer s.mu.Unlock()
	if extent == engine.AbortsSession && s.broken == nil {
		s.broken = why
	}
	if tx.aborted == nil {
		tx.aborted = why
	}
}

// end ends the level after fn has returned err, and returns what the caller is
// told.
func (tx *Tx) end(err error) error {
	left, open := tx.close()
	if !open {
		return errors.Join(err, left)
	}
	defer tx.cancel()
	if err == nil {
		err = tx.orContext(left)
	}
	switch {
	case tx.parent != nil && tx.opts.Nested == NestedJoin:
		return tx.leaveJoined(err)
	case tx.parent != nil && err != nil:
		return tx.rollbackTo(err)
	case tx.parent != nil:
		return tx.release()
	case err != nil:
		return tx.rollback(err)
	}
	return tx.commit()
}

// orContext is why the level can't be kept, with the end of its ctx where that
// has ended.
func (tx *Tx) orContext(why error) error {
	switch {
	case tx.ctx.Err() == nil || errors.Is(why, tx.ctx.Err()):
		return why
	case why == nil:
		return contextError(tx.ctx, "commit session")
	}
	return errors.Join(why, contextError(tx.ctx, "commit session"))
}

// abandon rolls back what fn left by a panic or by runtime.Goexit. It does
// nothing after end.
func (tx *Tx) abandon() {
	if tx.isDone() {
		return
	}
	defer func() {
		// The panic that is on its way is the one to see.
		if v := recover(); v != nil {
			tx.db.logSession(tx.ctx, slog.LevelError, "thole: panic while a session that panicked was rolled back",
				tx.session.info, nil, slog.Any("panic", v))
		}
	}()
	_ = tx.end(failure(nil, "fn panicked or called runtime.Goexit"))
}

func (tx *Tx) isDone() bool {
	tx.session.mu.Lock()
	defer tx.session.mu.Unlock()
	return tx.ended != ""
}

// close shuts the level, and those still open inside, against further use,
// waits for what is in progress, and leaves the session busy with its end. It
// returns why the level can't be kept, or nil, and false if it was shut before.
func (tx *Tx) close() (why error, open bool) {
	s := tx.session
	s.mu.Lock()
	defer s.mu.Unlock()
	if tx.ended != "" {
		return tx.doneError(), false
	}
	why = tx.unkept()
	tx.ended = endingNow
	for level := s.top; level != tx; level = level.parent {
		level.ended = cmp.Or(level.ended, aroundEnded)
	}
	s.waitIdle()
	if !s.has(tx) { // the level around it was quicker
		return tx.doneError(), false
	}
	for level := s.top; level != tx; level = level.parent {
		level.shutBy(tx)
	}
	inside := s.top
	s.top, s.use = tx, &statement{query: "the end of the session"}
	s.mu.Unlock()
	defer s.mu.Lock()
	tx.unwind(inside)
	for level := inside; level != tx.parent; level = level.parent {
		level.dropHandles()
	}
	return why, true
}

const (
	endingNow   = "it is ending"
	aroundEnded = "the one around it has ended"
)

// dropHandles ends the statements that were prepared in the level, and its
// view. Nobody uses the level any more.
func (tx *Tx) dropHandles() {
	for stmt := range tx.stmts {
		stmt.drop()
	}
	tx.session.mu.Lock()
	defer tx.session.mu.Unlock()
	if view := tx.view; view != nil {
		go func() { _ = view.Rollback() }() // ends the view alone; who still holds a row of it makes it wait
	}
}

// has reports whether the level is among those that are open. The caller holds
// s.mu.
func (s *session) has(tx *Tx) bool {
	for level := s.top; level != nil; level = level.parent {
		if level == tx {
			return true
		}
	}
	return false
}

// shutBy ends the use of a level, left open in another goroutine, whose outer
// one ends. The caller holds session.mu.
func (tx *Tx) shutBy(outer *Tx) {
	tx.ended, tx.undone, tx.decided = aroundEnded, true, true
	tx.session.undone = append(tx.session.undone, tx.rollbackHooks(outer, tx.doneError())...)
}

// unwind undoes the levels inside a nested one that were left open.
func (tx *Tx) unwind(inside *Tx) {
	for level := inside; level != tx && tx.parent != nil; level = level.parent {
		if level.opts.Nested != NestedJoin {
			_ = level.undo()
		}
	}
}

// waitIdle waits for the statement in progress, and closes the rows that are
// open. The caller holds s.mu.
func (s *session) waitIdle() {
	for s.use != nil {
		if rows := s.use.rows; rows != nil {
			s.mu.Unlock()
			rows.shut()
			s.mu.Lock()
		} else {
			s.idle.Wait()
		}
	}
}

// keepable is why the level can't be kept as it stands now, or nil.
func (tx *Tx) keepable() error {
	tx.session.mu.Lock()
	defer tx.session.mu.Unlock()
	if tx.ended != "" {
		return tx.doneError()
	}
	if why := tx.unkept(); why != nil {
		return tx.orContext(why)
	}
	return nil
}

// unkept is why the level must not be kept, as it stands when fn returns. The
// caller holds session.mu.
func (tx *Tx) unkept() error {
	s := tx.session
	switch {
	case s.broken != nil:
		return s.broken
	case tx.aborted != nil:
		return tx.aborted
	case s.top != tx:
		return failure(ErrNested, "commit session: the one nested in it, opened at %s, is still open", s.top.caller)
	case s.use != nil && s.use.rows != nil:
		return failure(ErrRowsOpen, "commit session: %s", s.use.inProgress())
	case s.use != nil:
		return failure(ErrBusy, "commit session: %s", s.use.inProgress())
	}
	return nil
}

// leaveJoined ends a level that has no savepoint of its own.
func (tx *Tx) leaveJoined(err error) error {
	if err != nil {
		tx.parent.abort(engine.AbortsLevel, because(ErrTxAborted, err, "commit session: the one joined to it at %s failed", tx.caller))
	}
	tx.handOver(err)
	return err
}

// release keeps what the level did, as far as the outer ones are kept.
func (tx *Tx) release() error {
	if err := tx.session.inner.Release(tx.ctx); err != nil {
		return tx.rollbackTo(tx.fail(err, "RELEASE"))
	}
	tx.handOver(nil)
	return nil
}

// rollbackTo undoes what the level did.
func (tx *Tx) rollbackTo(cause error) error {
	told := cause
	if err := tx.undo(); err != nil {
		told = errors.Join(cause, err)
	}
	tx.handOver(cause)
	return told
}

// undo rolls back to the level's savepoint. If that fails, only the outermost
// session's ROLLBACK is left, as it is on a connection that broke.
func (tx *Tx) undo() error {
	if tx.session.isBroken() {
		return nil
	}
	err := tx.session.inner.RollbackTo(tx.ctx)
	if err == nil {
		return nil
	}
	failed := tx.db.explained(err, "ROLLBACK TO")
	tx.abort(engine.AbortsSession, because(ErrTxAborted, failed, "use session: the one nested in it, opened at %s, could not be rolled back", tx.caller))
	return failed
}

func (s *session) isBroken() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broken != nil
}

// handOver ends a nested level. With a cause what it did is undone; without,
// the level outside takes it over.
func (tx *Tx) handOver(cause error) {
	s, outer := tx.session, tx.parent
	s.mu.Lock()
	tx.decided = true
	if cause == nil {
		outer.hooks.add(tx.hooks)
		tx.ended = "it has ended"
	} else {
		tx.ended, tx.cause, tx.undone = "it was rolled back", cause, true
		s.undone = append(s.undone, tx.rollbackHooks(outer, cause)...)
	}
	s.top, s.use = outer, nil
	s.idle.Broadcast()
	s.mu.Unlock()
}

// commit commits the outermost session and runs what waits for it.
func (tx *Tx) commit() error {
	outcome, err := tx.session.inner.Commit(tx.ctx, tx.isObserved())
	if err == nil {
		return tx.committed()
	}
	failed := tx.db.explained(err, "COMMIT")
	switch {
	case Outcome(outcome) == RolledBack:
		tx.rolledBack(failed)
		return withOutcome(RolledBack, failed)
	case tx.session.key != nil && errors.Is(failed, ErrCommitUnknown):
		return tx.resolve(failed)
	}
	return tx.unknown(failed)
}

// committed ends the outermost session, all of which is kept.
func (tx *Tx) committed() error {
	tx.finish(Committed, "it was committed", nil)
	run(append(tx.session.undone, tx.commitHooks()...))
	return nil
}

// isObserved reports whether somebody acts on the commit.
func (tx *Tx) isObserved() bool {
	tx.session.mu.Lock()
	defer tx.session.mu.Unlock()
	return len(tx.hooks.onCommit) > 0
}

// rollback rolls the outermost session back because of cause.
func (tx *Tx) rollback(cause error) error {
	outcome, err := tx.session.inner.Rollback(tx.ctx, cause)
	told := cause
	if err != nil {
		tx.db.logSession(tx.ctx, slog.LevelWarn, "thole: a session did not roll back as it should", tx.session.info, err)
		told = err
		if own, ok := err.(*engine.Error); ok { //nolint:errorlint // what wraps it is fn's own as well
			told = tx.db.explained(own, "")
		}
	}
	if Outcome(outcome) != RolledBack {
		return tx.unknown(told)
	}
	tx.rolledBack(told)
	return withOutcome(RolledBack, told)
}

// unknown ends the outermost session, of which all or nothing is left.
func (tx *Tx) unknown(cause error) error {
	tx.finish(Unknown, "it is unknown whether it was committed", cause)
	return withOutcome(Unknown, cause)
}

// rolledBack ends the outermost session, of which nothing is left.
func (tx *Tx) rolledBack(cause error) {
	tx.finish(RolledBack, "it was rolled back", cause)
	run(append(tx.session.undone, tx.rollbackHooks(tx, cause)...))
}

// finish notes the end of the outermost session, whose connection is back.
func (tx *Tx) finish(outcome Outcome, how string, cause error) {
	s := tx.session
	s.mu.Lock()
	s.committed, tx.decided = outcome == Committed, true
	tx.ended, tx.cause, tx.undone = how, cause, outcome == RolledBack
	s.mu.Unlock()
	s.release(nil)
	tx.db.leave(s.info)
	tx.logEnd(outcome, cause)
}

// openView makes the view, which the end of the level ends.
func (tx *Tx) openView() {
	views, done := tx.db.views()
	defer done()
	view := views.MustBeginTx(&call{Context: tx.ctx}, nil) // our connector sends nothing
	tx.session.mu.Lock()
	tx.view = view
	late := tx.ended != ""
	tx.session.mu.Unlock()
	if late {
		_ = view.Rollback() // ends the view alone
	}
}

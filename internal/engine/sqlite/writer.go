package sqlite

import (
	"context"
	"errors"
	"runtime"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/tholedb/thole/internal/engine"
)

// Sessions that write share transactions, so that they wait for the disk once for several of them (group commit). A
// session that ends while another waits for the writer hands it on with the transaction open. The next one runs in a
// savepoint of it, and the one behind which nobody waits commits. Each runs on the goroutine of its own caller, one
// after the other. None returns before it is known what became of the transaction, not even one that failed: it has
// seen what those before it did. One that is alone pays nothing for all this.

// writer is the connection that writes, and the line of those who want it.
type writer struct {
	line *pool[*slot]
	slot *slot // the only one

	// The rest belongs to whoever has the slot.
	group   *group        // shares the transaction that is open; nil when at most one session is in it
	began   time.Time     // when the transaction began
	cost    time.Duration // of a COMMIT, on average
	company bool          // the last transaction was shared: who was in it may be about to come back
	pace    pace
	schema  schema
	wal     wal
	others  others
}

// group is the sessions that share a transaction.
type group struct {
	ended chan struct{} // closed when it is known what became of the transaction
	late  *time.Timer   // warns that it takes long
	lost  *engine.Error // then: why it is not committed, or nil
}

// schema is what is known of the triggers and tables.
type schema struct {
	version  string
	rollback bool // what they say may end a whole transaction
}

// savepoint is that of a session which follows others in their transaction.
const savepoint = "thole_session"

// enter begins the transaction of a session that has just got the writer, or joins the one that came with it.
func (w *writer) enter(ctx context.Context, s *session, since time.Time) error {
	if w.group != nil {
		s.follows, s.conn.shared, s.entered = true, true, time.Now()
		return s.conn.settle(ctx, "SAVEPOINT "+savepoint)
	}
	err := s.beginAnew(ctx, func() error { return s.beginImmediate(ctx, since) })
	w.began = time.Now()
	s.entered = w.began
	return err
}

// keep ends a session whose work is to stay.
func (w *writer) keep(ctx context.Context, s *session) error {
	if gone := s.conn.gone(s.failed); gone != nil {
		return w.lose(ctx, s, gone)
	}
	if s.follows {
		if s.conn.owes() {
			return w.try(ctx, s)
		}
		if err := s.conn.settle(ctx, "RELEASE "+savepoint); err != nil {
			return w.lose(ctx, s, during(ctx, "commit", err))
		}
	}
	lost, byOthers := w.leave(ctx, s)
	switch {
	case lost == nil:
		return nil
	case byOthers && outcomeOf(lost) == engine.RolledBack:
		return shared(lost)
	}
	return lost
}

// try commits, for only COMMIT tells which foreign key is violated. When it fails so, the transaction is still open,
// with its savepoints, and the others who share it need not know.
func (w *writer) try(ctx context.Context, s *session) error {
	err := s.conn.settle(ctx, "COMMIT")
	if isForeignKey(err) {
		failed := during(ctx, "commit", err)
		if lost := w.undo(ctx, s, failed); lost != nil {
			return lost
		}
		return failed
	}
	defer s.engine.release(s.slot)
	if err == nil {
		w.settle(nil)
		return nil
	}
	failed := s.conn.uncommitted(ctx, err)
	w.settle(failed)
	return failed
}

// undo ends a session whose work is not to stay, because of cause. An error is to be told instead of that, which may
// have been concluded from work of others that is gone.
func (w *writer) undo(ctx context.Context, s *session, cause error) error {
	if !s.follows {
		err := s.rollbackAll(ctx, cause)
		w.settle(nil)
		s.engine.release(s.slot)
		return err
	}
	if gone := s.conn.gone(s.failed); gone != nil {
		lost := w.lose(ctx, s, gone)
		if gone == errControlled {
			return errors.Join(cause, lost)
		}
		return lost
	}
	for _, text := range []string{"ROLLBACK TO " + savepoint, "RELEASE " + savepoint} {
		if err := s.conn.settle(ctx, text); err != nil {
			return errors.Join(cause, w.lose(ctx, s, during(ctx, "roll back", err)))
		}
	}
	if lost, _ := w.leave(ctx, s); lost != nil {
		return shared(lost)
	}
	return nil
}

// leave hands the writer on with the transaction open, and waits for what others make of that, or commits. It returns
// why the transaction is lost, or nil.
func (w *writer) leave(ctx context.Context, s *session) (lost *engine.Error, byOthers bool) {
	if s.want.shares {
		if g := w.handOn(ctx, s.engine); g != nil {
			<-g.ended
			return g.lost, true
		}
	}
	return w.end(ctx, s), false
}

// end commits and gives the writer back.
func (w *writer) end(ctx context.Context, s *session) *engine.Error {
	defer s.engine.release(s.slot)
	failed := w.commit(ctx)
	if failed == nil {
		now := time.Now()
		w.tend(ctx, s.engine, now)
		w.makeRoom(ctx, now)
	}
	return failed
}

// lose gives up the transaction with all who are in it.
func (w *writer) lose(ctx context.Context, s *session, why *engine.Error) error {
	defer s.engine.release(s.slot)
	_, _ = s.conn.rollback(ctx) // what somebody has begun since, if SQLite has ended it
	w.settle(why)
	return why
}

// commit commits the transaction that is open, for all who share it.
func (w *writer) commit(ctx context.Context) *engine.Error {
	const weight = 8
	before := time.Now()
	failed := w.slot.conn.commit(ctx)
	w.cost += (time.Since(before) - w.cost) / weight
	w.settle(failed)
	return failed
}

// settle tells those who share the transaction that it has ended.
func (w *writer) settle(lost *engine.Error) {
	g := w.group
	w.group, w.company = nil, g != nil
	if w.slot.conn.sealed || lost != nil {
		w.schema = schema{} // the text that sealed it may have made a trigger, and what is lost have changed it
	}
	if g != nil {
		g.late.Stop()
		g.lost = lost
		close(g.ended)
	}
}

// shared is the error of a session of which nothing is left because its transaction was lost. When the disk is to blame
// it says so; what a statement of another session failed with, it doesn't tell: its kind or its values.
func shared(lost *engine.Error) *engine.Error {
	cause := lost
	_ = errors.As(lost.Err, &cause) // the statement that ended the transaction
	e := &engine.Error{
		Kind:    engine.ErrTxAborted,
		Code:    cause.Code,
		Message: "the transaction that the session shared with others is lost",
		Retry:   engine.RetryAsked,
		Aborts:  engine.AbortsSession,
	}
	if cause == lost && lost != errControlled || hasCode(cause, sqlite3.SQLITE_FULL) || hasCode(cause, sqlite3.SQLITE_IOERR) {
		e.Message += ": " + cause.Message
		e.Err = engine.Foreign(cause)
	} else {
		e.Message += ": something in another one has ended it"
	}
	return e
}

// handOn gives the writer to the next in line with the transaction open, and returns the group that shares it from now
// on; nil if nobody waits, or nobody may join.
func (w *writer) handOn(ctx context.Context, e *Engine) *group {
	c := w.slot.conn
	if e.cfg.inMemory() || c.sealed || c.broken || w.isOld() || !w.isAwaited() || c.owes() || w.mayRollBack(ctx) {
		return nil
	}
	if w.group == nil {
		w.group = &group{ended: make(chan struct{}), late: time.AfterFunc(e.groupPatience, e.warnOfGroup)}
	}
	g := w.group
	w.slot.holder.Store(nil)
	if !w.line.pass(w.slot) { // who waited has left
		return nil
	}
	return g
}

// groupPatience is after which time a group is something to look at.
const groupPatience = 5 * time.Second

// warnOfGroup tells for whom sessions that have ended are waiting. He may need what one of them holds, and then this is
// for ever.
func (e *Engine) warnOfGroup() {
	e.env.Log.Warn("thole: sessions that have ended wait for one that shares their transaction: "+e.holds(), "database", e.name)
}

// isOld reports whether the transaction has lasted so long that those who are in it should not wait for yet another
// session; and neither should other processes.
func (w *writer) isOld() bool { return time.Since(w.began) > w.youth() }

// youth is how long a transaction may last and be joined: as long as it takes to commit some of them.
func (w *writer) youth() time.Duration {
	const atLeast, commits = 2 * time.Millisecond, 8
	return max(atLeast, commits*w.cost)
}

// mayJoin reports whether somebody who has got the writer may join the transaction that is open. One who is expected to
// be slow would have all the others wait.
func (w *writer) mayJoin(want claim) bool { return want.shares && w.pace.of(want.info) <= w.youth() }

// isAwaited reports whether somebody waits for the writer. Those who were in the last transaction have just been woken:
// it lets them come.
func (w *writer) isAwaited() bool {
	const yields = 4
	for range yields {
		if !w.company || w.line.isAwaited() {
			break
		}
		runtime.Gosched()
	}
	return w.line.isAwaited()
}

// mayRollBack reports whether a trigger or a constraint of the schema ends the whole transaction when it fails:
// RAISE (ROLLBACK), ON CONFLICT ROLLBACK.
func (w *writer) mayRollBack(ctx context.Context) bool {
	if w.group != nil {
		return false // it was looked at when the first one joined, and what changes it since then seals
	}
	c := w.slot.conn
	version, err := c.ask(ctx, "PRAGMA schema_version")
	if err == nil && version != w.schema.version {
		var found string
		found, err = c.ask(ctx, mayRollBack)
		w.schema = schema{version, found != "0"}
	}
	return err != nil || w.schema.rollback
}

// mayRollBack counts the texts of the schema with the word in them, and the databases that are attached, whatever is in
// those.
const mayRollBack = `SELECT
	(SELECT count(*) FROM (SELECT sql FROM sqlite_schema UNION ALL SELECT sql FROM sqlite_temp_schema)
		WHERE instr(lower(sql), 'rollback')) +
	(SELECT count(*) FROM pragma_database_list WHERE name NOT IN ('main', 'temp'))`

// handBack takes a connection back from somebody who has not begun to use it. If it is the writer, a transaction of
// others may be open on it.
func (e *Engine) handBack(s *slot) {
	w := &e.writer
	if s == w.slot && w.group != nil {
		s.holder.Store(nil)
		gone := s.conn.gone(nil)
		switch {
		case gone != nil:
			w.settle(gone)
		case !s.conn.broken && w.line.pass(s):
			return
		default:
			_ = w.commit(context.Background()) // those who share the transaction are told
		}
	}
	e.release(s)
}

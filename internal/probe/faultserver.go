package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/tholedb/thole/internal/engine"
	"github.com/tholedb/thole/internal/engine/postgres"
	"github.com/tholedb/thole/internal/sqltext"
)

// onServer are the faults of a PostgreSQL database of the test's own. The server
// itself fails, and connections break.
type onServer struct{}

// onSandbox are the faults in a sandbox on PostgreSQL. The server itself fails, but
// the connection stays, for it has the work of earlier sessions.
type onSandbox struct{ onServer }

// The SQLSTATEs of the faults.
//
// https://www.postgresql.org/docs/current/errcodes-appendix.html
const (
	tooManyConnections   = "53300"
	diskFull             = "53100"
	ioError              = "58030"
	serializationFailure = "40001"
)

// raised are the messages that the server has for them.
var raised = map[string]string{
	tooManyConnections:   "sorry, too many clients already",
	diskFull:             "could not extend file: No space left on device",
	ioError:              "could not write to log file: Input/output error",
	serializationFailure: "could not serialize access due to read/write dependencies among transactions",
}

// raise is a statement of PL/pgSQL that fails.
func raise(code string) string {
	return "raise exception using errcode = '" + code + "', message = '" + raised[code] + "'"
}

// fail has the server fail in the place of a statement. Outside a session that is
// done behind another statement: of a block alone it would not be known whether it
// has committed something.
func (onServer) fail(ctx context.Context, at point, code string) error {
	text := "do $thole$ begin " + raise(code) + "; end $thole$"
	if at.session == nil {
		text = "select 1; " + text
	}
	_, err := at.conn.ExecContext(ctx, text, nil)
	return err
}

func (on onServer) failBegin(ctx context.Context, at point) error {
	failed := *at.conn.Failed(ctx, on.fail(ctx, at, tooManyConnections))
	failed.Message = "begin session: " + failed.Message
	failed.Aborts = engine.AbortsSession
	return &failed
}

func (on onServer) diskFull(ctx context.Context, at point) error { return on.fail(ctx, at, diskFull) }

// interrupt has the server cancel a statement, and says that the ctx was the reason.
func (onServer) interrupt(ctx context.Context, at point) error {
	const cancelled = "select pg_catalog.pg_cancel_backend(pg_catalog.pg_backend_pid()), pg_catalog.pg_sleep(60)"
	_, err := at.conn.ExecContext(ctx, cancelled, nil)
	failed := *at.conn.Failed(ctx, err)
	if ctx.Err() == nil {
		failed.Kind, failed.Retry = nil, engine.RetryNever
		failed.Message += ": " + context.Canceled.Error()
		failed.Err = errors.Join(failed.Err, context.Canceled)
	}
	return &failed
}

func (onServer) slowQuery(ctx context.Context, at point, delay time.Duration) error {
	_, err := at.conn.ExecContext(ctx, fmt.Sprintf("select pg_catalog.pg_sleep(%f)", delay.Seconds()), nil)
	return err
}

// loseConnection closes the connection. The statement is sent on it: outside a
// session by itself, and not behind the question what it takes.
func (onServer) loseConnection(ctx context.Context, at point) error {
	if at.session == nil {
		_, _ = at.conn.PrepareContext(ctx, at.text) // what can't be prepared is not asked about
	}
	w, err := wireOf(ctx, at.conn, at.text)
	if err != nil {
		return err
	}
	_ = w.Close() // as far as it was open
	return nil
}

func (on onServer) failCommit(ctx context.Context, s *session) (engine.Outcome, error) {
	return on.refuseCommit(ctx, s, ioError)
}

func (on onServer) failSerialization(ctx context.Context, s *session) (engine.Outcome, error) {
	return on.refuseCommit(ctx, s, serializationFailure)
}

// refuseCommit has COMMIT fail by a deferred constraint. A session that is read-only
// can't make one.
func (on onServer) refuseCommit(ctx context.Context, s *session, code string) (engine.Outcome, error) {
	if s.opts.ReadOnly {
		return on.failInstead(ctx, s, code)
	}
	ctx, cancel := engine.Detached(ctx)
	defer cancel()
	if _, err := s.inner.ExecContext(ctx, failingConstraint(code), nil); err != nil {
		return undo(ctx, s, s.inner.Failed(ctx, err))
	}
	return s.inner.Commit(ctx, true)
}

// failInstead has the server fail in the place of COMMIT.
func (on onServer) failInstead(ctx context.Context, s *session, code string) (engine.Outcome, error) {
	ctx, cancel := engine.Detached(ctx)
	defer cancel()
	err := on.fail(ctx, point{conn: s.inner, session: s}, code)
	return undo(ctx, s, s.inner.Failed(ctx, err))
}

// failingConstraint makes COMMIT fail. All that it makes is gone with the
// transaction.
//
// https://www.postgresql.org/docs/current/sql-createtrigger.html (CONSTRAINT)
func failingConstraint(code string) string {
	return `create temporary table thole_fault (n integer);
		create function pg_temp.thole_fault() returns trigger language plpgsql as $thole$ begin ` + raise(code) + `; end $thole$;
		create constraint trigger thole_fault after insert on pg_temp.thole_fault deferrable initially deferred
			for each row execute function pg_temp.thole_fault();
		insert into pg_temp.thole_fault values (1)`
}

func (onServer) loseCommit(ctx context.Context, s *session) (engine.Outcome, error) {
	return breaking(ctx, s, func(w *wire) { _ = w.Close() }) // as far as it was open
}

func (onServer) loseCommitReply(ctx context.Context, s *session) (engine.Outcome, error) {
	return breaking(ctx, s, (*wire).loseReply)
}

// breaking commits on a connection that breaks.
func breaking(ctx context.Context, s *session, how func(*wire)) (engine.Outcome, error) {
	settled, cancel := engine.Detached(ctx)
	defer cancel()
	w, err := wireOf(settled, s.inner, "COMMIT")
	if err != nil {
		return undo(ctx, s, s.inner.Failed(settled, err))
	}
	how(w)
	return s.inner.Commit(ctx, true)
}

func (onServer) failRollback(ctx context.Context, s *session, cause error) (engine.Outcome, error) {
	settled, cancel := engine.Detached(ctx)
	defer cancel()
	w, err := wireOf(settled, s.inner, "ROLLBACK")
	if err != nil {
		return failToRollBack(ctx, s, cause, s.inner.Failed(settled, err))
	}
	_ = w.Close() // as far as it was open
	return s.inner.Rollback(ctx, cause)
}

// connLost is what a session is told of a connection that broke.
func connLost() *engine.Error {
	return &engine.Error{
		Kind:    engine.ErrConnLost,
		Message: "connection lost: closed by the other side",
		Retry:   engine.RetryAsked,
		Aborts:  engine.AbortsSession,
		Err:     io.ErrUnexpectedEOF,
	}
}

// commitLost is what is told where something may be committed.
func commitLost() *engine.Error {
	failed := connLost()
	failed.Kind, failed.Retry = engine.ErrCommitUnknown, engine.RetryForbidden
	failed.Message = engine.ErrCommitUnknown.Error() + ": " + failed.Message
	return failed
}

func (onSandbox) loseConnection(_ context.Context, at point) error {
	if at.session == nil && !sqltext.IsScript(sqltext.Postgres, at.text) { // that is a session of its own
		return commitLost()
	}
	return connLost()
}

func (on onSandbox) failCommit(ctx context.Context, s *session) (engine.Outcome, error) {
	return on.failInstead(ctx, s, ioError)
}

func (on onSandbox) failSerialization(ctx context.Context, s *session) (engine.Outcome, error) {
	return on.failInstead(ctx, s, serializationFailure)
}

func (onSandbox) loseCommit(ctx context.Context, s *session) (engine.Outcome, error) {
	return loseBefore(ctx, s, connLost(), commitLost())
}

func (onSandbox) loseCommitReply(ctx context.Context, s *session) (engine.Outcome, error) {
	return loseAfter(ctx, s, connLost(), commitLost())
}

func (onSandbox) failRollback(ctx context.Context, s *session, cause error) (engine.Outcome, error) {
	return failToRollBack(ctx, s, cause, connLost())
}

var _, _ damages = onServer{}, onSandbox{}

// wireOf is the connection that statements run on.
func wireOf(ctx context.Context, conn engine.Conn, text string) (*wire, error) {
	on, err := conn.(postgres.Native).Native(ctx, text)
	if err != nil {
		return nil, err
	}
	w, ok := on.PgConn().Conn().(*wire)
	if !ok {
		return nil, &engine.Error{
			Message: "dbtest: a connection by TLS can't be lost; add sslmode=disable to DBTEST_URL",
			Aborts:  engine.AbortsSession,
		}
	}
	return w, nil
}

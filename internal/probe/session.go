package probe

import (
	"context"
	"database/sql/driver"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tholedb/thole/internal/engine"
	"github.com/tholedb/thole/internal/engine/postgres"
)

// session is a session that is watched.
type session struct {
	probe   *Probe
	inner   engine.Session
	opts    engine.Options
	note    *Session
	use     *Use
	depth   int
	entered bool // it has its turn
	ran     bool // a statement, or tried to
}

var _ interface {
	engine.Session
	engine.HookWatcher
	postgres.Native
} = (*session)(nil)

func (p *Probe) watch(ctx context.Context, inner engine.Session, opts engine.Options) *session {
	note := &Session{Info: opts.Info, Options: opts, Aside: engine.IsAside(ctx)}
	p.begin(note)
	return &session{probe: p, inner: inner, opts: opts, note: note, use: p.borrow(opts.Info)}
}

// enter takes the turn before the first statement.
func (s *session) enter(ctx context.Context) error {
	if err := s.probe.refuse(); err != nil {
		return err
	}
	if s.entered {
		return nil
	}
	wait := time.Duration(0)
	if s.probe.Name() == "sqlite" {
		wait = s.opts.LockTimeout // which bounds the wait for the writer
	}
	if err := s.probe.turns.take(ctx, s.opts.Info, wait); err != nil {
		return err
	}
	s.entered = true
	return nil
}

// run runs a statement, unless a fault takes its place, and notes it.
func run[T any](ctx context.Context, s *session, text string, args []any, do func(context.Context) (T, error)) (got T, err error) {
	if err := s.enter(ctx); err != nil {
		return got, err
	}
	st := s.probe.note(s.note, s.depth, text, args)
	first := !s.ran
	s.ran = true
	err = s.probe.strikeStatement(ctx, point{conn: s.inner, session: s, text: text, first: first})
	if err == nil {
		got, err = do(ctx)
	}
	return follow(s.probe, st, got, err)
}

// affected is how many rows a statement has affected, where its result says so.
func affected(got any) int64 {
	switch got := got.(type) {
	case nil:
	case driver.Result:
		if n, err := got.RowsAffected(); err == nil {
			return n
		}
	case pgconn.CommandTag:
		return got.RowsAffected()
	case *engine.Kept:
		return int64(got.Len())
	}
	return -1
}

// ExecContext implements [driver.ExecerContext].
func (s *session) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	return run(ctx, s, query, values(args), func(ctx context.Context) (driver.Result, error) {
		return s.inner.ExecContext(ctx, query, args)
	})
}

// QueryContext implements [driver.QueryerContext].
func (s *session) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	return run(ctx, s, query, values(args), func(ctx context.Context) (driver.Rows, error) {
		return s.inner.QueryContext(ctx, query, args)
	})
}

// PrepareContext implements [driver.ConnPrepareContext]. What is prepared is noted
// when it runs.
func (s *session) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	prepared, err := s.inner.PrepareContext(ctx, query)
	if err != nil {
		s.probe.noted(s.probe.note(s.note, s.depth, query, nil), -1, err)
		return nil, err
	}
	return &stmt{prepared, s, query}, nil
}

// InsertRows implements [engine.Session].
func (s *session) InsertRows(ctx context.Context, rows engine.Rows) error {
	_, err := run(ctx, s, insertText(rows), nil, func(ctx context.Context) (driver.Result, error) {
		return driver.RowsAffected(rows.Len), s.inner.InsertRows(ctx, rows)
	})
	return err
}

// ExecNative implements [postgres.Native].
func (s *session) ExecNative(ctx context.Context, query string, args []any) (pgconn.CommandTag, error) {
	return run(ctx, s, query, args, func(ctx context.Context) (pgconn.CommandTag, error) {
		return s.inner.(postgres.Native).ExecNative(ctx, query, args)
	})
}

// QueryNative implements [postgres.Native].
func (s *session) QueryNative(ctx context.Context, query string, args []any) (*postgres.Rows, error) {
	return run(ctx, s, query, args, func(ctx context.Context) (*postgres.Rows, error) {
		return s.inner.(postgres.Native).QueryNative(ctx, query, args)
	})
}

// Native implements [postgres.Native]. What runs there is noted by its texts, and
// its end is not known.
func (s *session) Native(ctx context.Context, query string, texts ...string) (*pgx.Conn, error) {
	for _, text := range texts {
		if _, err := run(ctx, s, text, nil, func(context.Context) (any, error) { return nil, nil }); err != nil {
			return nil, err
		}
	}
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	return s.inner.(postgres.Native).Native(ctx, query, texts...)
}

// Failed implements [engine.Conn].
func (s *session) Failed(ctx context.Context, err error) *engine.Error {
	if own, ok := err.(*engine.Error); ok { //nolint:errorlint // what wraps one is the engine's
		told := *own
		return s.probe.explained(s.note, &told)
	}
	return s.probe.explained(s.note, s.inner.Failed(ctx, err))
}

// Savepoint implements [engine.Session].
func (s *session) Savepoint(ctx context.Context, readOnly bool) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	if err := s.inner.Savepoint(ctx, readOnly); err != nil {
		return err
	}
	s.depth++
	s.probe.nested(ctx, s.note, s.depth)
	return nil
}

// Release implements [engine.Session].
func (s *session) Release(ctx context.Context) error {
	err := s.inner.Release(ctx)
	if err == nil {
		s.depth--
	}
	return err
}

// RollbackTo implements [engine.Session].
func (s *session) RollbackTo(ctx context.Context) error {
	err := s.inner.RollbackTo(ctx)
	if err == nil {
		s.probe.undone(s.note, s.depth)
		s.depth--
	}
	return err
}

// Commit implements [engine.Session].
func (s *session) Commit(ctx context.Context, observed bool) (engine.Outcome, error) {
	if !s.entered {
		return s.leave(engine.Committed, nil)
	}
	return s.leave(s.commit(ctx, observed))
}

// Rollback implements [engine.Session].
func (s *session) Rollback(ctx context.Context, cause error) (engine.Outcome, error) {
	outcome, err := s.rollBack(ctx, cause)
	why := err
	if why == nil {
		why = cause
	}
	_, _ = s.leave(outcome, why)
	return outcome, err
}

// leave notes the end and passes the turn on.
func (s *session) leave(outcome engine.Outcome, err error) (engine.Outcome, error) {
	s.probe.ended(s.note, outcome, err)
	s.probe.giveBack(s.use)
	if s.entered {
		s.entered = false
		s.probe.turns.pass()
	}
	return outcome, err
}

// HookRuns implements [engine.HookWatcher].
func (s *session) HookRuns(f func(ctx context.Context)) { s.probe.hookRuns(s.note, f) }

func isEscape(err error) bool { return errors.Is(err, engine.ErrTxControl) }

func values(named []driver.NamedValue) []any {
	args := make([]any, len(named))
	for i, v := range named {
		args[i] = v.Value
	}
	return args
}

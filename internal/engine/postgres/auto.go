package postgres

import (
	"context"
	"database/sql/driver"
	"errors"

	"github.com/tholedb/thole/internal/engine"
)

// auto is a connection outside a session: the server commits each statement.
type auto struct{ *conn }

var _ engine.AutoConn = (*auto)(nil)

// ExecContext implements [driver.ExecerContext]. Where [conn.exec] would use
// the simple protocol, whose errors can't be believed, the texts become a
// transaction.
func (a *auto) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if isScript(query, len(args)) {
		return a.execScript(ctx, query)
	}
	return again(ctx, a, func() (driver.Result, error) { return a.exec(ctx, query, values(args)) })
}

// QueryContext implements [driver.QueryerContext].
func (a *auto) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	return again(ctx, a, func() (driver.Rows, error) { return a.run(ctx, query, values(args), false) })
}

// again runs a statement, and once more if what was known of it is out of date:
// nothing of it was executed.
func again[T any](ctx context.Context, a *auto, run func() (T, error)) (T, error) {
	got, err := run()
	if err != nil && a.stale && a.status() == 'I' && ctx.Err() == nil {
		return run()
	}
	return got, err
}

// PrepareContext implements [driver.ConnPrepareContext].
func (a *auto) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	prepared, err := a.prepared(ctx, query)
	if err != nil {
		return nil, err
	}
	prepared.on = a
	return prepared, nil
}

// execScript runs several statements in a transaction of their own, so that they
// happen together or not at all, and nothing of them before COMMIT is sent.
func (a *auto) execScript(ctx context.Context, query string) (Tag, error) {
	if err := a.say(ctx, "begin"); err != nil {
		return Tag{}, err
	}
	if err := a.start(ctx, query); err != nil {
		return Tag{}, err
	}
	result, err := a.script(ctx, query)
	if errors.Is(err, engine.ErrTxControl) {
		return Tag{}, err
	}
	ctx = context.WithoutCancel(ctx)
	if err != nil {
		_, _ = a.end(ctx, "rollback") // a connection on which that fails is closed, and nothing was committed
		return Tag{}, err
	}
	a.sent = true
	tag, err := a.end(ctx, "commit")
	if _, failed := (reply{tag: tag, err: err, unreplicated: a.missedStandbys()}).outcome(); failed != nil {
		return Tag{}, failed
	}
	return result, nil
}

// Failed implements [engine.Conn]. A statement that was sent and not answered
// may be committed. One whose rows are cut short has told by its end what became
// of it.
func (a *auto) Failed(ctx context.Context, err error) *engine.Error {
	if rows := a.result; rows != nil && isContext(err) {
		a.result = nil
		closing := rows.close()
		if closing == nil {
			return unknownBy(byContext(ctx, &engine.Error{Message: "the statement had ended before its rows were read", Err: err}))
		}
		err = closing
	}
	failed := a.explain(ctx, err)
	if errors.Is(failed.Kind, engine.ErrCommitUnknown) {
		return failed
	}
	answered := !a.wire.IsClosed() && (failed.Code == "" || failed.Code == protocolViolation)
	if a.sent && unanswered(err) && !answered {
		return unknownBy(failed)
	}
	a.once = a.once || failed.Code == readOnlyTransaction
	if a.sent && commitsInside(a.query) {
		return unknownBy(&engine.Error{
			Message: "the statement commits on its way, and may have before it failed; run it in a session if it can: " + failed.Message,
			Code:    failed.Code,
			Err:     failed,
		})
	}
	return failed
}

// commitsInside reports whether a statement may commit a part of what it does:
// procedures and blocks, and what can't run in a transaction.
//
// https://www.postgresql.org/docs/current/plpgsql-transactions.html
func commitsInside(query string) bool {
	word := firstWord(query)
	for _, known := range []string{"call", "do", "vacuum", "cluster", "reindex"} {
		if equalFold(word, known) {
			return true
		}
	}
	return hasFold(query, "concurrently")
}

// Abandon implements [engine.AutoConn]. The server commits a statement without
// waiting for its rows to be read.
func (a *auto) Abandon() engine.Outcome { return engine.Committed }

// Close implements [engine.AutoConn].
func (a *auto) Close() error {
	a.giveBack()
	return nil
}

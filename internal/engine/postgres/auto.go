package postgres

import (
	"context"
	"database/sql/driver"

	"github.com/jackc/pgx/v5"

	"github.com/tholedb/thole/internal/engine"
	"github.com/tholedb/thole/internal/sqltext"
)

// auto is a connection outside a session: the server commits each statement.
type auto struct{ *conn }

var _ engine.AutoConn = (*auto)(nil)

// ExecContext implements [driver.ExecerContext]. Where [conn.ExecContext] would
// use the simple protocol this uses the extended one, whose errors can be
// believed. That takes one statement; several go by the simple protocol, where
// they are one transaction
// (https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-MULTI-STATEMENT).
func (a *auto) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if len(args) > 0 || sqltext.IsScript(sqltext.Postgres, query) {
		return a.conn.ExecContext(ctx, query, args)
	}
	if err := a.start(ctx, query); err != nil {
		return nil, err
	}
	a.sent = true
	rows, err := a.pgx.Query(ctx, query, pgx.QueryExecModeExec)
	if err != nil {
		return nil, err
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		return nil, err
	}
	return a.result(rows.CommandTag()), nil
}

// Failed implements [engine.Conn]. A statement that was sent and not answered
// may be committed.
func (a *auto) Failed(ctx context.Context, err error) *engine.Error {
	failed := a.explain(ctx, err)
	if a.sent && unanswered(err) && (failed.Code != "" || a.pgx.IsClosed()) {
		return unknownBy(failed)
	}
	return failed
}

// Close implements [engine.AutoConn].
func (a *auto) Close() error {
	a.giveBack()
	return nil
}

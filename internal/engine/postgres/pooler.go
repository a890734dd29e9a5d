package postgres

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tholedb/thole/internal/engine"
)

// poolerOption is the option of a URL that says whether there is a pooler.
const poolerOption = "pooler"

// The values of the option.
const (
	poolerTransaction = "transaction"
	poolerNone        = "none"
)

// poolerOf is the value of the option in the text that cfg was parsed from, or
// "": in cfg itself it would be sent to the server.
func poolerOf(cfg *pgxpool.Config) string {
	parsed, err := pgxpool.ParseConfig(cfg.ConnString())
	if err != nil {
		return "" // it was parsed before; a file that it names is gone
	}
	return parsed.ConnConfig.RuntimeParams[poolerOption]
}

// greet asks the server for an answer, and finds out whether statements run
// behind a pooler.
func (e *Engine) greet(ctx context.Context) error {
	cfg := e.pool.Config()
	pooled := false
	c, err := e.take(ctx, func(c *conn) (err error) {
		pooled, err = isPooled(ctx, c.pgx.PgConn())
		return err
	})
	if err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	c.giveBack()
	if option := poolerOf(cfg); option != "" {
		pooled = option == poolerTransaction
	}
	if pooled {
		e.mode = pooledMode(cfg.ConnConfig)
	}
	return nil
}

// isPooled reports whether the process that answers is another than the one
// that the connection was told of when it was made: a pooler makes up the
// latter, for cancel requests. One that pools sessions does so too, and does
// not mind.
//
// https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP (BackendKeyData)
func isPooled(ctx context.Context, conn *pgconn.PgConn) (bool, error) {
	result := conn.ExecParams(ctx, "select pg_backend_pid()", nil, nil, nil, nil).Read()
	if result.Err != nil {
		return false, result.Err
	}
	return string(result.Rows[0][0]) != strconv.FormatUint(uint64(conn.PID()), 10), nil
}

// pooledMode is how statements run behind a pooler. Those that are prepared by a
// name are unknown to the next connection (26000), or known already (42P05). An
// unnamed one that is executed in another round trip than the one in which it
// was described may be somebody else's by then. So the description alone is
// kept; what else the configuration asks for is left.
func pooledMode(cfg *pgx.ConnConfig) pgx.QueryExecMode {
	switch cfg.DefaultQueryExecMode {
	case pgx.QueryExecModeCacheStatement, pgx.QueryExecModeDescribeExec:
		if cfg.DescriptionCacheCapacity == 0 {
			return pgx.QueryExecModeExec
		}
		return pgx.QueryExecModeCacheDescribe
	default:
		return cfg.DefaultQueryExecMode
	}
}

// withMode puts the mode before the arguments, where pgx takes it from. Without
// arguments pgx uses the simple protocol.
func (c *conn) withMode(args []any) []any {
	c.described = c.mode == pgx.QueryExecModeCacheDescribe && len(args) > 0
	if c.mode == 0 {
		return args
	}
	return append([]any{c.mode}, args...)
}

// queryWithMode is withMode for a query, which is described with or without
// arguments. Its result comes as text, as with pgx's mode exec: in the formats
// that pgx chooses by the description, a column of another type by now would be
// garbage.
func (c *conn) queryWithMode(args []driver.NamedValue) []driver.NamedValue {
	c.described = c.mode == pgx.QueryExecModeCacheDescribe
	if c.mode == 0 {
		return args
	}
	options := []driver.NamedValue{
		{Value: c.mode},
		{Value: pgx.QueryResultFormatsByOID(nil)}, // in place of stdlib's
		{Value: pgx.QueryResultFormats{pgx.TextFormatCode}},
	}
	return append(options, args...)
}

// outOfDate reports whether a statement failed because the description that pgx
// kept of it is out of date, and may run once more: nothing was executed, the
// transaction is not aborted, and pgx has dropped the description.
//
// If it was an argument that did not encode then nothing was sent. Should the
// description not be the reason it fails again.
func (c *conn) outOfDate(ctx context.Context, args []any, err error) bool {
	switch {
	case err == nil, !c.described, c.pgx.IsClosed(), ctx.Err() != nil:
		return false
	case errors.As(err, new(*pgconn.PgError)):
		return c.pgx.PgConn().TxStatus() == 'I' && disproved(err)
	default:
		return len(args) > 0
	}
}

// disproved reports whether the server's error is one that refutes an earlier
// description of the statement, and so came before the statement was executed:
//
//   - An error with a position in the text is found when that is parsed, with
//     the types of the description (42804, 42883). Had it been described just
//     then it would have failed in that. An error in a function, or in what a
//     procedure runs, has no position in the text of the client.
//   - 08P01 without a context comes of a result with another number of columns,
//     as of "returning *", before it is asked for.
//
// A "cached plan must not change result type" (0A000) can't come here: plans are
// those of prepared statements, and this one is parsed each time.
//
// https://www.postgresql.org/docs/current/protocol-error-fields.html
func disproved(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || isFatal(pg) || errors.As(err, new(*pgconn.PrepareError)) {
		return false
	}
	return pg.Position != 0 || pg.Code == "08P01" && pg.Where == ""
}

// cureOutOfDate says of a failure that aborted a transaction because of a
// description which was out of date that a new attempt cures it.
func (c *conn) cureOutOfDate(failed *engine.Error) {
	if c.described && disproved(failed.Err) {
		failed.Kind, failed.Retry = nil, engine.RetryAsked
	}
}

// describe has the server look at a statement in place of preparing it.
func (c *conn) describe(ctx context.Context, query string) (driver.Stmt, error) {
	described, err := c.pgx.Prepare(ctx, "", query)
	if err != nil {
		return nil, err
	}
	return description(len(described.ParamOIDs)), nil
}

// description is a statement that nothing was prepared for, and how many
// arguments it takes. It runs by its text.
type description int

var errByText = errors.New("the statement runs by its text")

// Close implements [driver.Stmt].
func (description) Close() error { return nil }

// NumInput implements [driver.Stmt].
func (d description) NumInput() int { return int(d) }

// Exec is never called.
func (description) Exec([]driver.Value) (driver.Result, error) { return nil, errByText }

// Query is never called.
func (description) Query([]driver.Value) (driver.Rows, error) { return nil, errByText }

// pooledMigration is a migration behind a pooler, where to end the connection
// does not end the one to the server and what was set on that.
type pooledMigration struct{ *session }

// Commit implements [engine.Session].
func (m pooledMigration) Commit(ctx context.Context, observed bool) (engine.Outcome, error) {
	if m.pgx.PgConn().TxStatus() == 'T' {
		if err := m.run(ctx, "reset all"); err != nil {
			_ = m.Failed(ctx, err) // is told instead of COMMIT
		}
	}
	return m.session.Commit(ctx, observed)
}

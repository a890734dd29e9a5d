package postgres

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"

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
		pooled, err = isPooled(ctx, c.wire)
		return err
	})
	if err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	if option := poolerOf(cfg); option != "" {
		pooled = option == poolerTransaction
	}
	if pooled && !e.adopted {
		e.foundPooler()
		c.once = true // pgx runs its own statements as without a pooler there
	}
	c.giveBack()
	e.pooled = pooled
	e.protocol, e.capacity = protocolOf(cfg.ConnConfig, pooled)
	return nil
}

// useModeOfPooler has the connections that are made once a pooler was found run
// what goes through pgx itself, batches for one, as it has to be there.
func useModeOfPooler(cfg *pgxpool.Config) (found func()) {
	var pooled atomic.Bool
	next := cfg.BeforeConnect
	cfg.BeforeConnect = func(ctx context.Context, conn *pgx.ConnConfig) error {
		if kind, _ := protocolOf(conn, true); pooled.Load() && kind == byDescription {
			conn.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
		} else if pooled.Load() {
			conn.DefaultQueryExecMode = pgx.QueryExecModeExec
		}
		if next != nil {
			return next(ctx, conn)
		}
		return nil
	}
	return func() { pooled.Store(true) }
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

// pooledMigration is a migration behind a pooler, where to end the connection
// does not end the one to the server and what was set on that.
type pooledMigration struct{ *session }

// Commit implements [engine.Session].
func (m pooledMigration) Commit(ctx context.Context, observed bool) (engine.Outcome, error) {
	if m.conn.status() == 'T' {
		if err := m.conn.say(ctx, "reset all"); err != nil {
			_ = m.Failed(ctx, err) // is told instead of COMMIT
		}
	}
	return m.session.Commit(ctx, observed)
}

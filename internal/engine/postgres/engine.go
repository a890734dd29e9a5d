// Package postgres is everything that knows PostgreSQL, over pgx.
//
// The facts about pgx and the server that it stands on:
//
//   - What a COMMIT or ROLLBACK became is read from its reply alone, and it goes
//     by the extended protocol: pgx reports a reply that was lost as "nothing was
//     sent" (pgconn.SafeToRetry) for the simple one. SafeToRetry and
//     driver.ErrBadConn decide nothing here, and neither leaves the package.
//   - A done context cancels its statement and keeps the connection: cancel.go.
//   - Behind a pooler, transactions take turns on the server's connections, and
//     what one of them knows by name the next one does not: pooler.go.
//   - The texts of errors may hold values of arguments and rows: see messages.go.
package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/tholedb/thole/internal/engine"
	"github.com/tholedb/thole/internal/sqltext"
)

// Engine is a PostgreSQL database behind a pool of connections.
type Engine struct {
	pool      *pgxpool.Pool
	connector driver.Connector // takes from pool
	env       engine.Env
	name      string
	adopted   bool              // the pool is the application's
	mode      pgx.QueryExecMode // of statements behind a pooler; 0 without one

	tracer  pgx.QueryTracer // the application's, or nil
	sparing engine.Sparing  // with lines about an exhausted pool

	closing atomic.Bool
	close   sync.Once
	closed  chan struct{}
}

var _ engine.Engine = (*Engine)(nil)

// Open makes a pool of its own and asks the server for an answer within ctx. It
// warns, once, where connections to another machine may go without TLS.
func Open(ctx context.Context, cfg *pgxpool.Config, env engine.Env) (*Engine, error) {
	cfg = cfg.Copy()
	watchNotices(cfg)
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open postgres: %w", explain(err, ""))
	}
	e := newEngine(pool, env)
	if err := e.greet(ctx); err != nil {
		go pool.Close()
		return nil, fmt.Errorf("open postgres: %w", err)
	}
	if mayBePlaintext(cfg) {
		env.Log.WarnContext(ctx, "connections to PostgreSQL may go without TLS, and no certificate is checked: set sslmode",
			"database", e.name)
	}
	return e, nil
}

// Adopt stands on a pool that the application made and will close. Statements
// are cancelled as the pool's configuration has it: with pgx's default, a
// cancelled statement costs its connection. Its notices are the application's:
// see [watchNotices].
func Adopt(ctx context.Context, pool *pgxpool.Pool, env engine.Env) (*Engine, error) {
	e := newEngine(pool, env)
	e.adopted = true
	if err := e.greet(ctx); err != nil {
		return nil, fmt.Errorf("adopt pool: %w", err)
	}
	return e, nil
}

func newEngine(pool *pgxpool.Pool, env engine.Env) *Engine {
	cfg := pool.Config().ConnConfig
	return &Engine{
		pool:      pool,
		connector: stdlib.GetPoolConnector(pool),
		env:       env,
		name:      name(cfg.Config),
		tracer:    cfg.Tracer,
		closed:    make(chan struct{}),
	}
}

// Name implements [engine.Engine].
func (e *Engine) Name() string { return "postgres" }

// DriverName implements [engine.Engine].
func (e *Engine) DriverName() string { return "pgx" }

// Dialect implements [engine.Engine].
func (e *Engine) Dialect() sqltext.Dialect { return sqltext.Postgres }

// String is host:port/database, with every host.
func (e *Engine) String() string { return e.name }

// Begin implements [engine.Engine]. BEGIN and the timeouts are one round trip,
// Settings another.
func (e *Engine) Begin(ctx context.Context, opts engine.Options) (engine.Session, error) {
	if _, err := e.Isolation(opts.Isolation); err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	text := beginText(opts)
	c, err := e.take(ctx, func(c *conn) error {
		if err := c.run(ctx, text); err != nil {
			return err
		}
		return c.set(ctx, opts.Settings)
	})
	if err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	return &session{conn: c, opts: opts}, nil
}

// Conn implements [engine.Engine].
func (e *Engine) Conn(ctx context.Context) (engine.AutoConn, error) {
	c, err := e.connect(ctx)
	if err != nil {
		return nil, err
	}
	return &auto{conn: c}, nil
}

// Ping implements [engine.Engine].
func (e *Engine) Ping(ctx context.Context) error {
	c, err := e.take(ctx, func(c *conn) error { return c.pgx.Ping(ctx) })
	if err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	c.giveBack()
	return nil
}

// take takes a connection on which use works. Connections that were found dead
// are dropped for others, as many as the pool may have held: what use does must
// leave nothing behind when its connection dies.
func (e *Engine) take(ctx context.Context, use func(*conn) error) (*conn, error) {
	var failed *engine.Error
	for range e.pool.Stat().MaxConns() + 1 {
		c, err := e.connect(ctx)
		if err != nil {
			return nil, err
		}
		if err = use(c); err == nil {
			return c, nil
		}
		dead := c.pgx.IsClosed()
		failed = c.explain(ctx, err)
		c.giveBack()
		if !dead || ctx.Err() != nil {
			break
		}
	}
	return nil, failed
}

// connect takes a connection from the pool, or says why there is none.
func (e *Engine) connect(ctx context.Context) (*conn, error) {
	if e.closing.Load() {
		return nil, errClosed
	}
	d, err := e.connector.Connect(ctx)
	switch {
	case err == nil:
		std := d.(*stdlib.Conn)
		return &conn{std: std, pgx: std.Conn(), tracer: e.tracer, mode: e.mode}, nil
	case e.closing.Load():
		return nil, errClosed
	case ctx.Err() != nil:
		failed := byContext(ctx, &engine.Error{Message: e.whyWaiting(), Err: err})
		if e.exhausted() && errors.Is(failed, engine.ErrTimeout) && e.sparing.Now() {
			e.env.Log.WarnContext(ctx, "thole: "+failed.Message, "database", e.name)
		}
		return nil, failed
	default:
		return nil, e.unreachable(err)
	}
}

var errClosed = &engine.Error{Kind: engine.ErrClosed, Message: "connect: " + engine.ErrClosed.Error()}

// whyWaiting says why a wait for a connection came to nothing.
func (e *Engine) whyWaiting() string {
	if !e.exhausted() {
		return "connect to " + e.name + ": no answer in time"
	}
	return fmt.Sprintf("pool exhausted (max %d): %s", e.pool.Stat().MaxConns(), e.env.Sessions)
}

func (e *Engine) exhausted() bool {
	stat := e.pool.Stat()
	return stat.AcquiredConns() >= stat.MaxConns()
}

// Close implements [engine.Engine]. A pool that was adopted stays open.
func (e *Engine) Close(ctx context.Context) error {
	e.closing.Store(true)
	if e.adopted {
		return nil
	}
	// The pool waits for the connections that are in use, and up to 15 seconds
	// for a server that doesn't answer.
	e.close.Do(func() {
		go func() {
			e.pool.Close()
			close(e.closed)
		}()
	})
	select {
	case <-e.closed:
		return nil
	case <-ctx.Done():
		return byContext(ctx, &engine.Error{
			Message: fmt.Sprintf("close postgres: %d connections are still in use", e.pool.Stat().AcquiredConns()),
		})
	}
}

// CheckNamedValue implements [engine.Engine]: pgx takes everything.
func (e *Engine) CheckNamedValue(*driver.NamedValue) error { return nil }

// isolations are the levels as BEGIN names them, and what each is given.
// PostgreSQL has no dirty reads, and its REPEATABLE READ is snapshot isolation.
//
// https://www.postgresql.org/docs/current/transaction-iso.html
var isolations = map[sql.IsolationLevel]struct {
	option string
	given  sql.IsolationLevel
}{
	sql.LevelDefault:         {"", sql.LevelReadCommitted}, // or more, as the server is configured
	sql.LevelReadUncommitted: {" isolation level read uncommitted", sql.LevelReadCommitted},
	sql.LevelReadCommitted:   {" isolation level read committed", sql.LevelReadCommitted},
	sql.LevelRepeatableRead:  {" isolation level repeatable read", sql.LevelSnapshot},
	sql.LevelSnapshot:        {" isolation level repeatable read", sql.LevelSnapshot},
	sql.LevelSerializable:    {" isolation level serializable", sql.LevelSerializable},
}

// Isolation implements [engine.Engine].
func (e *Engine) Isolation(asked sql.IsolationLevel) (sql.IsolationLevel, error) {
	level, ok := isolations[asked]
	if !ok {
		return 0, &engine.Error{
			Message: fmt.Sprintf("PostgreSQL has no isolation level %s", asked),
			Err:     errors.ErrUnsupported,
		}
	}
	return level.given, nil
}

// beginText is BEGIN with its options and the timeouts that last as long as the
// transaction.
func beginText(opts engine.Options) string {
	var b strings.Builder
	b.WriteString("begin")
	b.WriteString(isolations[opts.Isolation].option)
	if opts.ReadOnly {
		b.WriteString(" read only")
	}
	if opts.Deferrable {
		b.WriteString(" deferrable")
	}
	setTimeout(&b, "lock_timeout", opts.LockTimeout)
	setTimeout(&b, "statement_timeout", opts.StatementTimeout)
	if opts.ReadOnly {
		// Before its first query a transaction can still be set to read-write:
		// https://www.postgresql.org/docs/current/sql-set-transaction.html
		b.WriteString("; select 1")
	}
	return b.String()
}

// setTimeout appends a timeout of whole milliseconds. The server takes an int32
// and reads 0 as none, so d is rounded up, and down from 24 days.
func setTimeout(b *strings.Builder, setting string, d time.Duration) {
	if d <= 0 {
		return
	}
	ms := d / time.Millisecond
	if d%time.Millisecond > 0 {
		ms++
	}
	fmt.Fprintf(b, "; set local %s = %d", setting, min(ms, math.MaxInt32))
}

// Package postgres is everything that knows PostgreSQL, over pgx.
//
// The facts about pgx and the server that it stands on:
//
//   - What a COMMIT or ROLLBACK became is read from its reply alone, and it goes
//     by the extended protocol: pgx reports a reply that was lost as "nothing was
//     sent" (pgconn.SafeToRetry) for the simple one. SafeToRetry and
//     driver.ErrBadConn decide nothing here, and neither leaves the package.
//   - What opens a transaction travels with its first statement, which is sent
//     once more where the connection was dead: flight.go, session.go.
//   - The server keeps prepared statements over errors and transactions, and an
//     error of its own tells where they mean something else by now: statements.go.
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
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tholedb/thole/internal/engine"
	"github.com/tholedb/thole/internal/sqltext"
)

// Engine is a PostgreSQL database behind a pool of connections.
type Engine struct {
	pool     *pgxpool.Pool
	env      engine.Env
	name     string
	adopted  bool     // the pool is the application's
	pooled   bool     // behind a pooler, transactions take turns on its connections
	protocol protocol // of statements with arguments or rows
	capacity int      // how many statements a connection keeps

	foundPooler func() // is told that there is one

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
	if cfg.ShouldPing == nil {
		cfg.ShouldPing = shouldPing
	}
	pooled := useModeOfPooler(cfg)
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open postgres: %w", explain(err, ""))
	}
	e := newEngine(pool, env)
	e.foundPooler = pooled
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
		pool: pool,
		env:  env,

		foundPooler: func() {},

		name:   name(cfg.Config),
		tracer: cfg.Tracer,
		closed: make(chan struct{}),
	}
}

// Pool is the pool that the engine stands on.
func (e *Engine) Pool() *pgxpool.Pool { return e.pool }

// Name implements [engine.Engine].
func (e *Engine) Name() string { return "postgres" }

// DriverName implements [engine.Engine].
func (e *Engine) DriverName() string { return "pgx" }

// Dialect implements [engine.Engine].
func (e *Engine) Dialect() sqltext.Dialect { return sqltext.Postgres }

// String is host:port/database, with every host.
func (e *Engine) String() string { return e.name }

// Begin implements [engine.Engine]. It sends nothing.
func (e *Engine) Begin(_ context.Context, opts engine.Options) (engine.Session, error) {
	if _, err := e.Isolation(opts.Isolation); err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	return &session{engine: e, opts: opts, ahead: ahead{commands: opening(opts)}}, nil
}

// Conn implements [engine.Engine].
func (e *Engine) Conn(ctx context.Context) (engine.AutoConn, error) {
	c, err := e.connect(ctx)
	if err != nil {
		return nil, err
	}
	c.autocommits = true
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
	for range int64(e.pool.Stat().MaxConns()) + 1 {
		c, err := e.connect(ctx)
		if err != nil {
			return nil, err
		}
		if err = use(c); err == nil {
			return c, nil
		}
		dead := c.wire.IsClosed()
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
	pooled, err := e.pool.Acquire(ctx)
	switch {
	case err == nil:
		wire := pooled.Conn().PgConn()
		own(wire, true)
		return &conn{
			pooled:   pooled,
			pgx:      pooled.Conn(),
			wire:     wire,
			tracer:   e.tracer,
			protocol: e.protocol,
			known:    statementsOf(wire, e.capacity),
		}, nil
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

// sessionBegins is the key in a ctx that says that a connection is taken for the
// first statement of a session. That can be sent again, on another one, if the
// connection is dead.
type sessionBegins struct{}

func unpinged(ctx context.Context) context.Context {
	return context.WithValue(ctx, sessionBegins{}, true)
}

// idleUnpinged is how long a connection may have been idle before the server is
// asked whether it is still there, by a round trip.
const idleUnpinged = time.Second

func shouldPing(ctx context.Context, pooled pgxpool.ShouldPingParams) bool {
	return ctx.Value(sessionBegins{}) == nil && pooled.IdleDuration > idleUnpinged
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

package thole

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jmoiron/sqlx"
	sqlitedriver "modernc.org/sqlite"

	"github.com/tholedb/thole/internal/engine"
	"github.com/tholedb/thole/internal/engine/postgres"
	"github.com/tholedb/thole/internal/engine/sqlite"
)

// Engine is a database engine.
type Engine string

// The engines.
const (
	SQLite   Engine = "sqlite"
	Postgres Engine = "postgres"
)

// DB is an open database, for use by any number of goroutines. One for a
// program is the rule.
type DB struct {
	queries
	engine   engine.Engine
	sqlx     *sqlx.DB
	view     *sqlx.DB // the user's own, whose settings and Close reach nothing else
	log      *slog.Logger
	slow     time.Duration
	defaults SessionOptions
	sessions *engine.Registry

	templates templates
	purges    engine.Sparing // of idempotency keys

	mu     sync.Mutex
	closed bool
	open   sync.WaitGroup // sessions
}

// Open opens the database that databaseURL names, as [ParseURL] reads it, and
// asks it for an answer within ctx. ctx does not bound the life of the DB.
func Open(ctx context.Context, databaseURL string) (*DB, error) {
	cfg, err := ParseURL(databaseURL)
	if err != nil {
		return nil, err
	}
	return OpenConfig(ctx, cfg)
}

// Config is what a database URL says, and what a program adds to it. Either
// Postgres or SQLite is set. Printed, logged or marshalled it says which
// database it is, without passwords.
type Config struct {
	// Postgres is pgx's own configuration: of the pool, TLS, AfterConnect,
	// tracers. It must come from [ParseURL] or [pgxpool.ParseConfig]. A
	// cancelled statement keeps its connection when it comes from ParseURL.
	Postgres *pgxpool.Config

	// SQLite is the configuration of the SQLite engine.
	SQLite *SQLiteConfig

	// Session stands in where a session's own option is zero.
	Session SessionOptions

	// Logger is told what an operator must know: outcomes that are unknown, a
	// pool that is exhausted, and at [slog.LevelDebug] sessions that failed or
	// run again. It is never told argument values, and of fn's own errors only
	// the type. Default: slog.Default().
	Logger *slog.Logger

	// Slow is how long a session may take before Logger is told, by a warning
	// when it has ended. Default: as long as it likes.
	Slow time.Duration
}

// SQLiteConfig is the configuration of the SQLite engine. The zero value is a
// database in memory.
//
// A database file is in WAL mode (https://www.sqlite.org/wal.html) with foreign
// keys enforced. It is created with mode 0600 and its directories with 0700.
//
// One session writes at a time, the others wait in line. It has the writer from
// its first statement to its end; one that is ReadOnly, and a query outside a
// session, reads beside it what was committed before. In memory one connection
// does both, so that a query inside a loop over the rows of another waits.
//
// Sessions behind which others wait share a transaction with them, statements
// outside a session too, so that all of them wait for the disk once (group
// commit): the next one runs in a savepoint of it, and the last one commits. None
// returns before that; so each may take as long as the one behind it, and fn must
// not wait for another session to end, nor for a mutex that is held around one.
// What fails undoes its own session alone, but for what ends the whole
// transaction: a disk that is full or fails, or INSERT OR ROLLBACK behind other
// statements of its session. Then the others end with [ErrTxAborted], rolled
// back. A write in a shared transaction is not interrupted when its ctx ends: the
// session fails when it is through.
//
// A session with a Timeout or a StatementTimeout shares no transaction, and one
// that is opened where sessions are mostly slow joins none. None is shared in
// memory, nor where a table or a trigger says ROLLBACK or a database is attached.
//
// The write-ahead log is kept below 64 MB. Where somebody who reads for long
// prevents that, a warning says who.
//
// SQLite looks at the end of ctx within the statement up to its first row, and
// then between two rows.
type SQLiteConfig struct {
	// Path is the file. Default: in memory, one database for all sessions.
	Path string

	// Synchronous is when a commit reaches the disk: "full", "normal" or
	// "extra" (https://www.sqlite.org/pragma.html#pragma_synchronous).
	// Default: full, so that a commit outlives a power cut.
	Synchronous string

	// BusyTimeout bounds the wait for locks of other processes, beside
	// LockTimeout. Default: 10 s.
	BusyTimeout time.Duration

	// Readers is how many connections read. Default: GOMAXPROCS, at least 4.
	Readers int

	// Driver is called once with the driver that the connections come from,
	// before the first: functions, collations and connection hooks are
	// registered there. A hook must not keep its connection, and the commit
	// hook and the rollback hook of each are thole's own. Default: none.
	Driver func(*sqlitedriver.Driver) error
}

// ParseURL reads a database URL, or PostgreSQL's keyword form, for [OpenConfig].
//
//	sqlite:///data/app.db         a file, relative to the working directory
//	sqlite:////var/lib/app.db     a file, absolute
//	sqlite:data/app.db            a file, relative; sqlite:/var/… is absolute
//	file:data/app.db              the same; file:///var/… is absolute
//	sqlite://                     in memory; so is sqlite:///:memory:
//	sqlite+pysqlite:///app.db     as SQLAlchemy writes it; any driver is ignored
//	postgres://u:p@host/db        PostgreSQL; so is postgresql://
//	postgres://u:p@h1,h2:5433/db  several hosts, tried in order
//	postgresql+psycopg://u:p@h/db as SQLAlchemy writes it; any driver is ignored
//	host=h dbname=db user=u       libpq's keyword form
//
// In a SQLite path %20, %25, %3F and %23 are a space, %, ? and #; a % that no
// two hexadecimal digits follow, a #, and a space stand for themselves. What
// follows the first ? are options, and one that does not exist is an error:
//
//	synchronous=full|normal|extra, busy_timeout=10s, readers=8
//
// For PostgreSQL all that pgx understands: the parameters and environment
// variables of libpq, sslmode included
// (https://www.postgresql.org/docs/current/libpq-connect.html), and pool_max_conns,
// pool_min_conns, pool_max_conn_lifetime, pool_max_conn_idle_time,
// pool_health_check_period of [pgxpool.ParseConfig]. connect_timeout is 10 s
// unless it is set. Statements are prepared once on each connection and stay so,
// statement_cache_capacity of them; default_query_exec_mode=cache_describe keeps
// what they take alone, and exec nothing (simple_protocol is taken for exec).
//
// A pooler in transaction mode before the server, such as PgBouncer, is noticed
// when the database is opened, by a process number that it makes up; where it
// can't be, pooler=transaction and pooler=none say whether there is one. Then
// nothing is prepared by name and nothing is set but for the transaction, which
// every version of PgBouncer takes; prepared statements, which it has since 1.21
// (https://www.pgbouncer.org/config.html#max_prepared_statements), are not used.
// LISTEN, and advisory locks of a connection, need one that is direct.
//
// The error matches [ErrURL] and does not quote the URL.
func ParseURL(databaseURL string) (*Config, error) {
	if lite, ok, err := sqlite.ParseURL(databaseURL); ok {
		cfg := SQLiteConfig(lite)
		return &Config{SQLite: &cfg}, urlError(err)
	}
	if pg, ok, err := postgres.ParseURL(databaseURL); ok {
		return &Config{Postgres: pg}, urlError(err)
	}
	what := "the scheme is unknown"
	if databaseURL == "" {
		what = "it is empty (is DATABASE_URL set?)"
	}
	return nil, failure(ErrURL, "read database URL: %s; write sqlite:///data/app.db for a file, sqlite:// for a database in memory, postgres://user:password@host:5432/database, or host=… dbname=…", what)
}

// urlError is err as the root package tells it.
func urlError(err error) error {
	if err == nil {
		return nil
	}
	return because(ErrURL, err, "read database URL")
}

// OpenConfig is [Open] for a program that sets more than a URL says.
func OpenConfig(ctx context.Context, cfg *Config) (*DB, error) {
	if ctx == nil || cfg == nil || (cfg.Postgres == nil) == (cfg.SQLite == nil) {
		return nil, failure(nil, "open database: it takes a ctx and a Config with either Postgres or SQLite; ParseURL makes one")
	}
	if cfg.Postgres != nil && cfg.Postgres.ConnConfig == nil {
		return nil, failure(nil, "open database: Config.Postgres is not made by ParseURL or pgxpool.ParseConfig")
	}
	return open(ctx, cfg, func(env engine.Env) (engine.Engine, error) {
		if own := engine.OpenerOf(ctx); own != nil {
			return own(ctx, env)
		}
		if cfg.Postgres != nil {
			return postgres.Open(ctx, cfg.Postgres, env)
		}
		return sqlite.Open(ctx, sqlite.Config(*cfg.SQLite), env)
	})
}

// OpenPool makes a DB over a pool that the application has. Close leaves the
// pool open. Of cfg Session, Logger and Slow are used. How a cancelled statement
// ends, whether anybody notices that a COMMIT was not replicated as
// synchronous_commit asks, and whether a connection that was idle is asked for an
// answer first, a round trip, is up to the pool's own configuration; a Config for
// [OpenConfig] sees to all three. Nothing may deallocate statements when a
// connection is given back: sessions would fail with SQLSTATE 26000.
func OpenPool(ctx context.Context, pool *pgxpool.Pool, cfg Config) (*DB, error) {
	if ctx == nil || pool == nil || cfg.Postgres != nil || cfg.SQLite != nil {
		return nil, failure(nil, "open database: it takes a ctx, a pool, and a Config without Postgres and SQLite")
	}
	return open(ctx, &cfg, func(env engine.Env) (engine.Engine, error) {
		return postgres.Adopt(ctx, pool, env)
	})
}

func open(ctx context.Context, cfg *Config, connect func(engine.Env) (engine.Engine, error)) (*DB, error) {
	db := &DB{
		log:      cmp.Or(cfg.Logger, slog.Default()),
		slow:     cfg.Slow,
		defaults: cfg.Session,
		sessions: new(engine.Registry),
	}
	db.on = db
	connected, err := connect(engine.Env{Log: db.log, Sessions: db.sessions})
	if err != nil {
		return nil, because(kindOf(err), err, "open database")
	}
	db.engine = connected
	if err := db.checkDefaults(cfg.Session); err != nil {
		return nil, errors.Join(err, db.engine.Close(ctx))
	}
	db.sqlx, db.view = db.newViews(), db.newViews()
	return db, nil
}

// Engine is the database's engine.
func (db *DB) Engine() Engine { return Engine(db.engine.Name()) }

// PingContext asks the database for an answer.
func (db *DB) PingContext(ctx context.Context) error {
	if err := db.engine.Ping(ctx); err != nil {
		return db.explained(err, "")
	}
	return nil
}

// closing is how long Close waits for what is in use.
const closing = 10 * time.Second

// Close refuses new sessions and statements ([ErrClosed]), waits up to ten
// seconds for the sessions that are open, and closes the connections. Of
// sessions that are still open then the error says where they were opened;
// their connections close when they end. Calling it again does nothing.
func (db *DB) Close() error {
	db.mu.Lock()
	if db.closed {
		db.mu.Unlock()
		return nil
	}
	db.closed = true
	db.mu.Unlock()

	ctx, cancel := context.WithTimeout(context.Background(), closing)
	defer cancel()
	left := db.awaitSessions(ctx)
	err := db.engine.Close(ctx)
	if err != nil {
		err = db.explained(err, "")
	}
	return errors.Join(left, err)
}

// awaitSessions waits for the sessions that are open, and names those that
// still are when ctx is done.
func (db *DB) awaitSessions(ctx context.Context) error {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		db.open.Wait()
		_ = db.view.Close()
		_ = db.sqlx.Close() // its connections hold nothing
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	var names []string
	for _, info := range db.sessions.Open() {
		names = append(names, info.String())
	}
	return because(ErrTimeout, ctx.Err(), "close database: sessions are still open: %s", strings.Join(names, "; "))
}

// whyClosed is what somebody is told who uses the DB after Close.
func (db *DB) whyClosed(doing string) *Error {
	why := "the database is closed"
	if ended, ok := db.engine.(engine.Ender); ok {
		why = cmp.Or(ended.WhyEnded(), why)
	}
	return failure(ErrClosed, "%s: %s", doing, why)
}

func (db *DB) isClosed() bool {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.closed
}

// enter counts a session in, unless the DB is closed.
func (db *DB) enter(info *engine.Info) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.closed {
		return db.whyClosed("open session")
	}
	db.open.Add(1)
	db.sessions.Add(info)
	return nil
}

// leave counts it out.
func (db *DB) leave(info *engine.Info) {
	db.sessions.Remove(info)
	db.open.Done()
}

// String says which database it is, without a password.
func (db *DB) String() string { return "thole.DB(" + db.engine.String() + ")" }

// Format writes [DB.String] for every verb.
func (db *DB) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, db.String()) }

// LogValue is [DB.String].
func (db *DB) LogValue() slog.Value { return slog.StringValue(db.String()) }

// String says which database it is, without a password.
func (c Config) String() string {
	switch {
	case c.SQLite != nil:
		return "thole.Config(sqlite " + cmp.Or(c.SQLite.Path, ":memory:") + ")"
	case c.Postgres != nil:
		return "thole.Config(postgres " + postgres.Name(c.Postgres) + ")"
	}
	return "thole.Config()"
}

// Format writes [Config.String] for every verb.
func (c Config) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, c.String()) }

// LogValue is [Config.String].
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalJSON is [Config.String] as a JSON string.
func (c Config) MarshalJSON() ([]byte, error) { return json.Marshal(c.String()) }

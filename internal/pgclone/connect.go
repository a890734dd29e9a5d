package pgclone

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// https://www.postgresql.org/docs/current/errcodes-appendix.html
const (
	codeFull      = "53300" // too_many_connections
	codeStarting  = "57P03" // cannot_connect_now
	codeInUse     = "55006" // object_in_use
	codeNoSuch    = "3D000" // invalid_catalog_name
	codeDuplicate = "42P04" // duplicate_database
	codeForbidden = "42501" // insufficient_privilege
)

// code is the SQLSTATE in an error, empty where there is none.
func code(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

// fullPause is how long a full server is left alone.
const fullPause = 50 * time.Millisecond

// FullError is the error when a server had no connection left for a long time.
type FullError struct {
	// Max is the server's max_connections, or zero where it never let us in.
	Max int
	// Waited is for how long.
	Waited time.Duration
	// Err is the last that the server said.
	Err error
}

// Error says what to do.
func (e *FullError) Error() string {
	setting := "max_connections"
	if e.Max > 0 {
		setting = fmt.Sprintf("max_connections (%d now)", e.Max)
	}
	return fmt.Sprintf("the test server had no connection left for %v: raise its %s, or run fewer tests at once (go test -p 1 -parallel 2): %v",
		e.Waited, setting, e.Err)
}

// Unwrap returns what the server said.
func (e *FullError) Unwrap() error { return e.Err }

// Connect calls connect until its error is none of a server that is full or
// about to accept connections, for half a minute at most; then it returns a
// [*FullError], or what the server said.
func (s *Server) Connect(ctx context.Context, connect func(context.Context) error) error {
	began := time.Now()
	for {
		err := connect(ctx)
		state := code(err)
		if state != codeFull && state != codeStarting {
			return err
		}
		waited := time.Since(began)
		if waited < s.waits.full && sleep(ctx, fullPause) == nil {
			continue
		}
		if state == codeFull {
			return &FullError{s.facts.max, waited.Round(time.Millisecond), err}
		}
		return err
	}
}

// sleep waits, or returns why ctx has ended.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Most and fewest connections of a process's tests, and those of this package.
const (
	mostConnections   = 40 - ownConnections
	fewestConnections = 4
	ownConnections    = 3
)

// Connections is how many connections the tests of this process may have at a
// time, with this package's own 40 at most. A private server's are all this process's; those of another
// are divided by the processes that go test runs at once, one for each
// processor, but 4 are the fewest: what is too much then waits in [Server.Connect].
func (s *Server) Connections(private bool) int {
	beside := runtime.NumCPU()
	if private {
		beside = 1
	}
	return s.facts.connections(beside)
}

func (f facts) connections(processes int) int {
	each := (f.max - f.reserved - ownConnections) / processes
	return min(max(each, fewestConnections), mostConnections)
}

// facts are what a server says of itself and of us.
type facts struct {
	version       int // 150013 is 15.13
	user          string
	max, reserved int // connections
}

func readFacts(ctx context.Context, c *conn) (f facts, err error) {
	err = c.QueryRow(ctx, `select current_setting('server_version_num')::int, current_user::text,
		current_setting('max_connections')::int,
		current_setting('superuser_reserved_connections')::int + coalesce(current_setting('reserved_connections', true), '0')::int`,
	).Scan(&f.version, &f.user, &f.max, &f.reserved)
	return f, err
}

// open makes a connection that stays, whatever time limits the role has.
func (s *Server) open(ctx context.Context) (*conn, error) {
	config, err := pgx.ParseConfig(s.url)
	if err != nil {
		return nil, errors.New("read the URL of the test server: it is not a URL of PostgreSQL") // the cause may quote it
	}
	config.RuntimeParams["application_name"] = fmt.Sprintf("thole_clone_%016x", uint64(s.owner))
	var opened *pgx.Conn
	err = s.Connect(ctx, func(ctx context.Context) (err error) {
		opened, err = pgx.ConnectConfig(ctx, config)
		return err
	})
	if err != nil {
		return nil, err
	}
	_, err = opened.Exec(ctx, `select set_config(name, '0', false) from pg_settings where name in
		('statement_timeout', 'lock_timeout', 'transaction_timeout', 'idle_session_timeout')`)
	if err != nil {
		_ = opened.Close(ctx)
		return nil, err
	}
	return &conn{opened}, nil
}

// openLease makes a connection that holds the owner's lock. The lock is a shared
// one, for the connection before may have been lost without the server's
// knowing it yet.
func (s *Server) openLease(ctx context.Context) (*conn, error) {
	c, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := c.Exec(ctx, "select pg_advisory_lock_shared($1)", int64(s.owner)); err != nil {
		_ = c.Close(ctx)
		return nil, err
	}
	return c, nil
}

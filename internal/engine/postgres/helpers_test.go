package postgres

import (
	"bytes"
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tholedb/thole/internal/engine"
	"github.com/tholedb/thole/internal/testdb"
)

// secret stands for a password or a value that no error may show.
const secret = "hunter2secret"

// testURL is the URL of an empty database of the test's own, by TCP.
func testURL(tb testing.TB) string {
	tb.Helper()
	u, err := url.Parse(testdb.Postgres(tb))
	if err != nil {
		tb.Fatal(err)
	}
	if port := u.Query().Get("port"); port != "" { // a socket's
		u.Host, u.RawQuery = "127.0.0.1:"+port, "sslmode=disable"
	}
	return u.String()
}

// testContext ends with the test, or when something hangs.
func testContext(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	tb.Cleanup(cancel)
	return ctx
}

func testEnv(w io.Writer) engine.Env {
	return engine.Env{Log: slog.New(slog.NewTextHandler(w, nil)), Sessions: new(engine.Registry)}
}

// open opens an engine on a database of the test's own. Each change is made to
// its configuration first.
func open(tb testing.TB, changes ...func(*pgxpool.Config)) *Engine {
	tb.Helper()
	return openURL(tb, testURL(tb), changes...)
}

func openURL(tb testing.TB, url string, changes ...func(*pgxpool.Config)) *Engine {
	tb.Helper()
	cfg, _, err := ParseURL(url)
	if err != nil {
		tb.Fatal(err)
	}
	for _, change := range changes {
		change(cfg)
	}
	e, err := Open(testContext(tb), cfg, testEnv(tb.Output()))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(testContext(tb), 10*time.Second)
		defer cancel()
		if err := e.Close(ctx); err != nil {
			tb.Error(err)
		}
	})
	return e
}

func maxConns(n int32) func(*pgxpool.Config) {
	return func(cfg *pgxpool.Config) { cfg.MaxConns = n }
}

func execMode(mode pgx.QueryExecMode) func(*pgxpool.Config) {
	return func(cfg *pgxpool.Config) { cfg.ConnConfig.DefaultQueryExecMode = mode }
}

// begin opens a session and sends its BEGIN.
func begin(tb testing.TB, e *Engine, opts engine.Options) *session {
	tb.Helper()
	s := openSession(tb, e, opts)
	if err := s.begin(testContext(tb)); err != nil {
		tb.Fatal(s.Failed(testContext(tb), err))
	}
	return s
}

// openSession opens a session that has sent nothing.
func openSession(tb testing.TB, e *Engine, opts engine.Options) *session {
	tb.Helper()
	s, err := e.Begin(testContext(tb), opts)
	if err != nil {
		tb.Fatal(err)
	}
	return s.(*session)
}

// setUp runs statements outside any session, and fails the test where one does.
func setUp(tb testing.TB, e *Engine, statements ...string) {
	tb.Helper()
	for _, text := range statements {
		if _, err := e.pool.Exec(testContext(tb), text); err != nil {
			tb.Fatalf("%s: %v", text, err)
		}
	}
}

func mustExec(tb testing.TB, c engine.Conn, query string, args ...any) {
	tb.Helper()
	if err := exec(testContext(tb), c, query, args...); err != nil {
		tb.Fatalf("%s: %v", query, err)
	}
}

// exec runs a statement; its error is explained.
func exec(ctx context.Context, c engine.Conn, query string, args ...any) error {
	if _, err := c.ExecContext(ctx, query, named(args)); err != nil {
		return c.Failed(ctx, err)
	}
	return nil
}

func named(args []any) []driver.NamedValue {
	values := make([]driver.NamedValue, len(args))
	for i, arg := range args {
		values[i] = driver.NamedValue{Ordinal: i + 1, Value: arg}
	}
	return values
}

// query returns the first column of every row; its error is explained.
func query(ctx context.Context, c engine.Conn, text string, args ...any) ([]any, error) {
	rows, err := c.QueryContext(ctx, text, named(args))
	if err != nil {
		return nil, c.Failed(ctx, err)
	}
	defer rows.Close()
	var got []any
	for {
		row := make([]driver.Value, len(rows.Columns()))
		switch err := rows.Next(row); {
		case err == io.EOF:
			return got, nil
		case err != nil:
			return got, c.Failed(ctx, err)
		}
		got = append(got, row[0])
	}
}

func mustQuery(tb testing.TB, c engine.Conn, text string, args ...any) []any {
	tb.Helper()
	got, err := query(testContext(tb), c, text, args...)
	if err != nil {
		tb.Fatalf("%s: %v", text, err)
	}
	return got
}

// once returns what a query does on a connection outside a session.
func once(tb testing.TB, e *Engine, text string) []any {
	tb.Helper()
	c, err := e.Conn(testContext(tb))
	if err != nil {
		tb.Fatal(err)
	}
	defer c.Close()
	return mustQuery(tb, c, text)
}

// count counts the rows of a table on a connection of the pool's.
func count(tb testing.TB, e *Engine, table string) int {
	tb.Helper()
	var n int
	if err := e.pool.QueryRow(testContext(tb), "select count(*) from "+table).Scan(&n); err != nil {
		tb.Fatal(err)
	}
	return n
}

// terminate ends the backend of a connection, if it has one still, and waits
// until it is gone.
func terminate(tb testing.TB, e *Engine, pid uint32) {
	tb.Helper()
	conn, err := pgx.ConnectConfig(testContext(tb), e.pool.Config().ConnConfig)
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(testContext(tb), "select pg_terminate_backend($1, 30000)", pid); err != nil {
		tb.Fatal(err)
	}
}

// explained is the engine's error in err.
func explained(tb testing.TB, err error) *engine.Error {
	tb.Helper()
	var failed *engine.Error
	if !errors.As(err, &failed) {
		tb.Fatalf("error %v (%T) is not explained", err, err)
	}
	return failed
}

func wantKind(tb testing.TB, err, kind error) *engine.Error {
	tb.Helper()
	failed := explained(tb, err)
	if failed.Kind != kind {
		tb.Errorf("error %v: got kind %v, want %v", err, failed.Kind, kind)
	}
	if errors.Is(err, driver.ErrBadConn) {
		tb.Errorf("error %v matches driver.ErrBadConn", err)
	}
	return failed
}

// cutter makes connections that break when a message to the server holds text:
// before it is sent, or when the server has answered.
type cutter struct {
	text   atomic.Pointer[string]
	answer bool // let the server have the message, and keep its answer

	refuse atomic.Bool // let nobody connect any more
}

func (c *cutter) arm(text string) { c.text.Store(&text) }

func (c *cutter) configure(cfg *pgxpool.Config) {
	cfg.ConnConfig.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		if c.refuse.Load() {
			return nil, errors.New("refused")
		}
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		return &cutConn{Conn: conn, cutter: c}, err
	}
}

type cutConn struct {
	net.Conn
	cutter *cutter
	cut    atomic.Bool
}

func (c *cutConn) Write(p []byte) (int, error) {
	text := c.cutter.text.Load()
	if text == nil || !bytes.Contains(p, []byte(*text)) {
		return c.Conn.Write(p)
	}
	c.cutter.text.Store(nil)
	c.cut.Store(true)
	if !c.cutter.answer {
		c.Conn.Close()
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *cutConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.cut.Load() {
		c.Conn.Close()
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}

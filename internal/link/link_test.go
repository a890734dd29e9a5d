package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"github.com/tholedb/thole/internal/testdb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// client is a connection over a link, and one beside it.
type client struct {
	*pgconn.PgConn
	t    *testing.T
	link *Link
	url  string
	mark int
}

// connect connects to a database with an empty table t (id int).
func connect(t *testing.T, change ...func(*pgconn.Config)) *client {
	t.Helper()
	c := &client{t: t, link: new(Link), url: testdb.Postgres(t)}
	direct(t, c.url, "create table t (id int)")
	url, err := c.link.Listen(t.Context(), c.url)
	if err != nil {
		t.Fatal(err)
	}
	c.mark = c.link.Mark()
	c.PgConn = dial(t, url, change...)
	t.Cleanup(c.link.Cut) // closing would wait for answers that don't come
	return c
}

func dial(t *testing.T, url string, change ...func(*pgconn.Config)) *pgconn.PgConn {
	t.Helper()
	cfg, err := pgconn.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range change {
		change(cfg)
	}
	conn, err := pgconn.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		conn.Close(ctx)
		<-conn.CleanupDone()
	})
	return conn
}

// once keeps pgx from cancelling what the server still does when its connection has
// failed.
func once(cfg *pgconn.Config) {
	var dialled atomic.Bool
	dial := cfg.DialFunc
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if dialled.Swap(true) {
			return nil, errors.New("nothing is cancelled")
		}
		return dial(ctx, network, addr)
	}
}

// direct runs a query beside the link, and returns the first value of its rows.
func direct(t *testing.T, url, query string) string {
	t.Helper()
	results, err := dial(t, url).Exec(t.Context(), query).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if len(results[0].Rows) == 0 {
		return ""
	}
	return string(results[0].Rows[0][0])
}

func (c *client) exec(query string) error {
	_, err := c.Exec(c.t.Context(), query).ReadAll()
	return err
}

func (c *client) mustExec(query string) {
	c.t.Helper()
	if err := c.exec(query); err != nil {
		c.t.Fatalf("%s: %v", query, err)
	}
}

// rows is how many rows are in the table when the server has nothing to do for
// the client any more.
func (c *client) rows() string {
	c.t.Helper()
	c.await("the client's backends are idle or gone", "bool_and(state = 'idle' and pid <> %d)")
	return direct(c.t, c.url, "select count(*) from t")
}

// await waits until an expression over the server's other processes is true. It
// may have the number of the client's in it.
func (c *client) await(what, expression string) {
	c.t.Helper()
	query := "select coalesce(" + fmt.Sprintf(expression, c.PID()) + ", true) from pg_stat_activity " +
		"where datname = current_database() and pid <> pg_backend_pid()"
	for since := time.Now(); direct(c.t, c.url, query) != "t"; {
		if time.Since(since) > time.Minute {
			c.t.Fatalf("waited in vain until %s", what)
		}
	}
}

func TestRoundTrips(t *testing.T) {
	t.Parallel()
	const insert = "insert into t values ($1)"
	one := [][]byte{[]byte("1")}
	ctx := t.Context()
	for name, test := range map[string]struct {
		run  func(c *client) error
		want int
	}{
		"nothing":   {func(*client) error { return nil }, 0},
		"simple":    {func(c *client) error { return c.exec("select 1") }, 1},
		"script":    {func(c *client) error { return c.exec("begin; select 1; commit") }, 1},
		"arguments": {func(c *client) error { return c.ExecParams(ctx, insert, one, nil, nil, nil).Read().Err }, 1},
		"prepared": {func(c *client) error {
			_, err := c.Prepare(ctx, "s", insert, nil)
			return errors.Join(err, c.ExecPrepared(ctx, "s", one, nil, nil).Read().Err)
		}, 2},
		"three":   {func(c *client) error { return errors.Join(c.exec("begin"), c.exec("select 1"), c.exec("commit")) }, 3},
		"failure": {func(c *client) error { return wantCode(c.exec("select 1/0"), "22012") }, 1},
		"pipeline": {func(c *client) error {
			p := c.StartPipeline(ctx)
			for range 3 {
				p.SendQueryParams(insert, one, nil, nil, nil)
			}
			return errors.Join(p.Sync(), p.Close())
		}, 1},
		"told unasked": {func(c *client) error {
			err := c.exec("listen me")
			direct(c.t, c.url, "notify me")
			return errors.Join(err, c.WaitForNotification(ctx))
		}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := connect(t)
			mark := c.link.Mark()
			if err := test.run(c); err != nil {
				t.Error(err)
			}
			if got := c.link.RoundTrips(mark); got != test.want {
				t.Errorf("got %d round trips, want %d:\n%s", got, test.want, c.link.Since(mark))
			}
			if got := c.link.RoundTrips(c.mark); got != test.want {
				t.Errorf("got %d round trips with the connecting, want %d:\n%s", got, test.want, c.link.Since(c.mark))
			}
		})
	}
}

// With a latency, whichever way, several flights are under way at once: the
// client waits once.
func TestRoundTripsOfUnawaited(t *testing.T) {
	t.Parallel()
	const late, flights = time.Second, 3
	for _, latency := range [][2]time.Duration{{late, 0}, {0, late}} {
		c := connect(t)
		c.link.Latency(latency[0], latency[1])
		mark := c.link.Mark()
		for range flights {
			c.Frontend().SendQuery(&pgproto3.Query{String: "select 1"})
			if err := c.Frontend().Flush(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond) // without a latency an answer comes
		}
		for ready := 0; ready < flights; {
			message, err := c.ReceiveMessage(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, is := message.(*pgproto3.ReadyForQuery); is {
				ready++
			}
		}
		if got := c.link.RoundTrips(mark); got != 1 {
			t.Errorf("latency %v: got %d round trips, want 1:\n%s", latency, got, c.link.Since(mark))
		}
	}
}

// What a client of this process has written is in the log, though nothing was
// answered yet.
func TestSinceIsPrompt(t *testing.T) {
	t.Parallel()
	l, cfg := new(Link), parse(t, testdb.Postgres(t))
	l.Stand(cfg)
	conn, err := pgconn.ConnectConfig(t.Context(), &cfg.ConnConfig.Config)
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		mark := l.Mark()
		conn.Frontend().SendSync(&pgproto3.Sync{})
		if err := conn.Frontend().Flush(); err != nil {
			t.Fatal(err)
		}
		if got := l.Since(mark); !strings.HasPrefix(got, "1> S") {
			t.Fatalf("got messages %q, want 1> S", got)
		}
		if _, err := conn.ReceiveMessage(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	l.Cut()
}

func parse(t *testing.T, url string) *pgxpool.Config {
	t.Helper()
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func wantCode(err error, code string) error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code != code {
		return fmt.Errorf("got error %w, want SQLSTATE %s", err, code)
	}
	return nil
}

func TestSince(t *testing.T) {
	t.Parallel()
	c := connect(t)
	mark := c.link.Mark()
	if _, err := c.Prepare(t.Context(), "s", "select $1::int", nil); err != nil {
		t.Fatal(err)
	}
	if err := c.ExecPrepared(t.Context(), "s", [][]byte{[]byte("1")}, nil, nil).Read().Err; err != nil {
		t.Fatal(err)
	}
	c.mustExec("select 2")
	if err := wantCode(c.exec("select 1/0"), "22012"); err != nil {
		t.Error(err)
	}
	want := strings.Join([]string{
		"1> P select $1::int, D, S",
		"1< 1, t, T, Z I",
		"1> B, D, E select $1::int, S",
		"1< 2, T, D, C SELECT 1, Z I",
		"1> Q select 2",
		"1< T, D, C SELECT 1, Z I",
		"1> Q select 1/0",
		"1< E 22012, Z I",
	}, "\n")
	if diff := cmp.Diff(want, c.link.Since(mark)); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"select $1::int", "select 2", "select 1/0"}, c.link.Executed(mark)); diff != "" {
		t.Errorf("executed (-want +got):\n%s", diff)
	}
	if got := c.link.Since(c.mark); !strings.HasPrefix(got, "1> startup\n1< R") {
		t.Errorf("the making of the connection is\n%s", got)
	}
}

// A cut at each message of a statement, in each way. The row is there when the
// server has been told to execute the statement, and the transaction is its own.
func TestJudge(t *testing.T) {
	t.Parallel()
	for _, sent := range []bool{true, false} {
		for n := 1; ; n++ {
			cut := false
			for _, fate := range []Fate{{Before, false}, {Inside, false}, {After, false}, {Before, true}, {Inside, true}, {After, true}} {
				cut = cutInsert(t, sent, n, fate)
			}
			if !cut {
				t.Logf("sent %v: %d messages", sent, n-1)
				break
			}
		}
	}
}

// cutInsert inserts a row over a connection that ends at the n-th message of a
// direction. It reports whether there was one.
func cutInsert(t *testing.T, sent bool, n int, fate Fate) bool {
	t.Helper()
	c := connect(t, once)
	mark, cut, synced := c.link.Mark(), false, false
	c.link.Judge(func(m Message) Fate {
		if m.Sent == sent {
			n--
		}
		cut = n == 0
		arrives := !cut || fate.Ends == After
		synced = synced || arrives && m.Sent && m.Type == 'S'
		if cut {
			c.link.judge = nil
			return fate
		}
		return Fate{}
	})
	err := c.ExecParams(t.Context(), "insert into t values (1)", nil, nil, nil, nil).Read().Err
	c.link.Judge(nil)
	if !cut {
		if err != nil {
			t.Errorf("without a cut: %v", err)
		}
		return false
	}
	when := fmt.Sprintf("%+v\n%s", fate, c.link.Since(mark))
	if got, want := c.rows(), map[bool]string{false: "0", true: "1"}[synced]; got != want {
		t.Errorf("%s\ngot %s rows, want %s", when, got, want)
	}
	wantEnd(t, when, c, err, fate.Reset)
	return true
}

// wantEnd checks how the client saw its connection end. An answer may have come
// first.
func wantEnd(t *testing.T, when string, c *client, err error, reset bool) {
	t.Helper()
	if err == nil {
		err = c.ExecParams(t.Context(), "select 1", nil, nil, nil, nil).Read().Err
	}
	wrote := errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) // it may write before it reads
	if ended := errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF); reset == ended || !ended && !wrote {
		t.Errorf("%s\ngot error %v, want the connection to have ended, by RST: %v", when, err, reset)
	}
}

// What is eaten was executed.
func TestEat(t *testing.T) {
	t.Parallel()
	c := connect(t)
	if _, err := c.Prepare(t.Context(), "s", "insert into t values ($1)", nil); err != nil {
		t.Fatal(err)
	}
	c.link.Eat("insert")
	c.mustExec("select 1")
	if err := c.ExecPrepared(t.Context(), "s", [][]byte{[]byte("1")}, nil, nil).Read().Err; err == nil {
		t.Error("got an answer")
	}
	if got := c.rows(); got != "1" {
		t.Errorf("got %s rows, want 1", got)
	}
	conn := dial(t, c.reopened())
	if _, err := conn.Exec(t.Context(), "insert into t values (2)").ReadAll(); err != nil {
		t.Errorf("on a new connection: %v", err)
	}
	c.link.EatLater("insert")
	conn = dial(t, c.reopened())
	if _, err := conn.Exec(t.Context(), "insert into t values (3)").ReadAll(); err == nil {
		t.Error("on a later connection: got an answer")
	}
	if got := c.rows(); got != "3" {
		t.Errorf("got %s rows, want 3", got)
	}
}

// The server has done what is eaten, also when it answers before it is done.
func TestEatAfterTheEnd(t *testing.T) {
	t.Parallel()
	c := connect(t)
	c.link.Eat("insert")
	if err := c.exec("select repeat('x', 1000) from generate_series(1, 20000); insert into t values (1)"); err == nil {
		t.Error("got an answer")
	}
	if got := c.rows(); got != "1" {
		t.Errorf("got %s rows, want 1", got)
	}
}

// reopened is another URL over the same link.
func (c *client) reopened() string {
	c.t.Helper()
	url, err := c.link.Listen(c.t.Context(), c.url)
	if err != nil {
		c.t.Fatal(err)
	}
	return url
}

func TestFreeze(t *testing.T) {
	t.Parallel()
	c := connect(t)
	c.link.Freeze()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Exec(ctx, "insert into t values (1)").ReadAll(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got error %v, want %v", err, context.DeadlineExceeded)
	}
	c.link.Cut()
	if got := c.rows(); got != "0" {
		t.Errorf("got %s rows, want 0", got)
	}
}

func TestForge(t *testing.T) {
	t.Parallel()
	c := connect(t)
	c.link.Forge("Z\x00\x00\x00\x05I", "Z\x00\x00\x00\x05T")
	c.mustExec("select 1")
	if got := c.TxStatus(); got != 'T' {
		t.Errorf("got status %c, want T", got)
	}
}

// An answer that is delayed comes, and a later one is not.
func TestDelay(t *testing.T) {
	t.Parallel()
	c := connect(t)
	c.link.Delay("1", time.Hour)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	c.mustExec("select 2")
	if _, err := c.Exec(ctx, "select 1").ReadAll(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got error %v, want %v", err, context.DeadlineExceeded)
	}
}

// A cancel request goes through, and is no round trip, nor judged.
func TestCancelRequest(t *testing.T) {
	t.Parallel()
	c := connect(t)
	c.link.Judge(func(m Message) Fate {
		if m.Conn != 1 {
			return Fate{Ends: Before}
		}
		return Fate{}
	})
	mark := c.link.Mark()
	result := c.Exec(t.Context(), "select pg_sleep(60)")
	c.await("the statement runs", "bool_or(state = 'active' and pid = %d)") // an earlier request has no effect
	if err := c.CancelRequest(t.Context()); err != nil {
		t.Error(err)
	}
	_, err := result.ReadAll()
	if err := wantCode(err, "57014"); err != nil {
		t.Error(err)
	}
	if got := c.link.RoundTrips(mark); got != 1 {
		t.Errorf("got %d round trips, want 1:\n%s", got, c.link.Since(mark))
	}
}

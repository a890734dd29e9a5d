package pgclone

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/tholedb/thole/internal/pgserver"
)

// childVariable is what a process of these tests' own is to do.
const childVariable = "PGCLONE_TEST_CHILD"

// TestMain is also the main function of those processes.
func TestMain(m *testing.M) {
	if url := os.Getenv(childVariable); url != "" {
		if err := child(context.Background(), url); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// child does what its standard input says, a word a line, and answers with a
// line each.
func child(ctx context.Context, url string) error {
	s, err := On(ctx, url)
	if err != nil {
		return err
	}
	say := func(words ...any) { fmt.Println(words...) }
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		word, key, _ := strings.Cut(in.Text(), " ")
		switch word {
		case "clone":
			db, err := s.Clone(ctx, Template{})
			if err != nil {
				return err
			}
			say(db.Name)
		case "clones": // many at a time, of one template, that says when it is built
			builds := 0
			t := Template{Key: key, Build: func(ctx context.Context, url string) error {
				builds++
				return tables(1)(ctx, url)
			}}
			if _, err := cloneMany(ctx, s, t, 16); err != nil {
				return err
			}
			say("builds", builds)
		case "keep":
			db, err := s.Clone(ctx, Template{})
			if err != nil {
				return err
			}
			if err := db.Keep(ctx); err != nil {
				return err
			}
			say(db.Name)
		case "build": // and never end
			_, err := s.Clone(ctx, Template{Key: key, Build: func(ctx context.Context, url string) error {
				if err := tables(1)(ctx, url); err != nil {
					return err
				}
				config, err := pgx.ParseConfig(url)
				if err != nil {
					return err
				}
				say(config.Database)
				time.Sleep(time.Hour) // until it is killed
				return nil
			}})
			return err
		}
	}
	return nil
}

// process is a running child.
type process struct {
	cmd *exec.Cmd
	in  io.Writer
	out *bufio.Reader
}

func startChild(t *testing.T, url string, env ...string) *process {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	cmd.Env = append(append(os.Environ(), childVariable+"="+url), env...)
	cmd.Stderr = os.Stderr
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	p := &process{cmd, in, bufio.NewReader(out)}
	t.Cleanup(p.kill)
	return p
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

func (p *process) tell(t *testing.T, order string) {
	t.Helper()
	if _, err := fmt.Fprintln(p.in, order); err != nil {
		t.Fatal(err)
	}
}

func (p *process) answer(t *testing.T) string {
	t.Helper()
	line, err := p.out.ReadString('\n')
	if err != nil {
		t.Fatalf("the process said %q: %v", line, err)
	}
	return strings.TrimSpace(line)
}

func (p *process) ask(t *testing.T, order string) string {
	t.Helper()
	p.tell(t, order)
	return p.answer(t)
}

// key is a key that no template has yet.
func key(tb testing.TB) string {
	tb.Helper()
	return tb.Name() + " " + rand.Text()
}

// tables is a Build that makes n tables, each with an index and a row.
func tables(n int) func(context.Context, string) error {
	return func(ctx context.Context, url string) error {
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			return err
		}
		defer conn.Close(ctx)
		for i := range n {
			_, err := conn.Exec(ctx, fmt.Sprintf("create table t%[1]d (id int, name text); create index on t%[1]d (name); insert into t%[1]d values (1, 'one')", i))
			if err != nil {
				return err
			}
		}
		return nil
	}
}

// testServer is the URL of the server of this test binary.
func testServer(tb testing.TB) string {
	tb.Helper()
	server, err := pgserver.Find(context.WithoutCancel(tb.Context()))
	if missing := (*pgserver.NotFoundError)(nil); errors.As(err, &missing) && os.Getenv("DBTEST_REQUIRE") == "" {
		tb.Skip(err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return server.URL
}

var testWaits = waits{full: 10 * time.Second, client: 100 * time.Millisecond}

// newTestServer is a Server of the test's own, as of another process. It has
// ended when the test has.
func newTestServer(tb testing.TB, url string) *Server {
	tb.Helper()
	s, err := newServer(tb.Context(), url, testWaits)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { end(tb, s) })
	return s
}

// end is the end of the Server's process, as far as others can tell, without its
// templates.
func end(tb testing.TB, s *Server) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), time.Minute)
	defer cancel()
	for _, c := range s.built.calls {
		if templateNames.MatchString(c.value) {
			s.bury(c.value)
		}
	}
	await(tb, s)
	for _, l := range []*link{s.lease, s.drops} {
		if l.conn != nil {
			l.conn.Close(ctx)
		}
	}
}

func await(tb testing.TB, s *Server) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), time.Minute)
	defer cancel()
	if err := s.Await(ctx); err != nil {
		tb.Fatal(err)
	}
}

func clone(tb testing.TB, s *Server, t Template) *Database {
	tb.Helper()
	db, err := s.Clone(tb.Context(), t)
	if err != nil {
		tb.Fatal(err)
	}
	return db
}

// cloneMany makes n databases at a time.
func cloneMany(ctx context.Context, s *Server, t Template, n int) ([]*Database, error) {
	dbs, errs := make([]*Database, n), make([]error, n)
	done := make(chan struct{})
	for i := range n {
		go func() {
			dbs[i], errs[i] = s.Clone(ctx, t)
			done <- struct{}{}
		}()
	}
	for range n {
		<-done
	}
	return dbs, errors.Join(errs...)
}

func connect(tb testing.TB, url string) *pgx.Conn {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), url)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close(context.WithoutCancel(tb.Context())) })
	return conn
}

// query is the one value of a query.
func query[T any](tb testing.TB, conn *pgx.Conn, sql string, args ...any) T {
	tb.Helper()
	var v T
	if err := conn.QueryRow(tb.Context(), sql, args...).Scan(&v); err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
	return v
}

func execute(tb testing.TB, conn *pgx.Conn, sql string) {
	tb.Helper()
	if _, err := conn.Exec(tb.Context(), sql); err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
}

func exists(tb testing.TB, conn *pgx.Conn, name string) bool {
	tb.Helper()
	return query[bool](tb, conn, "select exists (select from pg_database where datname = $1)", name)
}

// waitUntil waits for what other processes do, of which nobody tells us.
func waitUntil(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatalf("waited in vain until %s", what)
		}
	}
}

package pgclone

import (
	"context"
	"crypto/rand"
	"errors"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

func TestClone(t *testing.T) {
	t.Parallel()
	url := testServer(t)
	s := newTestServer(t, url)
	template := Template{Key: key(t), Build: tables(2)}
	a, b := clone(t, s, template), clone(t, s, template)
	inA, inB := connect(t, a.URL), connect(t, b.URL)
	execute(t, inA, "insert into t1 values (2, 'two')")
	if got := query[int](t, inA, "select count(*) from t1"); got != 2 {
		t.Errorf("the database that was written to has %d rows, want 2", got)
	}
	if got := query[int](t, inB, "select count(*) from t1"); got != 1 {
		t.Errorf("the other has %d rows, want the template's 1", got)
	}
	if got := query[string](t, inA, "select current_database()"); got != a.Name {
		t.Errorf("the URL leads to %s, want %s", got, a.Name)
	}
	for _, name := range []string{a.Name, b.Name, templateOf(t, s, template)} {
		if len(name) > 63 {
			t.Errorf("the name %s has %d bytes, want 63 at most", name, len(name))
		}
	}
	if o, ok := ownerOf(a.Name); !ok || o != s.owner {
		t.Errorf("ownerOf(%s) = %x, %t, want %x", a.Name, o, ok, s.owner)
	}
}

// templateOf is the database of a template that was built.
func templateOf(t *testing.T, s *Server, template Template) string {
	t.Helper()
	name, err := s.built.do(t.Context(), idOf(s, template), func(context.Context) (string, error) {
		return "", errors.New("nobody has built it")
	})
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func TestEmptyTemplate(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, testServer(t))
	for _, template := range []Template{{}, {Key: "any", From: &Template{}}} {
		conn := connect(t, clone(t, s, template).URL)
		if got := query[int](t, conn, "select count(*) from pg_class where relnamespace = 'public'::regnamespace"); got != 0 {
			t.Errorf("%d tables, want none", got)
		}
	}
}

// On hands out one Server for a URL, whose lease is held.
func TestOn(t *testing.T) {
	t.Parallel()
	url := testServer(t)
	a, err1 := On(t.Context(), url)
	b, err2 := On(t.Context(), url)
	if err := errors.Join(err1, err2); err != nil || a != b {
		t.Fatalf("On twice: %p and %p, error %v, want the same", a, b, err)
	}
	await(t, a)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	another := url + "&application_name=" + rand.Text()
	if _, err := On(ended, another); !errors.Is(err, context.Canceled) {
		t.Errorf("On with an ended context: error %v, want %v", err, context.Canceled)
	}
	s, err := On(t.Context(), another) // what the other call began
	if err != nil {
		t.Fatal(err)
	}
	await(t, s)
}

// What is wrong is said without the password.
func TestOnFails(t *testing.T) {
	t.Parallel()
	wrong, err := url.Parse(testServer(t))
	if err != nil {
		t.Fatal(err)
	}
	wrong.User = url.UserPassword("no_such_role", "s3cret")
	for _, url := range []string{
		wrong.String(),
		"postgres://u:s3cret@127.0.0.1:1/test",
		"postgres://u:s3cret%zz@host/test",
		"postgres://u:s3cret@host/test?sslmode=s3cret%zz",
		"postgres://u:s3cret@host:port/test",
		"mysql://u:s3cret@host/test",
	} {
		_, err := On(t.Context(), url)
		if err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("On(%q): error %v, want one without the password", url, err)
		}
	}
}

// Copies are made while others are, and while the template is used elsewhere.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	url := testServer(t)
	template := Template{Key: key(t), Build: tables(1)}
	const each = 16
	servers := []*Server{newTestServer(t, url), newTestServer(t, url), newTestServer(t, url)}
	errs := make(chan error)
	for _, s := range servers {
		go func() {
			_, err := cloneMany(t.Context(), s, template, each)
			errs <- err
		}()
	}
	for range servers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	conn := connect(t, url)
	for _, s := range servers {
		if got := countOwned(t, conn, s); got != each {
			t.Errorf("%d databases, want %d", got, each)
		}
	}
}

// countOwned is how many databases a Server has.
func countOwned(t *testing.T, c *pgx.Conn, s *Server) int {
	t.Helper()
	all, _, err := (&conn{c}).databases(t.Context(), clonePrefix)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, d := range all {
		if o, _ := ownerOf(d.Name); o == s.owner {
			n++
		}
	}
	return n
}

// A database that somebody is connected to can't be copied: PostgreSQL waits for
// five seconds, and so do we.
func TestTemplateInUse(t *testing.T) {
	t.Parallel()
	url := testServer(t)
	s := newTestServer(t, url)
	template := Template{Key: key(t), Build: tables(1)}
	clone(t, s, template)
	name := templateOf(t, s, template)
	conn := connect(t, url)
	if _, err := pgx.Connect(t.Context(), within(t, url, name)); code(err) != "55000" {
		t.Fatalf("connect to the template: error %v, want a refusal", err)
	}
	execute(t, conn, "alter database "+name+" allow_connections true")
	user := connect(t, within(t, url, name))
	execute(t, conn, "alter database "+name+" allow_connections false")
	cloned := make(chan error)
	go func() {
		_, err := s.Clone(t.Context(), template)
		cloned <- err
	}()
	// PostgreSQL refuses the first attempt.
	attempts := s.made.Load()
	waitUntil(t, "the second attempt", func() bool { return s.made.Load() > attempts+1 })
	user.Close(t.Context())
	if err := <-cloned; err != nil {
		t.Error(err)
	}
}

func within(t *testing.T, server, name string) string {
	t.Helper()
	url, err := Within(server, name)
	if err != nil {
		t.Fatal(err)
	}
	return url
}

// The lease is taken again when its connection is lost, as by a restart.
func TestLeaseIsTakenAgain(t *testing.T) {
	t.Parallel()
	url := testServer(t)
	s := newTestServer(t, url)
	conn := connect(t, url)
	for range 2 {
		pid := s.lease.conn.PgConn().PID()
		if !query[bool](t, conn, "select pg_terminate_backend($1)", pid) {
			t.Fatal("the lease has no connection")
		}
		waitUntil(t, "the lease is free", func() bool { return !leased(t, conn, s) })
		clone(t, s, Template{})
		if !leased(t, conn, s) {
			t.Error("the lease is free when there is a new database, want it held")
		}
	}
}

// The server may hold a connection that is lost for long, and the lease with it.
func TestLostLeaseThatIsHeld(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, testServer(t))
	lost := s.lease.conn
	t.Cleanup(func() { lost.Close(context.WithoutCancel(t.Context())) })
	s.lease.conn = nil
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cloned := make(chan error, 1)
	go func() {
		_, err := s.Clone(ctx, Template{})
		cloned <- err
	}()
	select {
	case err := <-cloned:
		if err != nil {
			t.Error(err)
		}
	case <-ctx.Done():
		t.Fatal("the lost connection is waited for")
	}
}

// leased reports whether the lease of s is held.
func leased(t *testing.T, c *pgx.Conn, s *Server) bool {
	t.Helper()
	living, err := (&conn{c}).owners(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return living[s.owner]
}

// The end of a caller's ctx ends neither the lease nor what others wait for.
func TestEndOfContext(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, testServer(t))
	building, goOn := make(chan struct{}), make(chan struct{})
	template := Template{Key: key(t), Build: func(ctx context.Context, url string) error {
		close(building)
		<-goOn
		return errors.Join(ctx.Err(), tables(1)(ctx, url))
	}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := s.Clone(ctx, template)
		ended <- err
	}()
	<-building
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("clone with an ended context: error %v, want %v", err, context.Canceled)
	}
	close(goOn)
	pid := s.lease.conn.PgConn().PID()
	clone(t, s, template)
	ctx, cancel = context.WithCancel(t.Context())
	err := s.lease.do(ctx, func(ctx context.Context, c *conn) error {
		cancel()
		return c.Ping(ctx)
	})
	if err != nil {
		t.Errorf("what runs when its context ends: %v", err)
	}
	if err := s.lease.do(ctx, func(context.Context, *conn) error { return nil }); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: error %v, want none or %v", err, context.Canceled)
	}
	if got := s.lease.conn.PgConn().PID(); got != pid {
		t.Error("the lease has another connection than before")
	}
}

func TestConnections(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ max, reserved, processes, want int }{
		{300, 3, 1, 37},
		{100, 3, 1, 37},
		{40, 3, 1, 34},
		{100, 3, 4, 23},
		{100, 13, 8, 10},
		{100, 3, 64, 4},
		{5, 3, 1, 4},
	} {
		f := facts{max: tt.max, reserved: tt.reserved}
		if got := f.connections(tt.processes); got != tt.want {
			t.Errorf("%+v: %d connections, want %d", tt, got, tt.want)
		}
	}
	s := newTestServer(t, testServer(t))
	if got, want := s.Connections(true), s.facts.connections(1); got != want {
		t.Errorf("a private server gives %d connections, want %d", got, want)
	}
	if got, want := s.Connections(false), s.facts.connections(runtime.NumCPU()); got != want {
		t.Errorf("a shared server gives %d connections, want %d", got, want)
	}
	if s.facts.max == 0 || s.facts.reserved == 0 || s.facts.version < 130000 || s.facts.user == "" {
		t.Errorf("the server says %+v", s.facts)
	}
}

func TestConnectTries(t *testing.T) {
	t.Parallel()
	s := &Server{waits: testWaits, facts: facts{max: 20}}
	full := &pgconn.PgError{Code: codeFull, Message: "sorry"}
	for _, failures := range [][]error{{}, {full, full}, {&pgconn.PgError{Code: codeStarting}, full}} {
		calls := 0
		err := s.Connect(t.Context(), func(context.Context) error {
			calls++
			if calls <= len(failures) {
				return failures[calls-1]
			}
			return nil
		})
		if want := len(failures) + 1; err != nil || calls != want {
			t.Errorf("after %d failures: error %v after %d calls, want none after %d", len(failures), err, calls, want)
		}
	}
	calls, other := 0, errors.New("another")
	err := s.Connect(t.Context(), func(context.Context) error { calls++; return other })
	if !errors.Is(err, other) || calls != 1 {
		t.Errorf("another error: %v after %d calls, want it after one", err, calls)
	}
	s.waits.full = 1
	err = s.Connect(t.Context(), func(context.Context) error { return full })
	e := (*FullError)(nil)
	if !errors.As(err, &e) || e.Max != 20 || !errors.Is(err, full) {
		t.Fatalf("a server that stays full: error %v, want a FullError", err)
	}
	for _, want := range []string{"max_connections (20 now)", "go test -p 1", "sorry"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error %q does not have %q", err, want)
		}
	}
}

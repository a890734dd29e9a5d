package pgclone

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
)

func idOf(s *Server, t Template) string { return fmt.Sprintf("%x", t.built().digest(s.facts)) }

// counting is a template whose builds are counted.
func counting(key string, builds *atomic.Int64) Template {
	return Template{Key: key, Build: func(ctx context.Context, url string) error {
		builds.Add(1)
		return tables(1)(ctx, url)
	}}
}

// A template is built once for all processes.
func TestBuiltOnce(t *testing.T) {
	t.Parallel()
	url := testServer(t)
	var builds atomic.Int64
	template := counting(key(t), &builds)
	servers := []*Server{newTestServer(t, url), newTestServer(t, url), newTestServer(t, url)}
	errs := make(chan error)
	for _, s := range servers {
		go func() {
			_, err := cloneMany(t.Context(), s, template, 4)
			errs <- err
		}()
	}
	for range servers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	later := newTestServer(t, url)
	clone(t, later, template)
	if got := builds.Load(); got != 1 {
		t.Errorf("built %d times, want once", got)
	}
	if got, want := templateOf(t, later, template), templateOf(t, servers[0], template); got != want {
		t.Errorf("the templates %s and %s, want the same", got, want)
	}
	clone(t, later, counting(key(t), &builds))
	if got := builds.Load(); got != 2 {
		t.Errorf("another key: built %d times in all, want 2", got)
	}
}

func TestBuiltOnceByProcesses(t *testing.T) {
	t.Parallel()
	url := testServer(t)
	const processes = 3
	var all []*process
	shared := key(t)
	for range processes {
		p := startChild(t, url)
		p.tell(t, "clones "+shared)
		all = append(all, p)
	}
	var builds int
	for _, p := range all {
		var n int
		if answer := p.answer(t); answer == "builds 1" {
			n = 1
		} else if answer != "builds 0" {
			t.Errorf("a process said %q", answer)
		}
		builds += n
	}
	var here atomic.Int64
	clone(t, newTestServer(t, url), counting(shared, &here))
	if got := builds + int(here.Load()); got != 1 {
		t.Errorf("built %d times, want once", got)
	}
}

// The error of a Build is everybody's, and nothing is left of it.
func TestBuildFails(t *testing.T) {
	t.Parallel()
	url := testServer(t)
	s := newTestServer(t, url)
	failure, builds := errors.New("no such column"), 0
	template := Template{Key: key(t), Build: func(ctx context.Context, url string) error {
		builds++
		return errors.Join(tables(1)(ctx, url), failure)
	}}
	for range 2 {
		if db, err := s.Clone(t.Context(), template); !errors.Is(err, failure) || db != nil {
			t.Errorf("clone: %v, error %v, want %v", db, err, failure)
		}
	}
	if builds != 1 {
		t.Errorf("built %d times, want once", builds)
	}
	await(t, s)
	conn := connect(t, url)
	if got := countOwned(t, conn, s); got != 0 {
		t.Errorf("%d databases are left, want none", got)
	}
	var later atomic.Int64
	clone(t, newTestServer(t, url), counting(template.Key, &later))
	if later.Load() != 1 {
		t.Error("another process finds a template whose Build has failed")
	}
}

// A Build may leave its goroutine, as t.FailNow does.
func TestBuildExits(t *testing.T) {
	t.Parallel()
	url := testServer(t)
	s := newTestServer(t, url)
	_, err := s.Clone(t.Context(), Template{Key: key(t), Build: func(context.Context, string) error {
		runtime.Goexit()
		return nil
	}})
	if err == nil || !strings.Contains(err.Error(), "Goexit") {
		t.Errorf("clone: error %v, want one that says why", err)
	}
	await(t, s)
	if got := countOwned(t, connect(t, url), s); got != 0 {
		t.Errorf("%d databases are left, want none", got)
	}
}

// A Build that leaves connections open would make PostgreSQL wait at each copy.
func TestBuildLeavesConnections(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, testServer(t))
	var left *pgx.Conn
	_, err := s.Clone(t.Context(), Template{Key: key(t), Build: func(ctx context.Context, url string) (err error) {
		left, err = pgx.Connect(ctx, url)
		return err
	}})
	if err == nil || !strings.Contains(err.Error(), "that Build has left open") {
		t.Errorf("clone: error %v, want one that says why", err)
	}
	left.Close(t.Context())
}

// A template whose builder was killed is built again, and what it left is swept.
func TestHalfBuilt(t *testing.T) {
	t.Parallel()
	url := testServer(t)
	conn := connect(t, url)
	p := startChild(t, url)
	shared := key(t)
	half := p.ask(t, "build "+shared)
	if !exists(t, conn, half) {
		t.Fatalf("the process said %q", half)
	}
	var builds atomic.Int64
	s := newTestServer(t, url)
	cloned := make(chan error)
	go func() {
		_, err := s.Clone(t.Context(), counting(shared, &builds))
		cloned <- err
	}()
	waitUntil(t, "we wait for its builder", func() bool {
		return query[bool](t, conn, "select exists (select from pg_locks where locktype = 'advisory' and not granted)")
	})
	if builds.Load() != 0 {
		t.Error("built while another process builds it")
	}
	p.kill()
	if err := <-cloned; err != nil {
		t.Fatal(err)
	}
	if builds.Load() != 1 {
		t.Errorf("built %d times after the builder was killed, want once", builds.Load())
	}
	waitUntil(t, "the half-built template is swept", func() bool {
		if err := s.sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		return !exists(t, conn, half)
	})
}

// A template that goes away is built again.
func TestTemplateIsGone(t *testing.T) {
	t.Parallel()
	url := testServer(t)
	s := newTestServer(t, url)
	var builds atomic.Int64
	template := counting(key(t), &builds)
	clone(t, s, template)
	execute(t, connect(t, url), "drop database "+templateOf(t, s, template))
	if _, err := cloneMany(t.Context(), s, template, 4); err != nil {
		t.Error(err)
	}
	if got := builds.Load(); got != 2 {
		t.Errorf("built %d times, want 2", got)
	}
}

func TestFrom(t *testing.T) {
	t.Parallel()
	url := testServer(t)
	var below, above atomic.Int64
	schema := counting(key(t), &below)
	row := func(own bool) Template {
		return Template{Key: "row", Own: own, From: &schema, Build: func(ctx context.Context, url string) error {
			above.Add(1)
			conn, err := pgx.Connect(ctx, url)
			if err != nil {
				return err
			}
			defer conn.Close(ctx)
			_, err = conn.Exec(ctx, "insert into t0 values (2, 'two')")
			return err
		}}
	}
	a, b := newTestServer(t, url), newTestServer(t, url)
	for _, s := range []*Server{a, b, a} {
		for _, own := range []bool{false, true} {
			conn := connect(t, clone(t, s, row(own)).URL)
			if got := query[int](t, conn, "select count(*) from t0"); got != 2 {
				t.Errorf("%d rows, want those of both templates", got)
			}
		}
		conn := connect(t, clone(t, s, schema).URL)
		if got := query[int](t, conn, "select count(*) from t0"); got != 1 {
			t.Errorf("%d rows, want those of the lower template", got)
		}
	}
	if below.Load() != 1 || above.Load() != 3 { // once for all, and each its own
		t.Errorf("built %d and %d times, want 1 and 3", below.Load(), above.Load())
	}
	own, from := row(true), row(false)
	if on := (Template{Key: "x", From: &own, Build: tables(1)}); !on.own() {
		t.Error("what starts from a process's own is shared, want its own")
	}
	if idOf(a, own) == idOf(a, from) || idOf(a, from) == idOf(a, Template{Key: "row", Build: from.Build}) {
		t.Error("different templates have the same name")
	}
	other := a.facts
	other.user = "somebody"
	if from.digest(other) == from.digest(a.facts) {
		t.Error("roles share a template, whose tables belong to one of them")
	}
}

// DBTEST_FRESH=1 builds a template that there is, once in a process.
func TestFresh(t *testing.T) {
	url := testServer(t)
	var builds atomic.Int64
	template := counting(key(t), &builds)
	clone(t, newTestServer(t, url), template)
	t.Setenv("DBTEST_FRESH", "1")
	s := newTestServer(t, url)
	if _, err := cloneMany(t.Context(), s, template, 4); err != nil {
		t.Fatal(err)
	}
	if got := builds.Load(); got != 2 {
		t.Errorf("built %d times, want once more", got)
	}
	another := newTestServer(t, url)
	clone(t, another, template)
	if got := builds.Load(); got != 3 {
		t.Errorf("built %d times, want once more in another process", got)
	}
	clone(t, s, template)
	// The process that has built it need not once more, when it is gone.
	execute(t, connect(t, url), "drop database "+templateOf(t, s, template))
	t.Setenv("DBTEST_FRESH", "")
	clone(t, another, template)
	t.Setenv("DBTEST_FRESH", "1")
	s.built.forget(idOf(s, template), templateOf(t, s, template))
	clone(t, s, template)
	if got := builds.Load(); got != 4 {
		t.Errorf("built %d times, want once since it was dropped", got)
	}
}

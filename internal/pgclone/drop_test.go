package pgclone

import (
	"context"
	"crypto/rand"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tholedb/thole/internal/pgserver"
)

func TestDrop(t *testing.T) {
	t.Parallel()
	url := testServer(t)
	s := newTestServer(t, url)
	conn := connect(t, url)
	for name, use := range map[string]func(url string){
		"never connected": func(string) {},
		"closed":          func(url string) { connect(t, url).Close(t.Context()) },
		"open":            func(url string) { connect(t, url) },
		"pool":            func(url string) { connect(t, url); connect(t, url) },
	} {
		db := clone(t, s, Template{})
		use(db.URL)
		db.Drop()
		db.Drop()
		await(t, s)
		if exists(t, conn, db.Name) {
			t.Errorf("%s: the database is still there", name)
		}
	}
}

// A database waits for its own clients alone, and they may still end their work.
func TestDropWaits(t *testing.T) {
	t.Parallel()
	url := testServer(t)
	s, err := newServer(t.Context(), url, waits{full: time.Second, client: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(t, s) })
	conn := connect(t, url)
	used, idle := clone(t, s, Template{}), clone(t, s, Template{})
	clone(t, s, Template{}) // or the last Drop would wait
	client := connect(t, used.URL)
	used.Drop()
	idle.Drop()
	waitUntil(t, "the idle database is dropped", func() bool { return !exists(t, conn, idle.Name) })
	execute(t, client, "create table t ()")
	client.Close(t.Context())
	await(t, s)
	if exists(t, conn, used.Name) {
		t.Error("the database is still there, want it dropped when its client has gone")
	}
}

func TestDropAfterLoss(t *testing.T) {
	t.Parallel()
	url := testServer(t)
	s := newTestServer(t, url)
	conn := connect(t, url)
	await(t, s)
	query[bool](t, conn, "select pg_terminate_backend($1)", s.drops.conn.PgConn().PID())
	db := clone(t, s, Template{})
	db.Drop()
	await(t, s)
	if exists(t, conn, db.Name) {
		t.Error("the database is still there")
	}
}

// The last database's Drop leaves neither databases nor goroutines behind.
func TestLastDrop(t *testing.T) {
	t.Parallel()
	url := testServer(t)
	s := newTestServer(t, url)
	conn := connect(t, url)
	dbs, err := cloneMany(t.Context(), s, Template{}, 4)
	if err != nil {
		t.Fatal(err)
	}
	for _, db := range dbs {
		db.Drop()
	}
	if got := countOwned(t, conn, s); got != 0 || s.buried.done != nil {
		t.Errorf("after the last: %d databases, want none and nothing running", got)
	}
}

// The connections of a pooler stay when its clients are gone.
func TestDisconnect(t *testing.T) {
	t.Parallel()
	url := testServer(t)
	s, err := newServer(t.Context(), url, waits{full: time.Second, client: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(t, s) })
	db, other := clone(t, s, Template{}), clone(t, s, Template{})
	connect(t, db.URL)
	stays := connect(t, other.URL)
	if err := db.Disconnect(t.Context()); err != nil {
		t.Fatal(err)
	}
	db.Drop()
	await(t, s)
	if err := stays.Ping(t.Context()); err != nil {
		t.Errorf("a connection to another database: %v", err)
	}
	stays.Close(t.Context())
}

func TestAwaitEnds(t *testing.T) {
	t.Parallel()
	s, err := newServer(t.Context(), testServer(t), waits{full: time.Second, client: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(t, s) })
	db := clone(t, s, Template{})
	clone(t, s, Template{}) // or the last Drop would wait
	client := connect(t, db.URL)
	db.Drop()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := s.Await(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("await with an ended context: error %v, want %v", err, context.DeadlineExceeded)
	}
	client.Close(t.Context())
}

// The databases of a process that was killed are swept by the next; those of a
// living one are not.
func TestKilledProcess(t *testing.T) {
	t.Parallel()
	url := testServer(t)
	conn := connect(t, url)
	victim, survivor := startChild(t, url), startChild(t, url)
	kept := victim.ask(t, "keep")
	dropAfterwards(t, url, kept)
	lost := []string{victim.ask(t, "clone"), victim.ask(t, "clone")}
	living := survivor.ask(t, "clone")
	victim.kill()
	waitUntil(t, "the next process sweeps", func() bool {
		next := newTestServer(t, url) // the server may notice the victim's end later
		await(t, next)
		return !exists(t, conn, lost[0]) && !exists(t, conn, lost[1])
	})
	if !exists(t, conn, living) {
		t.Error("the database of a living process is gone")
	}
	if !exists(t, conn, kept) {
		t.Error("the database that was to be kept is gone")
	}
}

func TestSweep(t *testing.T) {
	t.Parallel()
	url := testServer(t)
	conn := connect(t, url)
	ended, living, sweeper := newTestServer(t, url), newTestServer(t, url), newTestServer(t, url)
	elsewhere := newTestServer(t, clone(t, living, Template{}).URL) // whose locks are another database's
	old, recent := Template{Key: key(t), Build: tables(1)}, Template{Key: key(t), Build: tables(1)}
	own := Template{Key: key(t), Build: tables(1), Own: true}
	lost := clone(t, ended, own)
	lostTemplate := templateOf(t, ended, own)
	kept, busy := clone(t, ended, Template{}), clone(t, ended, Template{})
	client := connect(t, busy.URL)
	if err := kept.Keep(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, template := range []Template{old, recent} {
		clone(t, living, template)
	}
	oldName := templateOf(t, living, old)
	execute(t, conn, "comment on database "+oldName+" is '2020-01-01T00:00:00Z'")
	foreign := clonePrefix + "of_" + strings.ToLower(rand.Text())
	execute(t, conn, "create database "+foreign)
	dropAfterwards(t, url, foreign, kept.Name)
	end(t, ended)
	waitUntil(t, "the lease is free", func() bool { return !leased(t, conn, ended) })

	sweepUntilGone(t, sweeper, conn, lost.Name, lostTemplate, oldName)
	for what, name := range map[string]string{
		"of a living owner":    clone(t, living, own).Name,
		"whose URL is another": clone(t, elsewhere, Template{}).Name,
		"that is kept":         kept.Name,
		"that has a client":    busy.Name,
		"of somebody else":     foreign,
		"a recent template":    templateOf(t, living, recent),
		"a template of ours":   templateOf(t, living, own),
	} {
		if err := sweeper.sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !exists(t, conn, name) {
			t.Errorf("a database %s is swept", what)
		}
	}
	client.Close(t.Context())
	sweepUntilGone(t, sweeper, conn, busy.Name)
	clone(t, living, old) // built anew
}

// dropAfterwards drops databases when the test has ended.
func dropAfterwards(t *testing.T, url string, names ...string) {
	t.Helper()
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		c, err := pgx.Connect(ctx, url)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(ctx)
		for _, name := range names {
			if err := (&conn{c}).exec(ctx, "drop database if exists %s", name); err != nil {
				t.Error(err)
			}
		}
	})
}

func sweepUntilGone(t *testing.T, s *Server, conn *pgx.Conn, names ...string) {
	t.Helper()
	for _, name := range names {
		waitUntil(t, name+" is swept", func() bool {
			if err := s.sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			return !exists(t, conn, name)
		})
	}
}

// The use of a template is noted once a day.
func TestTemplateUseIsNoted(t *testing.T) {
	t.Parallel()
	url := testServer(t)
	conn := connect(t, url)
	template := Template{Key: key(t), Build: tables(1)}
	s := newTestServer(t, url)
	clone(t, s, template)
	name := templateOf(t, s, template)
	comment := func() string {
		clone(t, newTestServer(t, url), template)
		return query[string](t, conn, "select shobj_description(oid, 'pg_database') from pg_database where datname = $1", name)
	}
	recent := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	execute(t, conn, "comment on database "+name+" is '"+recent+"'")
	if got := comment(); got != recent {
		t.Errorf("used again after an hour: comment %q, want %q", got, recent)
	}
	execute(t, conn, "comment on database "+name+" is '"+time.Now().Add(-48*time.Hour).UTC().Format(time.RFC3339)+"'")
	if got := comment(); got < recent {
		t.Errorf("used again after two days: comment %q, want the time of use", got)
	}
}

// No sweep takes the database of an owner that has started while it looked.
func TestSweepWhileOthersStart(t *testing.T) {
	t.Parallel()
	url := testServer(t)
	var made string
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeExec // a query, a message
	queries := 0
	config.Tracer = beforeQuery(func() {
		if queries++; queries == 2 {
			made = clone(t, newTestServer(t, url), Template{}).Name
		}
	})
	c, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.WithoutCancel(t.Context())) })
	dead, err := (&conn{c}).abandoned(t.Context())
	if err != nil || made == "" || slices.Contains(dead, made) {
		t.Errorf("abandoned: %v, error %v, want it without %q", dead, err, made)
	}
}

// beforeQuery is called before each query of a connection.
type beforeQuery func()

func (f beforeQuery) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	f()
	return ctx
}

func (beforeQuery) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// A server without connections left is waited for, and then it is said.
func TestFullServer(t *testing.T) {
	t.Parallel()
	testServer(t) // or there is nothing to start
	server, err := pgserver.Start(t.Context(), "max_connections=10")
	if missing := (*pgserver.NotFoundError)(nil); errors.As(err, &missing) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { runtime.KeepAlive(server) })
	s := newTestServer(t, server.URL)
	await(t, s)
	var taken []*pgx.Conn
	for {
		conn, err := pgx.Connect(t.Context(), server.URL)
		if err != nil {
			if code(err) != codeFull {
				t.Fatal(err)
			}
			break
		}
		taken = append(taken, conn)
	}
	tries, opened := make(chan struct{}, 1000), make(chan error)
	go func() {
		opened <- s.Connect(t.Context(), func(ctx context.Context) error {
			conn, err := pgx.Connect(ctx, server.URL)
			if err == nil {
				taken = append(taken, conn)
			}
			tries <- struct{}{}
			return err
		})
	}()
	<-tries
	taken[0].Close(t.Context())
	if err := <-opened; err != nil {
		t.Errorf("a connection became free: error %v", err)
	}
	s.waits.full = 200 * time.Millisecond
	_, err = s.Clone(t.Context(), Template{Key: "x", Build: tables(1)})
	if full := (*FullError)(nil); !errors.As(err, &full) || full.Max != 10 || strings.Count(err.Error(), codeFull) != 1 {
		t.Errorf("a full server: error %v, want a FullError with its max_connections", err)
	}
	_, err = newServer(t.Context(), server.URL, waits{full: time.Millisecond, client: time.Second})
	if full := (*FullError)(nil); !errors.As(err, &full) {
		t.Errorf("a server that was full from the start: error %v, want a FullError", err)
	}
	for _, conn := range taken[1:] {
		conn.Close(t.Context())
	}
	clone(t, s, Template{Key: "x", Build: tables(1)})
}

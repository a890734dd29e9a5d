package conformance

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/testdb"
)

const (
	soakSessions = 10_000
	soakWorkers  = 8
	soakSlow     = 50 // one in so many waits inside the database
)

// TestSoak ends sessions in every way, in disorder, and looks for what is left:
// rows that should or should not be there, goroutines, connections.
func TestSoak(t *testing.T) { //nolint:paralleltest // it counts the goroutines of the process
	t.Run("sqlite", func(t *testing.T) { soak(t, Target{URL: testdb.SQLite}) })     //nolint:paralleltest // as above
	t.Run("postgres", func(t *testing.T) { soak(t, Target{URL: testdb.Postgres}) }) //nolint:paralleltest // as above
	t.Run("pgbouncer", func(t *testing.T) {                                         //nolint:paralleltest // as above
		soak(t, Target{URL: testdb.PgBouncer, Pooled: true})
	})
}

func soak(t *testing.T, target Target) {
	t.Helper()
	w := newWorld(t, target)
	before := goleak.IgnoreCurrent()
	s := &soaking{world: w.reopen(t, soakPool), t: t, seed: rand.Uint64()}
	t.Logf("seed %d", s.seed)
	s.warmUp()
	goroutines, backends := runtime.NumGoroutine(), s.backends()

	var workers sync.WaitGroup
	for range soakWorkers {
		workers.Go(s.work)
	}
	workers.Wait()

	eventually(t, "the goroutines are as many as before", func() bool {
		runtime.GC() // drops the connections of prepared statements
		return runtime.NumGoroutine() <= goroutines
	})
	if diff := cmp.Diff(backends, s.backends()); diff != "" {
		t.Errorf("connections (-before +after):\n%s", diff)
	}
	slices.Sort(s.kept)
	s.wantItems(t, s.kept...)
	if err := s.Close(); err != nil {
		t.Errorf("close database: %v", err)
	}
	goleak.VerifyNone(t, before)
}

// soakPool leaves as many connections as there are workers.
func soakPool(cfg *thole.Config) {
	if cfg.Postgres != nil {
		cfg.Postgres.MaxConns = soakWorkers
		cfg.Postgres.ConnConfig.RuntimeParams["application_name"] = "soak"
	} else {
		cfg.SQLite.Readers = soakWorkers
		cfg.Session.LockTimeout = time.Hour // a machine that is busy elsewhere is no failure
	}
}

// soaking is a soak in progress.
type soaking struct {
	*world
	t    *testing.T
	seed uint64
	last atomic.Int64 // the session that was opened last

	mu   sync.Mutex
	kept []int // items that must be there
}

// warmUp has every connection made, by sessions that are open at once.
func (s *soaking) warmUp() {
	var all, open sync.WaitGroup
	open.Add(soakWorkers)
	for range soakWorkers {
		all.Go(func() {
			opts := thole.SessionOptions{ReadOnly: true} // of which SQLite has many at once
			err := s.WithSessionOptions(s.t.Context(), opts, func(tx *thole.Tx) error {
				err := begin(tx)
				open.Done()
				open.Wait()
				return err
			})
			if err != nil {
				s.t.Error(err)
			}
		})
	}
	all.Wait()
}

// backends are PostgreSQL's processes for the soak and their states, or SQLite's
// connection that writes. Behind a pooler the processes are nobody's, but must
// all be idle.
func (s *soaking) backends() []string {
	if s.Engine() != thole.Postgres {
		return []string{s.connection(s.t)}
	}
	if s.target.Pooled {
		s.awaitIdle()
		return nil
	}
	s.awaitIdle() // a ROLLBACK may be on its way
	var backends []string
	const query = "select pid || ' ' || state from pg_stat_activity where application_name = 'soak' order by pid"
	if err := s.witness.SelectContext(s.t.Context(), &backends, query); err != nil {
		s.t.Fatal(err)
	}
	if len(backends) != soakWorkers || slices.ContainsFunc(backends, func(b string) bool { return !strings.HasSuffix(b, " idle") }) {
		s.t.Errorf("connections: got %q, want %d that are idle", backends, soakWorkers)
	}
	return backends
}

// awaitIdle waits until no process of PostgreSQL's runs anything for the soak.
func (s *soaking) awaitIdle() {
	const query = "select count(*) from pg_stat_activity where datname = current_database() " +
		"and backend_type = 'client backend' and pid <> pg_backend_pid() and state <> 'idle'"
	eventually(s.t, "all processes are idle", func() bool { return s.value(s.t, query) == "0" })
}

func (s *soaking) work() {
	for {
		id := int(s.last.Add(1))
		if id > soakSessions {
			return
		}
		rnd := rand.New(rand.NewPCG(s.seed, uint64(id)))
		act := acts[rnd.IntN(len(acts))]
		if rnd.IntN(soakSlow) == 0 {
			act = slowActs[rnd.IntN(len(slowActs))]
		}
		s.play(act, &soakSession{soaking: s, id: id, rnd: rnd})
	}
}

// play opens a session in a goroutine, which may end in it, and notes whether
// its item must be there.
func (s *soaking) play(a act, session *soakSession) {
	var goroutine sync.WaitGroup
	err := errLeft
	goroutine.Go(func() {
		recovered(func() { err = session.run(a) })
	})
	goroutine.Wait()
	kept := a.kept
	if a.either { // ctx decides, at a time of its own
		kept = err == nil
	}
	if (err == nil) != kept && !a.leaves {
		s.t.Errorf("session %d, %s: got error %v; must its item be there: %t", session.id, a.name, err, kept)
	}
	if kept {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.kept = append(s.kept, session.id)
	}
}

var errLeft = errors.New("left by a panic or by runtime.Goexit")

// soakSession is a session that adds the item with its number.
type soakSession struct {
	*soaking
	id     int
	rnd    *rand.Rand
	ctx    context.Context
	cancel context.CancelFunc
}

func (s *soakSession) run(a act) error {
	s.ctx, s.cancel = context.WithCancel(s.t.Context())
	defer s.cancel()
	if a.before != nil {
		a.before(s)
	}
	return s.WithSession(s.ctx, func(tx *thole.Tx) error {
		if err := s.add(tx, s.id); err != nil {
			return err
		}
		return a.fn(s, tx)
	})
}

func (s *soakSession) add(q thole.Querier, id int) error {
	_, err := q.ExecContext(s.ctx, "insert into item (id, name) values (?, ?)", id, fmt.Sprint(id))
	return err
}

// act is what a session does after it has added its item, and what becomes of
// that.
type act struct {
	name   string
	fn     func(s *soakSession, tx *thole.Tx) error
	before func(s *soakSession)
	kept   bool
	either bool // kept says nothing, the error does
	leaves bool // by a panic or by Goexit
}

var acts = []act{
	{name: "success", kept: true, fn: func(*soakSession, *thole.Tx) error { return nil }},
	{name: "error", fn: func(*soakSession, *thole.Tx) error { return errFn }},
	{name: "panic", leaves: true, fn: func(*soakSession, *thole.Tx) error { panic(errFn) }},
	{name: "Goexit", leaves: true, fn: func(*soakSession, *thole.Tx) error { runtime.Goexit(); return nil }},
	{name: "panic in a hook", leaves: true, kept: true, fn: func(_ *soakSession, tx *thole.Tx) error {
		tx.OnCommit(func(context.Context) { panic(errFn) })
		return nil
	}},
	{name: "done before", before: func(s *soakSession) { s.cancel() }, fn: func(*soakSession, *thole.Tx) error { return nil }},
	{name: "done between", fn: func(s *soakSession, _ *thole.Tx) error { s.cancel(); return nil }},
	{name: "rows open", fn: func(s *soakSession, tx *thole.Tx) error {
		rows, err := tx.QueryContext(s.ctx, "select id from item limit 20")
		if err == nil {
			rows.Next()
		}
		return err
	}},
	{name: "rows broken off", kept: true, fn: func(s *soakSession, tx *thole.Tx) error {
		rows, err := tx.QueryContext(s.ctx, "select id from item limit 20")
		if err != nil {
			return err
		}
		rows.Next()
		return rows.Close()
	}},
	{name: "nested", kept: true, fn: (*soakSession).nest},
	{name: "joined", fn: func(s *soakSession, tx *thole.Tx) error {
		_ = tx.WithSessionOptions(s.ctx, join, func(*thole.Tx) error { return errFn })
		return nil
	}},
	{name: "constraint", fn: func(s *soakSession, tx *thole.Tx) error { return s.add(tx, s.id) }},
	{name: "COMMIT", fn: func(s *soakSession, tx *thole.Tx) error {
		_, err := tx.ExecContext(s.ctx, "insert into part (id, item) values (?, -1)", s.id)
		return err
	}},
	{name: "control", fn: func(s *soakSession, tx *thole.Tx) error { _, _ = tx.ExecContext(s.ctx, "commit"); return nil }},
	{name: "prepared", kept: true, fn: func(s *soakSession, tx *thole.Tx) error {
		stmt, err := tx.PrepareContext(s.ctx, "select count(*) from item where id = ?")
		if err != nil {
			return err
		}
		return stmt.QueryRowContext(s.ctx, s.id).Scan(new(int))
	}},
	{name: "view", kept: true, fn: func(s *soakSession, tx *thole.Tx) error {
		return tx.Sqlx().GetContext(s.ctx, new(int), "select count(*) from item where id = ?", s.id)
	}},
}

// nest opens sessions inside, and returns nil whatever becomes of them.
func (s *soakSession) nest(tx *thole.Tx) error {
	for i := range 1 + s.rnd.IntN(3) {
		recovered(func() {
			_ = tx.WithSession(s.ctx, func(inner *thole.Tx) error {
				if err := s.add(inner, -s.id); err != nil { // never kept
					s.t.Error(err)
				}
				switch (s.id + i) % 4 {
				case 0:
					panic(errFn)
				case 1:
					return s.add(inner, s.id)
				case 2:
					_, err := inner.QueryContext(s.ctx, "select id from item limit 20") //nolint:rowserrcheck,sqlclosecheck // left open
					return err
				}
				return errFn
			})
		})
	}
	return nil
}

// slowActs wait for something inside the database.
var slowActs = []act{
	{name: "done in a statement", fn: func(s *soakSession, tx *thole.Tx) error {
		time.AfterFunc(time.Duration(s.rnd.IntN(5))*time.Millisecond, s.cancel)
		_, err := tx.ExecContext(s.ctx, "with recursive n (i) as (select 1 union all select i + 1 from n) select count(*) from n")
		return err
	}},
	{name: "done at some time", either: true, before: func(s *soakSession) {
		time.AfterFunc(time.Duration(s.rnd.IntN(3000))*time.Microsecond, s.cancel)
	}, fn: func(s *soakSession, tx *thole.Tx) error {
		return tx.GetContext(s.ctx, new(int), "select count(*) from item")
	}},
	{name: "endless rows", fn: func(s *soakSession, tx *thole.Tx) error {
		_, err := tx.QueryContext(s.ctx, many)
		return err
	}},
	{name: "goroutine", fn: func(s *soakSession, tx *thole.Tx) error {
		begun := make(chan struct{})
		go func() {
			close(begun)
			_ = tx.WithSession(s.ctx, func(inner *thole.Tx) error { return s.add(inner, -s.id) })
		}()
		<-begun
		return errFn
	}},
}

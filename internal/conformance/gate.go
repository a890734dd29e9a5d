package conformance

import (
	"context"
	"database/sql/driver"
	"sync"
	"testing"

	"modernc.org/sqlite"

	"github.com/tholedb/thole"
)

// gate stops a statement, or a COMMIT, inside the database until it is opened.
// On PostgreSQL it is a lock that another session holds, on SQLite a function
// of the program's.
type gate struct {
	statement string // stands before the gate

	mu    sync.Mutex
	conns []sqlite.HookRegisterer // SQLite's

	reached chan struct{} // SQLite's function has been called
	opened  chan struct{}
	waiting func() bool // somebody stands before it

	reaching, opening sync.Once
}

// gate reopens the database with a gate in it, through which COMMIT goes freely.
func (w *world) gate(t *testing.T, change ...func(*thole.Config)) (*world, *gate) {
	t.Helper()
	g := &gate{reached: make(chan struct{}), opened: make(chan struct{})}
	var at *world
	if w.Engine() == thole.Postgres {
		at = w.reopen(t, change...)
		g.lock(t, w)
	} else {
		at = w.reopen(t, append(change, g.register)...)
		g.statement = "select gate()"
		g.waiting = func() bool { return isClosed(g.reached) }
	}
	t.Cleanup(g.open)
	return at, g
}

// lock takes the lock in a session of its own.
func (g *gate) lock(t *testing.T, w *world) {
	t.Helper()
	g.statement = "select pg_advisory_xact_lock(1)"
	g.waiting = func() bool {
		return w.value(t, "select count(*) from pg_locks l join pg_database d on d.oid = l.database "+
			"where d.datname = current_database() and l.locktype = 'advisory' and not l.granted") != "0"
	}
	held := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- w.WithSession(context.WithoutCancel(t.Context()), func(tx *thole.Tx) error {
			_, err := tx.ExecContext(tx.Context(), g.statement)
			close(held)
			<-g.opened
			return err
		})
	}()
	<-held
	t.Cleanup(func() {
		if err := <-ended; err != nil {
			t.Errorf("hold the gate: %v", err)
		}
	})
}

// register makes the function.
func (g *gate) register(cfg *thole.Config) {
	cfg.SQLite.Driver = func(d *sqlite.Driver) error {
		d.RegisterConnectionHook(func(conn sqlite.ExecQuerierContext, _ string) error {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.conns = append(g.conns, conn.(sqlite.HookRegisterer))
			return nil
		})
		return d.RegisterScalarFunction("gate", 0, func(*sqlite.FunctionContext, []driver.Value) (driver.Value, error) {
			g.pass()
			return int64(1), nil
		})
	}
}

// pass stands before the gate.
func (g *gate) pass() {
	g.reaching.Do(func() { close(g.reached) })
	<-g.opened
}

// close puts the gate before each COMMIT of a session that adds an item. On
// SQLite it takes the place of thole's commit hook.
func (g *gate) close(t *testing.T, w *world) {
	t.Helper()
	if w.Engine() != thole.Postgres {
		g.mu.Lock()
		defer g.mu.Unlock()
		for _, conn := range g.conns {
			conn.RegisterCommitHook(func() int32 { g.pass(); return 0 })
		}
		return
	}
	// Deferred, the trigger runs inside COMMIT.
	w.exec(t, `create function stand() returns trigger language plpgsql as
		$$ begin perform pg_advisory_xact_lock(1); return null; end $$`)
	w.exec(t, `create constraint trigger stand after insert on item deferrable initially deferred
		for each row execute function stand()`)
}

// wait returns when somebody stands before the gate.
func (g *gate) wait(t *testing.T) {
	t.Helper()
	eventually(t, "a statement stands before the gate", g.waiting)
}

// open lets everybody through. It may be called again.
func (g *gate) open() { g.opening.Do(func() { close(g.opened) }) }

// endless runs a statement that ends only when ctx does, and calls cancel when
// it has begun.
func (g *gate) endless(t *testing.T, ctx context.Context, tx *thole.Tx, cancel func()) error {
	t.Helper()
	query := g.statement
	if tx.Engine() != thole.Postgres {
		query = "with recursive n (i) as (select gate() union all select i + 1 from n) select count(*) from n"
	}
	return g.run(t, ctx, tx, cancel, query)
}

// endlessWrite is endless with a statement that writes.
func (g *gate) endlessWrite(t *testing.T, ctx context.Context, tx *thole.Tx, cancel func()) error {
	t.Helper()
	query := "insert into item (id, name) select 1, pg_advisory_xact_lock(1)::text"
	if tx.Engine() != thole.Postgres {
		query = "with recursive n (i) as (select gate() union all select i + 1 from n) insert into item (id, name) select i, i from n"
	}
	return g.run(t, ctx, tx, cancel, query)
}

func (g *gate) run(t *testing.T, ctx context.Context, tx *thole.Tx, cancel func(), query string) error {
	t.Helper()
	ended := make(chan error, 1)
	go func() {
		_, err := tx.ExecContext(ctx, query)
		ended <- err
	}()
	defer cancel()
	g.wait(t)
	cancel()
	if tx.Engine() != thole.Postgres {
		g.open() // SQLite is interrupted behind it
	}
	return receive(t, ended)
}

// Package conformance holds an engine against what must hold of sessions. Each
// subtest is named after the sentence that it tests; the list stands in
// README.md here. A difference between the engines is named in the test.
package conformance

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tholedb/thole"
)

// Target is an engine under test.
type Target struct {
	// URL is that of an empty database for one test; nil for a sandbox.
	URL func(tb testing.TB) string

	// Sandbox says that the databases are sandboxes of dbtest, on this engine. What
	// they are not held against stands in sandbox.go.
	Sandbox thole.Engine

	// Pooled says that PgBouncer pools transactions in front of PostgreSQL. A
	// client's connection to it outlives the server's, and a session's
	// statements find another server process than those of the last session.
	Pooled bool
}

// sentence is a sentence and its test.
type sentence struct {
	name string
	test func(t *testing.T, w *world)
}

// Run holds target against every sentence.
func Run(t *testing.T, target Target) {
	t.Helper()
	for _, section := range [][]sentence{outcome, contexts, nesting, retries, statements, hooks, ambiguity, ownership, embedded, poolers, server, binding, deadlock} {
		for _, s := range section {
			if !target.holds(s.name) {
				continue
			}
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				s.test(t, newWorld(t, target))
			})
		}
	}
}

// clauses is the test of a sentence in parts, each with a world of its own.
func clauses(parts ...sentence) func(t *testing.T, w *world) {
	return func(t *testing.T, w *world) {
		sentence := sentenceOf(t)
		for i, part := range parts {
			if !w.target.holds(sentence + "/" + part.name) {
				continue
			}
			t.Run(part.name, func(t *testing.T) {
				t.Parallel()
				own := w
				if i > 0 {
					own = newWorld(t, w.target)
				}
				part.test(t, own)
			})
		}
	}
}

// world is a database of a test's own, with the tables of the suite.
type world struct {
	*thole.DB
	witness *thole.DB // sees what is committed
	target  Target
	url     string
	log     *logBook
}

const schema = `
create table if not exists item (id integer primary key, name text not null unique, note text);
create table if not exists part (id integer primary key, item integer references item (id) deferrable initially deferred);`

func newWorld(t *testing.T, target Target) *world {
	t.Helper()
	w := &world{target: target, log: new(logBook)}
	if target.Sandbox == "" {
		w.url = target.URL(t)
	}
	w.DB = w.open(t)
	w.witness = w.DB
	return w
}

// reopen is the world with its database opened once more, with another
// configuration. One in memory is another database then.
func (w *world) reopen(t *testing.T, change ...func(*thole.Config)) *world {
	t.Helper()
	again := &world{DB: w.open(t, change...), witness: w.witness, target: w.target, url: w.url, log: w.log}
	if w.inMemory() {
		again.witness = again.DB
	}
	return again
}

func (w *world) inMemory() bool { return w.url == "sqlite://" || w.target.Sandbox != "" }

// open opens the test's database once more, with another configuration. One in
// memory is another database then.
func (w *world) open(t *testing.T, change ...func(*thole.Config)) *thole.DB {
	t.Helper()
	configure := func(cfg *thole.Config) {
		cfg.Logger = slog.New(w.log)
		for _, change := range change {
			change(cfg)
		}
	}
	var db *thole.DB
	if w.target.Sandbox != "" {
		db = w.sandbox(t, configure)
	} else {
		db = w.connect(t, configure)
	}
	err := db.WithSession(t.Context(), func(tx *thole.Tx) error {
		_, err := tx.ExecContext(tx.Context(), schema)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func (w *world) connect(t *testing.T, configure func(*thole.Config)) *thole.DB {
	t.Helper()
	cfg, err := thole.ParseURL(w.url)
	if err != nil {
		t.Fatal(err)
	}
	configure(cfg)
	db, err := thole.OpenConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close database: %v", err)
		}
	})
	return db
}

// insert adds an item.
func insert(ctx context.Context, q thole.Querier, id int) error {
	_, err := q.ExecContext(ctx, "insert into item (id, name) values (?, ?)", id, "item "+string(rune('a'+id)))
	return err
}

// wantItems checks, on another connection, which items are in the database.
func (w *world) wantItems(t *testing.T, want ...int) {
	t.Helper()
	got := []int{}
	if err := w.witness.SelectContext(context.WithoutCancel(t.Context()), &got, "select id from item order by id"); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) && len(got)+len(want) > 0 {
		t.Errorf("items in the database: got %v, want %v", got, want)
	}
}

// wantIs checks that err matches each target.
func wantIs(t *testing.T, err error, targets ...error) {
	t.Helper()
	for _, target := range targets {
		if !errors.Is(err, target) {
			t.Errorf("got error %v, want one that is %v", err, target)
		}
	}
}

// wantOutcome checks what the error says of the session.
func wantOutcome(t *testing.T, err error, want thole.Outcome) {
	t.Helper()
	if got := thole.OutcomeOf(err); got != want {
		t.Errorf("got outcome %v of error %v, want %v", got, err, want)
	}
}

// logBook keeps what the library logs.
type logBook struct {
	slog.Handler
	mu      sync.Mutex
	entries []string
}

// Enabled is always true.
func (l *logBook) Enabled(context.Context, slog.Level) bool { return true }

// Handle keeps the message.
func (l *logBook) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, r.Message)
	return nil
}

// messages returns what was logged.
func (l *logBook) messages() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.entries)
}

// awaitLog waits until a message is logged.
func (w *world) awaitLog(t *testing.T, message string) {
	t.Helper()
	eventually(t, "the log has "+message, func() bool { return slices.Contains(w.log.messages(), message) })
}

// single leaves a pool one connection.
func single(cfg *thole.Config) {
	if cfg.Postgres != nil {
		cfg.Postgres.MaxConns = 1
	} else {
		cfg.SQLite.Readers = 1
	}
}

// exec runs a statement outside any session.
func (w *world) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	if _, err := w.ExecContext(context.WithoutCancel(t.Context()), query, args...); err != nil {
		t.Fatal(err)
	}
}

// value is the first column of a query's first row.
func (w *world) value(t *testing.T, query string, args ...any) string {
	t.Helper()
	var value string
	if err := w.GetContext(context.WithoutCancel(t.Context()), &value, query, args...); err != nil {
		t.Fatal(err)
	}
	return value
}

// connection says which connection a session has now: with a pool of one, and
// on SQLite, where one connection writes, it tells whether that was replaced.
func (w *world) connection(t *testing.T) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	id, err := thole.WithSession(ctx, w, func(tx *thole.Tx) (id string, err error) {
		if tx.Engine() == thole.Postgres {
			err = tx.GetContext(tx.Context(), &id, "select "+w.whose())
			return id, err
		}
		// A temporary table ends with its connection.
		const name = `create temp table if not exists self (id text);
			insert into self select hex(randomblob(8)) where not exists (select 1 from self)`
		if _, err := tx.ExecContext(tx.Context(), name); err != nil {
			return "", err
		}
		err = tx.GetContext(tx.Context(), &id, "select id from self")
		return id, err
	})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// whose is the expression that tells PostgreSQL's connections apart: the process
// at the other end. Behind a pooler that is anybody's, and what the session's
// pool has is the connection to the pooler, which puts its address into
// application_name.
func (w *world) whose() string {
	if w.target.Pooled {
		return "current_setting('application_name')"
	}
	return "pg_backend_pid()"
}

// backend is PostgreSQL's process that runs a session.
func backend(t *testing.T, tx *thole.Tx) string {
	t.Helper()
	var pid string
	if err := tx.GetContext(tx.Context(), &pid, "select pg_backend_pid()"); err != nil {
		t.Error(err)
	}
	return pid
}

// terminate ends a process of PostgreSQL's from outside.
func (w *world) terminate(t *testing.T, pid string) {
	t.Helper()
	w.value(t, "select pg_terminate_backend(?::text::int)", pid)
	w.awaitExit(t, pid)
}

// awaitExit waits until PostgreSQL has ended a process.
func (w *world) awaitExit(t *testing.T, pid string) {
	t.Helper()
	eventually(t, "the server has ended the process", func() bool {
		return w.value(t, "select count(*) from pg_stat_activity where pid::text = ?", pid) == "0"
	})
}

// awaitEnd waits until PostgreSQL has ended what runs on a connection. Behind a
// pooler the process may live on, with nothing to do.
func (w *world) awaitEnd(t *testing.T, connection string) {
	t.Helper()
	query := "select count(*) from pg_stat_activity where pid::text = ?"
	if w.target.Pooled {
		query = "select count(*) from pg_stat_activity where application_name = ? and state <> 'idle'"
	}
	eventually(t, "the server has ended what runs on the connection", func() bool {
		return w.value(t, query, connection) == "0"
	})
}

// ledger keeps which hooks ran, and why OnRollback's did.
type ledger struct {
	ran   []string
	cause error
}

// register adds a hook of each kind.
func (l *ledger) register(tx *thole.Tx) {
	tx.BeforeCommit(func(context.Context) error { l.ran = append(l.ran, "before"); return nil })
	tx.OnCommit(func(context.Context) { l.ran = append(l.ran, "commit") })
	tx.OnRollback(func(_ context.Context, cause error) { l.ran, l.cause = append(l.ran, "rollback"), cause })
}

// want checks which hooks ran.
func (l *ledger) want(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(l.ran, want) {
		t.Errorf("hooks that ran: got %q, want %q", l.ran, want)
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// eventually waits until what is so.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

// bounded is a ctx that ends a test which waits in vain.
func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	t.Cleanup(cancel)
	return ctx
}

// receive waits for a value.
func receive[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatal("waited in vain for a goroutine")
		panic("unreachable")
	}
}

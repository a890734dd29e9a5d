package conformance

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"modernc.org/sqlite"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/link"
)

// embedded is section I: what is SQLite's own. On PostgreSQL the same calls show
// what holds there in its place.
var embedded = []sentence{
	{"I1", clauses(
		sentence{"write", writersTakeTurns},
		sentence{"read", readersDoNotWait},
	)},
	{"I2", readOnlyStays},
	{"I3", unknownLevelIsRefused},
	{"I4", waitForWriterIsBounded},
	{"I6", clauses(
		sentence{"shared", oneDatabaseForAll},
		sentence{"interrupted", databaseOutlivesInterrupt},
	)},
	{"I7", everyConnectionIsSetUp},
	{"I8", leftOpenTransaction},
}

// writersTakeTurns looks at how a session that writes begins. On PostgreSQL two
// of them go on side by side.
func writersTakeTurns(t *testing.T, w *world) {
	if w.Engine() == thole.Postgres {
		err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
			return errors.Join(insert(t.Context(), tx, 1), insert(t.Context(), w, 2))
		})
		if err != nil {
			t.Errorf("got error %v, want nil: nobody waits", err)
		}
		w.wantItems(t, 1, 2)
		return
	}
	var running, most int // guarded by the writer
	var all sync.WaitGroup
	for id := range 20 {
		all.Go(func() {
			err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
				if err := begin(tx); err != nil {
					return err
				}
				running++
				most = max(most, running)
				time.Sleep(time.Millisecond)
				running--
				return insert(t.Context(), tx, id)
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if most != 1 {
		t.Errorf("%d sessions had the writer at once, want 1", most)
	}
	if w.inMemory() { // nobody else can open it
		return
	}
	other := w.reopen(t, impatient, func(cfg *thole.Config) { cfg.Session.MaxAttempts = 1 })
	err := w.WithSession(t.Context(), func(tx *thole.Tx) error { // has the lock before it writes
		if err := begin(tx); err != nil {
			return err
		}
		wantIs(t, other.WithSession(t.Context(), begin), thole.ErrLocked)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// readersDoNotWait reads beside a session that has written. In memory there is
// one connection, and readers wait for it.
func readersDoNotWait(t *testing.T, w *world) {
	read := func(ctx context.Context) (items int, err error) {
		err = w.WithSessionOptions(ctx, thole.SessionOptions{ReadOnly: true, LockTimeout: 50 * time.Millisecond}, func(tx *thole.Tx) error {
			return tx.GetContext(ctx, &items, "select count(*) from item")
		})
		return items, err
	}
	err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
		if err := insert(t.Context(), tx, 1); err != nil {
			return err
		}
		items, err := read(t.Context())
		if w.inMemory() {
			wantIs(t, err, thole.ErrNested)
			return nil
		}
		if err != nil || items != 0 {
			t.Errorf("got %d items and error %v, want none of the session that is open, and no wait", items, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if items, err := read(t.Context()); err != nil || items != 1 {
		t.Errorf("got %d items and error %v, want the one that was committed", items, err)
	}
}

// readOnlyStays tries to switch the guard off first.
func readOnlyStays(t *testing.T, w *world) {
	off := "pragma query_only = 0"
	if w.Engine() == thole.Postgres {
		off = "set transaction read write"
	}
	reading := thole.SessionOptions{ReadOnly: true}
	err := w.WithSessionOptions(t.Context(), reading, func(tx *thole.Tx) error {
		if _, err := tx.ExecContext(t.Context(), off); err == nil { // aborts the transaction on PostgreSQL
			t.Errorf("%s: got no error", off)
		}
		return insert(t.Context(), tx, 1)
	})
	if !errors.Is(err, thole.ErrReadOnly) && !errors.Is(err, thole.ErrTxAborted) {
		t.Errorf("got error %v, want %v, or what %q has done", err, thole.ErrReadOnly, off)
	}
	wantIs(t, w.WithSessionOptions(t.Context(), reading, func(tx *thole.Tx) error { return insert(t.Context(), tx, 1) }), thole.ErrReadOnly)
	w.wantItems(t)
}

// unknownLevelIsRefused before anything is sent. SQLite gives every level that
// it accepts by being serializable.
func unknownLevelIsRefused(t *testing.T, w *world) {
	on, o := w.observe(t)
	for _, opts := range []thole.SessionOptions{
		{Isolation: sql.LevelLinearizable},
		{Isolation: sql.LevelWriteCommitted},
		{Deferrable: true},
		{Deferrable: true, ReadOnly: true, Isolation: sql.LevelRepeatableRead},
	} {
		err := on.WithSessionOptions(t.Context(), opts, func(*thole.Tx) error { t.Error("fn ran"); return nil })
		wantIs(t, err, errors.ErrUnsupported)
	}
	if sent := o.control(); len(sent) > 0 {
		t.Errorf("sent %q, want nothing", sent)
	}
	for _, level := range []sql.IsolationLevel{sql.LevelReadUncommitted, sql.LevelReadCommitted, sql.LevelRepeatableRead, sql.LevelSnapshot, sql.LevelSerializable} {
		if err := on.WithSessionOptions(t.Context(), thole.SessionOptions{Isolation: level}, func(*thole.Tx) error { return nil }); err != nil {
			t.Errorf("%s: got error %v, want nil", level, err)
		}
	}
}

// waitForWriterIsBounded by LockTimeout and by ctx. On PostgreSQL it is a row
// that is waited for.
func waitForWriterIsBounded(t *testing.T, w *world) {
	w.exec(t, "insert into item (id, name) values (1, 'one')")
	update := func(ctx context.Context, opts thole.SessionOptions) error {
		return w.WithSessionOptions(ctx, opts, func(tx *thole.Tx) error {
			_, err := tx.ExecContext(ctx, "update item set note = 'x' where id = 1")
			return err
		})
	}
	err := w.WithSessionOptions(t.Context(), thole.SessionOptions{Label: "holder"}, func(tx *thole.Tx) error {
		if _, err := tx.ExecContext(t.Context(), "update item set note = 'y' where id = 1"); err != nil {
			return err
		}
		waits := make(chan error, 2)
		go func() {
			waits <- update(t.Context(), thole.SessionOptions{LockTimeout: 20 * time.Millisecond})
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(200*time.Millisecond, func() { cancel(errCause) })
			waits <- update(ctx, thole.SessionOptions{LockTimeout: time.Hour})
		}()
		locked, cancelled := receive(t, waits), receive(t, waits)
		wantIs(t, locked, thole.ErrLocked)
		wantIs(t, cancelled, context.Canceled, errCause)
		if w.Engine() != thole.Postgres {
			for _, err := range []error{locked, cancelled} {
				wantText(t, err, `session "holder" opened at conformance/engines.go:`, "s ago holds it")
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func oneDatabaseForAll(t *testing.T, w *world) {
	var all sync.WaitGroup
	for id := range 20 {
		all.Go(func() {
			if err := insert(t.Context(), w, id); err != nil {
				t.Error(err)
			}
			var items int
			err := w.WithSessionOptions(t.Context(), thole.SessionOptions{ReadOnly: true}, func(tx *thole.Tx) error {
				return tx.GetContext(t.Context(), &items, "select count(*) from item where id = ?", id)
			})
			if err != nil || items != 1 {
				t.Errorf("got %d items and error %v, want the one that was added", items, err)
			}
		})
	}
	all.Wait()
	if n := w.value(t, "select count(*) from item"); n != "20" {
		t.Errorf("got %s items, want 20", n)
	}
}

// databaseOutlivesInterrupt interrupts a statement of each kind.
func databaseOutlivesInterrupt(t *testing.T, w *world) {
	for name, stop := range map[string]func(g *gate, ctx context.Context, tx *thole.Tx, cancel func()) error{
		"read": func(g *gate, ctx context.Context, tx *thole.Tx, cancel func()) error {
			return g.endless(t, ctx, tx, cancel)
		},
		"write": func(g *gate, ctx context.Context, tx *thole.Tx, cancel func()) error {
			return g.endlessWrite(t, ctx, tx, cancel)
		},
	} {
		on, g := w.gate(t)
		on.exec(t, "delete from item")
		on.exec(t, "insert into item (id, name) values (-1, 'before')")
		err := on.WithSession(t.Context(), func(tx *thole.Tx) error {
			ctx, cancel := context.WithCancel(tx.Context())
			return stop(g, ctx, tx, cancel)
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got error %v, want %v", name, err, context.Canceled)
		}
		g.open()
		if err := insert(t.Context(), on, 1); err != nil {
			t.Errorf("%s: got error %v, want nil: the next session works", name, err)
		}
		on.wantItems(t, -1, 1)
	}
}

// everyConnectionIsSetUp reads the settings on as many connections as there are
// at once. PostgreSQL's are what the server says.
func everyConnectionIsSetUp(t *testing.T, w *world) {
	settings := map[string]string{"pragma foreign_keys": "1", "pragma synchronous": "2", "pragma busy_timeout": "10000", "pragma temp_store": "2"}
	reading, connections := thole.SessionOptions{ReadOnly: true}, 4
	switch {
	case w.Engine() == thole.Postgres:
		settings = map[string]string{"show transaction_read_only": "on"}
	case w.inMemory():
		connections = 1
		settings["pragma query_only"], settings["pragma busy_timeout"] = "1", "0"
	default:
		settings["pragma query_only"], settings["pragma journal_mode"] = "1", "wal"
	}
	var inside, all sync.WaitGroup
	inside.Add(connections)
	for range connections {
		all.Go(func() {
			err := w.WithSessionOptions(t.Context(), reading, func(tx *thole.Tx) error {
				inside.Done()
				inside.Wait()
				return wantValues(t, tx, settings)
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if w.Engine() == thole.Postgres {
		return
	}
	settings["pragma query_only"], settings["pragma busy_timeout"] = "0", "0" // it asks for the lock by itself
	if err := w.WithSession(t.Context(), func(tx *thole.Tx) error { return wantValues(t, tx, settings) }); err != nil {
		t.Error(err)
	}
}

func wantValues(t *testing.T, tx *thole.Tx, settings map[string]string) error {
	t.Helper()
	for query, want := range settings {
		var got string
		if err := tx.GetContext(tx.Context(), &got, query); err != nil {
			return err
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", query, got, want)
		}
	}
	return nil
}

// leftOpenTransaction is begun behind the back of thole, on SQLite by what a
// connection hook was given, on PostgreSQL by a text that only the server reads
// as BEGIN.
func leftOpenTransaction(t *testing.T, w *world) {
	var mu sync.Mutex
	var raw []sqlite.ExecQuerierContext
	on := w.reopen(t, func(cfg *thole.Config) {
		if cfg.SQLite == nil {
			cfg.Postgres.MaxConns = 1
			return
		}
		cfg.SQLite.Readers = 1
		cfg.SQLite.Driver = func(d *sqlite.Driver) error {
			d.RegisterConnectionHook(func(conn sqlite.ExecQuerierContext, _ string) error {
				mu.Lock()
				defer mu.Unlock()
				raw = append(raw, conn)
				return nil
			})
			return nil
		}
	})
	if w.Engine() == thole.Postgres {
		_, err := on.ExecContext(t.Context(), "set standard_conforming_strings = off")
		if err != nil {
			t.Error(err)
		}
		_, err = on.ExecContext(t.Context(), `select 1; select '\''; commit; begin; insert into item (id, name) values (9, ''); select '`+"'")
		wantIs(t, err, thole.ErrTxControl)
	}
	read := func() error {
		return on.WithSessionOptions(t.Context(), thole.SessionOptions{ReadOnly: true}, func(tx *thole.Tx) error {
			return tx.GetContext(t.Context(), new(int), "select count(*) from item")
		})
	}
	if err := read(); err != nil { // there is a reader now
		t.Error(err)
	}
	leave := func() {
		for _, conn := range raw {
			if _, err := conn.ExecContext(t.Context(), "begin; select count(*) from item", nil); err != nil {
				t.Error(err)
			}
		}
	}
	leave()
	for name, run := range map[string]func() error{
		"read": read, "write": func() error {
			return on.WithSession(t.Context(), func(tx *thole.Tx) error { return insert(t.Context(), tx, 1) })
		},
	} {
		if err := run(); err != nil {
			t.Errorf("%s: got error %v, want nil: what was left open is rolled back", name, err)
		}
	}
	leave()
	on.exec(t, "insert into item (id, name) values (2, '')")
	var items int
	if err := on.GetContext(t.Context(), &items, "select count(*) from item"); err != nil || items != 2 {
		t.Errorf("read outside a session: got %d items and error %v, want 2, not what there was when the transaction was begun", items, err)
	}
	const said = "thole: a transaction was left open on a connection, and is rolled back"
	if w.Engine() != thole.Postgres && !slices.Contains(w.log.messages(), said) {
		t.Errorf("logged %q, want %q", w.log.messages(), said)
	}
}

// server is the rest of section J: what PostgreSQL does to sessions. On SQLite
// there is no server, and the same sessions just work.
var server = []sentence{
	{"J2", clauses(
		sentence{"session", serverEndsSession},
		sentence{"idle", serverEndsIdleConnection},
	)},
	{"J3", deferrableReachesServer},
	{"J4", clauses(
		sentence{"refused", refusedBeginKeepsConnection},
		sentence{"network", lostBeginIsReplaced},
	)},
	{"J5", endOfServerAtCommit},
	{"J6", clauses(
		sentence{"DDL", schemaChangesAreTransactional},
		sentence{"outside", whatSessionsCannotDo},
	)},
}

// serverEndsSession has the server end the connection while fn does nothing, in
// several ways. Through a pooler the code is the pooler's own. On SQLite nobody
// ends it.
func serverEndsSession(t *testing.T, w *world) {
	if w.Engine() != thole.Postgres {
		err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
			first := insert(t.Context(), tx, 1)
			time.Sleep(20 * time.Millisecond) // twice as long as PostgreSQL has
			return errors.Join(first, insert(t.Context(), tx, 2))
		})
		if err != nil {
			t.Errorf("got error %v, want nil", err)
		}
		w.wantItems(t, 1, 2)
		return
	}
	on := w.reopen(t, single)
	for name, c := range map[string]struct {
		code string
		end  func(tx *thole.Tx, pid string) error
	}{
		"idle": {"25P03", func(tx *thole.Tx, pid string) error {
			_, err := tx.ExecContext(t.Context(), "set local idle_in_transaction_session_timeout = 10")
			w.awaitExit(t, pid)
			return err
		}},
		"terminated": {"57P01", func(_ *thole.Tx, pid string) error {
			w.terminate(t, pid)
			return nil
		}},
	} {
		for _, nothing := range []bool{false, true} { // is what fn does behind the end
			err := on.WithSession(t.Context(), func(tx *thole.Tx) error {
				if err := errors.Join(insert(t.Context(), tx, 1), c.end(tx, backend(t, tx))); err != nil {
					t.Error(err)
				}
				if nothing {
					return nil
				}
				return insert(t.Context(), tx, 2)
			})
			var told *thole.Error
			if !errors.As(err, &told) || !w.target.Pooled && told.Code != c.code && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%s: got error %v, want code %s, or that the server was gone before it could be read", name, err, c.code)
			}
			if nothing { // COMMIT was sent, and the server may have ended before it or in it
				wantUnknown(t, err)
			} else {
				wantIs(t, err, thole.ErrConnLost)
				wantOutcome(t, err, thole.RolledBack)
			}
			w.wantItems(t)
			if err := on.WithSession(t.Context(), func(tx *thole.Tx) error { return tx.GetContext(t.Context(), new(int), "select 1") }); err != nil {
				t.Errorf("%s: the next session: got error %v, want nil", name, err)
			}
		}
	}
}

// serverEndsIdleConnection has the server end a connection that lies in the pool
// (57P05): the next session begins on another. A pooler's connections to the
// server are its own, and SQLite's end only with the DB.
func serverEndsIdleConnection(t *testing.T, w *world) {
	on := w.reopen(t, single)
	if w.Engine() == thole.Postgres && !w.target.Pooled {
		process := on.connection(t)
		on.exec(t, "set idle_session_timeout = 10")
		w.awaitExit(t, process)
	}
	if err := on.WithSession(t.Context(), func(tx *thole.Tx) error { return insert(t.Context(), tx, 1) }); err != nil {
		t.Errorf("got error %v, want nil", err)
	}
	on.wantItems(t, 1)
}

// deferrableReachesServer asks the server. SQLite's readers read from one
// snapshot as they are.
func deferrableReachesServer(t *testing.T, w *world) {
	opts := thole.SessionOptions{ReadOnly: true, Isolation: sql.LevelSerializable, Deferrable: true}
	err := w.WithSessionOptions(t.Context(), opts, func(tx *thole.Tx) error {
		if tx.Engine() != thole.Postgres {
			return tx.GetContext(t.Context(), new(int), "select count(*) from item")
		}
		return wantValues(t, tx, map[string]string{
			"show transaction_read_only": "on", "show transaction_isolation": "serializable", "show transaction_deferrable": "on",
		})
	})
	if err != nil {
		t.Errorf("got error %v, want nil", err)
	}
}

// refusedBeginKeepsConnection has the server refuse what goes with BEGIN. On
// SQLite what is refused is refused before.
func refusedBeginKeepsConnection(t *testing.T, w *world) {
	opts := thole.SessionOptions{Settings: map[string]string{"work_mem": "nonsense"}}
	on := w.reopen(t, single)
	id := on.connection(t)
	err := on.WithSessionOptions(t.Context(), opts, begin)
	if err == nil || errors.Is(err, thole.ErrConnLost) {
		t.Errorf("got error %v, want that of the setting", err)
	}
	if now := on.connection(t); now != id {
		t.Errorf("the session has connection %s, want %s as before", now, id)
	}
}

// lostBeginIsReplaced cuts the connection that lies in the pool: BEGIN, which
// had no effect, goes out on another one.
func lostBeginIsReplaced(t *testing.T, w *world) {
	add := func(at *world) error {
		return at.WithSession(t.Context(), func(tx *thole.Tx) error { return insert(t.Context(), tx, 1) })
	}
	if w.Engine() != thole.Postgres {
		if err := add(w); err != nil {
			t.Error(err)
		}
		return
	}
	on, l := w.link(t, single)
	on.exec(t, "select 1")
	l.Cut()
	if err := add(on); err != nil {
		t.Errorf("got error %v, want nil on a new connection", err)
	}
	w.wantItems(t, 1)
	for name, harm := range map[string]func(*link.Link){
		"unreachable":          (*link.Link).Freeze,
		"lost again and again": func(l *link.Link) { l.EatLater("begin") },
	} {
		on, l := w.link(t, single)
		on.exec(t, "select 1")
		harm(l)
		opts := thole.SessionOptions{Timeout: 200 * time.Millisecond, MaxAttempts: 2}
		err := on.WithSessionOptions(t.Context(), opts, begin)
		if !errors.Is(err, thole.ErrConnLost) {
			t.Errorf("%s: got error %v, want %v", name, err, thole.ErrConnLost)
		}
		wantOutcome(t, err, thole.RolledBack)
	}
	w.wantItems(t, 1)
}

// endOfServerAtCommit terminates the backend in COMMIT, and has a trigger fail
// there: the one is unknown, the other is not.
func endOfServerAtCommit(t *testing.T, w *world) {
	if w.Engine() != thole.Postgres {
		wantDefinite(t, w)
		return
	}
	on, g := w.gate(t, single)
	g.close(t, on)
	ended, process := make(chan error, 1), make(chan string, 1)
	go func() {
		ended <- on.WithSession(t.Context(), func(tx *thole.Tx) error {
			process <- backend(t, tx)
			return insert(t.Context(), tx, 1)
		})
	}()
	g.wait(t)
	w.terminate(t, receive(t, process))
	wantUnknown(t, receive(t, ended))
	g.open()
	w.wantItems(t)
	failureAtCommit(t, newWorld(t, w.target))
}

func schemaChangesAreTransactional(t *testing.T, w *world) {
	change := func(end error) error {
		return w.WithSession(t.Context(), func(tx *thole.Tx) error {
			for _, text := range []string{
				"create table other (id integer primary key)", "alter table item add column extra text", "create index by_note on item (note)",
				"insert into item (id, name, extra) values (1, 'one', 'more')", "drop table part",
			} {
				if _, err := tx.ExecContext(t.Context(), text); err != nil {
					return fmt.Errorf("%s: %w", text, err)
				}
			}
			return end
		})
	}
	wantIs(t, change(errFn), errFn)
	w.wantItems(t)
	w.exec(t, "insert into part (id, item) values (1, null)") // it is there again
	if err := change(nil); err != nil {
		t.Errorf("got error %v, want nil", err)
	}
	if got := w.value(t, "select extra from item"); got != "more" {
		t.Errorf("got %q, want the new column", got)
	}
}

func whatSessionsCannotDo(t *testing.T, w *world) {
	text := "create index concurrently by_note on item (note)"
	if w.Engine() != thole.Postgres {
		text = "vacuum"
	}
	err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
		_, err := tx.ExecContext(t.Context(), text)
		return err
	})
	wantIs(t, err, errors.ErrUnsupported)
	if err == nil || !strings.Contains(err.Error(), "run it on the DB, outside") {
		t.Errorf("got error %v, want it to say where it works", err)
	}
	w.exec(t, text)
}

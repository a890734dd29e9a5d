package conformance

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/link"
	"github.com/tholedb/thole/internal/testdb"
)

// idempotency is rule E2: a session's effects happen once for each key.
var idempotency = clauses(
	sentence{"again", keyIsUsedOnce},
	sentence{"failed", failedKeyIsFree},
	sentence{"gone", goneKeyIsFree},
	sentence{"answer lost", answerIsFoundOut},
	sentence{"still running", runningCommitIsAwaited},
	sentence{"COMMIT lost", lostCommitRunsAgain},
	sentence{"always lost", lostCommitsEnd},
	sentence{"ctx has ended", lostCommitAfterCtx},
	sentence{"no answer", unansweredIsUnknown},
	sentence{"standby", unreplicatedKey},
	sentence{"at once", callsAtOnce},
	sentence{"serializable", keysUnderContention},
	sentence{"table", tableIsMade},
	sentence{"no right", tableNeedsRight},
	sentence{"search_path", tableBySearchPath},
	sentence{"round trips", keyIsOneRoundTrip},
	sentence{"purge", oldKeysGo},
	sentence{"nested", nestedKey},
	sentence{"options", keyOptions},
)

// withKey are the options of a session with a key.
func withKey(key string) thole.SessionOptions { return thole.SessionOptions{IdempotencyKey: key} }

// wantKeys checks which keys are in the database.
func (w *world) wantKeys(t *testing.T, want ...string) {
	t.Helper()
	query := "select coalesce((select string_agg(key, ' ' order by key) from thole_idempotency_keys), '')"
	if w.Engine() != thole.Postgres {
		query = "select coalesce(group_concat(key, ' '), '') from (select key from thole_idempotency_keys order by key)"
	}
	if got := (&world{DB: w.witness}).value(t, query); got != strings.Join(want, " ") {
		t.Errorf("keys in the database: got %q, want %q", got, want)
	}
}

// wantAlready checks that err says that an earlier call has committed.
func wantAlready(t *testing.T, err error) {
	t.Helper()
	wantIs(t, err, thole.ErrAlreadyCommitted)
	wantOutcome(t, err, thole.Committed)
	if errors.Is(err, thole.ErrCommitUnknown) {
		t.Errorf("got error %v, want it not to be %v", err, thole.ErrCommitUnknown)
	}
}

// keyIsUsedOnce calls three times with one key, and once with another.
func keyIsUsedOnce(t *testing.T, w *world) {
	var hooks ledger
	ran := 0
	call := func(key string) (int, error) {
		return thole.WithSessionOptions(t.Context(), w, withKey(key), func(tx *thole.Tx) (int, error) {
			ran++
			hooks.register(tx)
			return ran, insert(tx.Context(), tx, ran)
		})
	}
	if got, err := call("a"); got != 1 || err != nil {
		t.Errorf("first call: got %d, error %v, want 1, nil", got, err)
	}
	for range 2 {
		got, err := call("a")
		wantAlready(t, err)
		if got != 0 || ran != 1 {
			t.Errorf("same key: got %d, and fn ran %d times in all, want 0 and once", got, ran)
		}
	}
	if got, err := call("b"); got != 2 || err != nil {
		t.Errorf("another key: got %d, error %v, want 2, nil", got, err)
	}
	hooks.want(t, "before", "commit", "before", "commit")
	w.wantItems(t, 1, 2)
	w.wantKeys(t, "a", "b")
}

// failedKeyIsFree ends sessions in each way that is not a commit, and then has
// one with the same key commit.
func failedKeyIsFree(t *testing.T, w *world) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ends := map[string]func(tx *thole.Tx) error{
		"error":   func(*thole.Tx) error { return errFn },
		"panic":   func(*thole.Tx) error { panic(errFn) },
		"goexit":  func(*thole.Tx) error { runtime.Goexit(); return nil },
		"ctx":     func(*thole.Tx) error { cancel(); return nil },
		"refused": func(tx *thole.Tx) error { tx.BeforeCommit(func(context.Context) error { return errFn }); return nil },
		"COMMIT": func(tx *thole.Tx) error {
			_, err := tx.ExecContext(tx.Context(), "insert into part (id, item) values (1, 99)")
			return err
		},
	}
	for name, end := range ends {
		var hooks ledger
		in := t.Context()
		if name == "ctx" {
			in = ctx
		}
		var ended sync.WaitGroup
		ended.Go(func() {
			recovered(func() {
				err := w.WithSessionOptions(in, withKey(name), func(tx *thole.Tx) error {
					tx.OnRollback(func(context.Context, error) { hooks.ran = append(hooks.ran, "rollback") })
					tx.OnCommit(func(context.Context) { hooks.ran = append(hooks.ran, "commit") })
					return errors.Join(insert(t.Context(), tx, 1), end(tx))
				})
				wantOutcome(t, err, thole.RolledBack)
			})
		})
		ended.Wait()
		hooks.want(t, "rollback")
		w.wantItems(t)
		w.wantKeys(t)
	}
	for name := range ends {
		err := w.WithSessionOptions(t.Context(), withKey(name), func(*thole.Tx) error { return nil })
		if err != nil {
			t.Errorf("%s, called again: got error %v, want nil", name, err)
		}
	}
}

// onFailure calls a function when a session has failed.
type onFailure struct {
	*logBook
	call func()
}

// Handle implements [slog.Handler].
func (f *onFailure) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "thole: a session failed" {
		f.call()
	}
	return f.logBook.Handle(ctx, r)
}

// goneKeyIsFree deletes a key after it could not be written, and before it is
// asked whose it is. A failover does so, too.
func goneKeyIsFree(t *testing.T, w *world) {
	failed := &onFailure{logBook: w.log}
	on := w.reopen(t, func(cfg *thole.Config) { cfg.Logger = slog.New(failed) })
	failed.call = func() { on.exec(t, "delete from thole_idempotency_keys") }
	on.exec(t, keyTable)
	on.exec(t, "insert into thole_idempotency_keys (key, attempt) values ('a', 'x')")
	ran, err := on.count(t, withKey("a"), func(tx *thole.Tx) error { return insert(tx.Context(), tx, 1) })
	wantRan(t, "gone", ran, err, 1, nil)
	on.wantItems(t, 1)
	on.wantKeys(t, "a")
}

// wantDefiniteKey is what there is to see on SQLite, where no answer gets lost: a
// COMMIT that fails leaves no key, and the error says so. A disk that fails under
// COMMIT is in package faults.
func wantDefiniteKey(t *testing.T, w *world) {
	t.Helper()
	err := w.WithSessionOptions(t.Context(), withKey("a"), func(tx *thole.Tx) error {
		_, err := tx.ExecContext(t.Context(), "insert into part (id, item) values (1, 99)")
		return err
	})
	wantIs(t, err, thole.ErrForeignKey)
	wantOutcome(t, err, thole.RolledBack)
	w.wantKeys(t)
}

// makeTable has the table made.
func (w *world) makeTable(t *testing.T) {
	t.Helper()
	if err := w.WithSessionOptions(t.Context(), withKey("first"), func(*thole.Tx) error { return nil }); err != nil {
		t.Fatal(err)
	}
	w.exec(t, "delete from thole_idempotency_keys")
}

// answerIsFoundOut loses the answer to COMMIT, which has happened.
func answerIsFoundOut(t *testing.T, w *world) {
	if w.Engine() != thole.Postgres {
		wantDefiniteKey(t, w)
		return
	}
	w.makeTable(t)
	on, l := w.link(t, single)
	var hooks ledger
	ran, err := on.count(t, withKey("a"), func(tx *thole.Tx) error {
		l.Eat("commit")
		hooks.register(tx)
		return insert(tx.Context(), tx, 1)
	})
	wantRan(t, "answer lost", ran, err, 1, nil)
	hooks.want(t, "before", "commit")
	wantAlready(t, on.WithSessionOptions(t.Context(), withKey("a"), func(*thole.Tx) error { t.Error("fn ran"); return nil }))
	w.wantItems(t, 1)
	w.wantKeys(t, "a")
}

// runningCommitIsAwaited loses the connection while the server is at COMMIT, and
// has it finish when it is asked. A question at a stricter level, which can be the
// server's default, would fail then; PgBouncer takes no such setting.
func runningCommitIsAwaited(t *testing.T, w *world) {
	if w.Engine() != thole.Postgres {
		wantDefiniteKey(t, w)
		return
	}
	w.makeTable(t)
	l := new(link.Link)
	on, g := w.gate(t, single, standing(l), func(cfg *thole.Config) {
		if !w.target.Pooled {
			cfg.Postgres.ConnConfig.RuntimeParams["default_transaction_isolation"] = "repeatable read"
		}
	})
	g.close(t, w)
	// pgx asks the server to cancel what runs on a connection that it has lost, and
	// the server may signal that twice.
	w.exec(t, `create or replace function stand() returns trigger language plpgsql as
		$$ begin loop begin perform pg_advisory_xact_lock(1); return null;
		exception when query_canceled then null; end; end loop; end $$`)
	go func() {
		g.wait(t)
		l.Cut()
		eventually(t, "it is asked", func() bool {
			return w.value(t, "select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'transactionid'") == "1"
		})
		g.open()
	}()
	var hooks ledger
	logged := len(w.log.messages())
	ran, err := on.count(t, withKey("a"), func(tx *thole.Tx) error {
		hooks.register(tx)
		return insert(tx.Context(), tx, 1)
	})
	wantRan(t, "still running", ran, err, 1, nil)
	if slices.Contains(w.log.messages()[logged:], "thole: a session failed") {
		t.Error("the question failed, want it to wait for its answer")
	}
	hooks.want(t, "before", "commit")
	w.wantItems(t, 1)
	w.wantKeys(t, "a")
}

// loseCommit has the next COMMIT get lost on its way to the server, upon which
// then is called.
func loseCommit(l *link.Link, then func()) {
	lost := false
	l.Judge(func(m link.Message) link.Fate {
		if lost || !m.Sent || m.Type != 'E' || m.Text != "commit" {
			return link.Fate{}
		}
		lost = true
		then()
		return link.Fate{Ends: link.Before}
	})
}

// lostCommitRunsAgain loses the first COMMIT.
func lostCommitRunsAgain(t *testing.T, w *world) {
	if w.Engine() != thole.Postgres {
		wantDefiniteKey(t, w)
		return
	}
	w.makeTable(t)
	on, l := w.link(t, single)
	var hooks ledger
	ran, err := on.count(t, withKey("a"), func(tx *thole.Tx) error {
		hooks.register(tx)
		if tx.Attempt() == 1 {
			loseCommit(l, func() {})
		}
		return insert(tx.Context(), tx, tx.Attempt())
	})
	wantRan(t, "COMMIT lost", ran, err, 2, nil)
	hooks.want(t, "before", "rollback", "before", "commit")
	w.wantItems(t, 2)
	w.wantKeys(t, "a")
}

// lostCommitsEnd loses each COMMIT.
func lostCommitsEnd(t *testing.T, w *world) {
	if w.Engine() != thole.Postgres {
		wantDefiniteKey(t, w)
		return
	}
	w.makeTable(t)
	on, l := w.link(t, single)
	for allowed, want := range map[int]int{0: 5, 2: 5, 6: 6} {
		opts := withKey("a")
		opts.MaxAttempts = allowed
		ran, err := on.count(t, opts, func(tx *thole.Tx) error {
			loseCommit(l, func() {})
			return insert(tx.Context(), tx, 1)
		})
		wantRan(t, fmt.Sprintf("MaxAttempts %d", allowed), ran, err, want, thole.ErrTxAborted)
		wantOutcome(t, err, thole.RolledBack)
		if errors.Is(err, thole.ErrCommitUnknown) {
			t.Errorf("got error %v, want it not to be %v", err, thole.ErrCommitUnknown)
		}
		wantText(t, err, fmt.Sprintf("after %d attempts", want))
	}
	w.wantItems(t)
	w.wantKeys(t)
}

// lostCommitAfterCtx ends ctx while COMMIT gets lost: there is no other attempt.
func lostCommitAfterCtx(t *testing.T, w *world) {
	if w.Engine() != thole.Postgres {
		wantDefiniteKey(t, w)
		return
	}
	w.makeTable(t)
	on, l := w.link(t, single)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var hooks ledger
	ran := 0
	err := on.WithSessionOptions(ctx, withKey("a"), func(tx *thole.Tx) error {
		ran++
		hooks.register(tx)
		loseCommit(l, cancel)
		return insert(tx.Context(), tx, 1)
	})
	wantRan(t, "ctx has ended", ran, err, 1, context.Canceled)
	wantOutcome(t, err, thole.RolledBack)
	hooks.want(t, "before", "rollback")
	w.wantItems(t)
	w.wantKeys(t)
}

// unansweredIsUnknown loses what is answered to the question, too, until the
// program gives up.
func unansweredIsUnknown(t *testing.T, w *world) {
	if w.Engine() != thole.Postgres {
		wantDefiniteKey(t, w)
		return
	}
	w.makeTable(t)
	on, l := w.link(t, single)
	var hooks ledger
	closed := make(chan error, 1)
	ran, err := on.count(t, withKey("a"), func(tx *thole.Tx) error {
		hooks.register(tx)
		tx.BeforeCommit(func(context.Context) error {
			l.EatLater("ON CONFLICT")
			l.Eat("commit")
			mark := l.Mark()
			go func() {
				eventually(t, "it is asked twice", func() bool { return strings.Count(l.Since(mark), "ON CONFLICT") > 1 })
				closed <- on.Close()
			}()
			return nil
		})
		return insert(tx.Context(), tx, 1)
	})
	wantRan(t, "no answer", ran, err, 1, thole.ErrCommitUnknown)
	wantUnknown(t, err)
	hooks.want(t, "before")
	if err := receive(t, closed); err != nil {
		t.Error(err)
	}
	wantAlready(t, w.WithSessionOptions(t.Context(), withKey("a"), func(*thole.Tx) error { t.Error("fn ran"); return nil }))
	w.wantItems(t, 1)
}

// unreplicatedKey has the server commit, and say that its standby has not got
// it: that the key is there is no answer then. No pooler stands before that
// server.
func unreplicatedKey(t *testing.T, w *world) {
	switch {
	case w.Engine() != thole.Postgres:
		wantDefiniteKey(t, w)
		return
	case w.target.Pooled:
		answerIsFoundOut(t, w)
		return
	}
	own := newWorld(t, Target{URL: testdb.PostgresWaiting})
	own.makeTable(t)
	on := own.reopen(t, func(cfg *thole.Config) { cfg.Postgres.ConnConfig.RuntimeParams["synchronous_commit"] = "on" })
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	done := own.endWaits(t)
	err := on.WithSessionOptions(ctx, withKey("a"), func(tx *thole.Tx) error { return insert(tx.Context(), tx, 1) })
	wantUnknown(t, err)
	err = on.WithSessionOptions(t.Context(), withKey("a"), func(*thole.Tx) error { t.Error("fn ran"); return nil })
	done()
	if err == nil || errors.Is(err, thole.ErrAlreadyCommitted) || errors.Is(err, thole.ErrCommitUnknown) {
		t.Errorf("called again: got error %v, want one that is neither nil, %v nor %v", err, thole.ErrAlreadyCommitted, thole.ErrCommitUnknown)
	}
	own.wantItems(t, 1)
	wantAlready(t, own.WithSessionOptions(t.Context(), withKey("a"), func(*thole.Tx) error { t.Error("fn ran"); return nil }))
}

// endWaits ends each wait for a standby, until done is called.
func (w *world) endWaits(t *testing.T) (done func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() {
		for ctx.Err() == nil {
			w.value(t, "select count(pg_cancel_backend(pid)) from pg_stat_activity where datname = current_database() and wait_event = 'SyncRep'")
			time.Sleep(5 * time.Millisecond)
		}
	})
	return func() { cancel(); all.Wait() }
}

// callsAtOnce has a call come while another with the same key is running.
func callsAtOnce(t *testing.T, w *world) {
	w.makeTable(t)
	for end, want := range map[error]int{nil: 1, errFn: 2} {
		var ran atomic.Int32
		second := make(chan error, 1)
		call := func(after func() error) error {
			return w.WithSessionOptions(t.Context(), withKey("a"), func(tx *thole.Tx) error {
				ran.Add(1)
				if err := insert(t.Context(), tx, int(ran.Load())); err != nil {
					return err
				}
				return after()
			})
		}
		first := call(func() error {
			go func() { second <- call(func() error { return nil }) }()
			w.awaitWaiting(t)
			return end
		})
		if !errors.Is(first, end) {
			t.Errorf("first call: got error %v, want %v", first, end)
		}
		err := receive(t, second)
		if end == nil {
			wantAlready(t, err)
		} else if err != nil {
			t.Errorf("second call: got error %v, want nil", err)
		}
		if got := ran.Load(); got != int32(want) {
			t.Errorf("first call ended with %v: fn ran %d times, want %d", end, got, want)
		}
		w.wantItems(t, want)
		w.wantKeys(t, "a")
		w.exec(t, "delete from item")
		w.exec(t, "delete from thole_idempotency_keys")
	}
}

// awaitWaiting waits until a session waits for another. On SQLite nobody can see
// that, and it makes no difference whether it does yet.
func (w *world) awaitWaiting(t *testing.T) {
	t.Helper()
	if w.Engine() != thole.Postgres {
		time.Sleep(10 * time.Millisecond)
		return
	}
	eventually(t, "the second call waits", func() bool {
		return w.value(t, "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'") == "1"
	})
}

// keysUnderContention calls several times with each key, in sessions that get in
// each other's way.
func keysUnderContention(t *testing.T, w *world) {
	const keys, calls = 8, 3
	w.exec(t, "insert into item (id, name, note) values (1, 'count', '0')")
	var all sync.WaitGroup
	var committed atomic.Int32
	for key := range keys {
		for range calls {
			all.Go(func() {
				opts := thole.SessionOptions{IdempotencyKey: fmt.Sprint(key), Isolation: sql.LevelSerializable, MaxAttempts: 1000}
				err := w.WithSessionOptions(bounded(t), opts, func(tx *thole.Tx) error {
					_, err := tx.ExecContext(tx.Context(), "update item set note = cast(cast(note as integer) + 1 as text) where id = 1")
					return err
				})
				if err == nil {
					committed.Add(1)
				} else {
					wantAlready(t, err)
				}
			})
		}
	}
	all.Wait()
	if n := w.value(t, "select note from item"); n != fmt.Sprint(keys) || committed.Load() != keys {
		t.Errorf("the count is %s and %d calls returned nil, want %d each", n, committed.Load(), keys)
	}
}

// tableIsMade has many sessions of two programs need the table at once.
func tableIsMade(t *testing.T, w *world) {
	programs := []*world{w, w.reopen(t)}
	if w.inMemory() { // each is another database
		programs[1] = w
	}
	const sessions = 16
	var all sync.WaitGroup
	var want []int
	for i := range sessions {
		want = append(want, i)
		all.Go(func() {
			ran, err := programs[i%2].count(t, withKey(fmt.Sprint("key ", i)), func(tx *thole.Tx) error { return insert(tx.Context(), tx, i) })
			wantRan(t, "at once", ran, err, 1, nil)
		})
	}
	all.Wait()
	w.wantItems(t, want...)
	w.exec(t, "drop table thole_idempotency_keys")
	ran, err := w.count(t, withKey("key 1"), func(tx *thole.Tx) error { return insert(tx.Context(), tx, sessions) })
	wantRan(t, "dropped", ran, err, 1, nil)
	w.wantKeys(t, "key 1")
}

// tableNeedsRight has a role run the session that may not make tables. SQLite has
// no roles.
func tableNeedsRight(t *testing.T, w *world) {
	if w.Engine() != thole.Postgres {
		wantNoSettings(t, w)
		return
	}
	const role = "thole_keys"
	name := role + w.value(t, "select substr(md5(current_database()), 1, 8)")
	w.exec(t, "revoke create on schema public from public; create role "+name+"; grant all on item to "+name)
	t.Cleanup(func() { w.exec(t, "drop owned by "+name+"; drop role "+name) })
	opts := withKey("a")
	opts.Settings = map[string]string{"role": name}
	err := w.WithSessionOptions(t.Context(), opts, func(*thole.Tx) error { t.Error("fn ran"); return nil })
	wantText(t, err, "42501", "migration", "CREATE TABLE IF NOT EXISTS thole_idempotency_keys")
	wantOutcome(t, err, thole.RolledBack)
	w.makeTable(t)
	err = w.WithSessionOptions(t.Context(), opts, func(*thole.Tx) error { t.Error("fn ran"); return nil })
	wantText(t, err, "42501", "permission denied for table")
	w.exec(t, "grant select, insert, update, delete on thole_idempotency_keys to "+name)
	add := func(tx *thole.Tx) error { return insert(tx.Context(), tx, 1) }
	if err := w.WithSessionOptions(t.Context(), opts, add); err != nil {
		t.Errorf("with the right: got error %v, want nil", err)
	}
	wantAlready(t, w.WithSessionOptions(t.Context(), opts, add))
}

// tableBySearchPath gives each tenant keys of his own. SQLite has no Settings.
func tableBySearchPath(t *testing.T, w *world) {
	if w.Engine() != thole.Postgres {
		wantNoSettings(t, w)
		return
	}
	w.exec(t, "create schema one; create schema two")
	for i, tenant := range []string{"one", "two"} {
		opts := withKey("a")
		opts.Settings = map[string]string{"search_path": tenant + ", public"}
		add := func(tx *thole.Tx) error { return insert(tx.Context(), tx, i) }
		if err := w.WithSessionOptions(t.Context(), opts, add); err != nil {
			t.Errorf("%s: got error %v, want nil", tenant, err)
		}
		wantAlready(t, w.WithSessionOptions(t.Context(), opts, add))
	}
	w.wantItems(t, 0, 1)
	if n := w.value(t, "select count(*) from pg_class where relname = 'thole_idempotency_keys'"); n != "2" {
		t.Errorf("got %s tables, want one for each tenant", n)
	}
}

// keyIsOneRoundTrip counts those of a session with a key and without, whose
// statements the connection knows. SQLite has none.
func keyIsOneRoundTrip(t *testing.T, w *world) {
	if w.Engine() != thole.Postgres {
		keyIsUsedOnce(t, w)
		return
	}
	w.makeTable(t)
	on, l := w.link(t, single)
	next := 0
	trips := func(opts thole.SessionOptions) int {
		next++
		mark := l.Mark()
		if err := on.WithSessionOptions(t.Context(), opts, func(tx *thole.Tx) error { return insert(t.Context(), tx, next) }); err != nil {
			t.Error(err)
		}
		return l.RoundTrips(mark)
	}
	mark := l.Mark()
	trips(withKey("a"))
	eventually(t, "the first session has old keys deleted", func() bool { return strings.Contains(l.Since(mark), "E DELETE") })
	trips(withKey("b")) // the only connection is back
	without, with := trips(thole.SessionOptions{}), trips(withKey("c"))
	if with != without+1 {
		t.Errorf("got %d round trips with a key and %d without, want one more", with, without)
	}
}

// keyTable is the table as a migration makes it.
const keyTable = `create table thole_idempotency_keys (
	key text not null primary key, attempt text not null, at timestamptz not null default current_timestamp)`

// oldKeysGo has old keys there when the first session with a key commits, and
// another one when the second does: that is in the same hour.
func oldKeysGo(t *testing.T, w *world) {
	w.exec(t, keyTable)
	age := func(key string, days int) {
		w.exec(t, "insert into thole_idempotency_keys (key, attempt, at) values (?, 'x', ?)", key, time.Now().AddDate(0, 0, -days))
	}
	commit := func(key string) {
		if err := w.WithSessionOptions(t.Context(), withKey(key), func(*thole.Tx) error { return nil }); err != nil {
			t.Error(err)
		}
	}
	age("old", 8)
	age("older", 1000)
	age("young", 6)
	commit("first")
	eventually(t, "the old keys are deleted", func() bool {
		return w.value(t, "select count(*) from thole_idempotency_keys") == "2"
	})
	w.wantKeys(t, "first", "young")
	age("late", 365)
	commit("second")
	if err := w.Close(); err != nil { // waits for what runs in the background
		t.Error(err)
	}
	if slices.Contains(w.log.messages(), "thole: idempotency keys were not purged") {
		t.Error("it began to purge twice in an hour")
	}
	if !w.inMemory() {
		w = w.reopen(t)
		w.witness = w.DB
		w.wantKeys(t, "first", "late", "second", "young")
	}
}

// nestedKey asks for a key in a nested session of each kind.
func nestedKey(t *testing.T, w *world) {
	refused := func(*thole.Tx) error { t.Error("fn ran"); return nil }
	for _, nested := range []thole.Nesting{thole.NestedSavepoint, thole.NestedJoin, thole.NestedForbidden} {
		opts := withKey("a")
		opts.Nested = nested
		err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
			wantIs(t, tx.WithSessionOptions(t.Context(), opts, refused), thole.ErrNested, errors.ErrUnsupported)
			wantIs(t, w.WithSessionOptions(tx.Context(), opts, refused), thole.ErrNested, errors.ErrUnsupported)
			return insert(t.Context(), tx, int(nested))
		})
		if err != nil {
			t.Errorf("session around it: got error %v, want nil", err)
		}
		opts.IdempotencyKey = fmt.Sprint(nested)
		err = w.WithSessionOptions(t.Context(), opts, func(tx *thole.Tx) error {
			return tx.WithSession(t.Context(), func(tx *thole.Tx) error { return insert(t.Context(), tx, 10+int(nested)) })
		})
		if err != nil {
			t.Errorf("with a session inside: got error %v, want nil", err)
		}
	}
	w.wantItems(t, 0, 1, 2, 10, 11, 12)
}

// keyOptions are refused before anything is sent.
func keyOptions(t *testing.T, w *world) {
	refused := func(*thole.Tx) error { t.Error("fn ran"); return nil }
	reads := withKey("a")
	reads.ReadOnly = true
	wantIs(t, w.WithSessionOptions(t.Context(), reads, refused), errors.ErrUnsupported)
	for name, key := range map[string]string{
		"NUL": "s3cr3t\x00", "not UTF-8": "s3cr3t\xff", "too long": "s3cr3t" + strings.Repeat("x", 507),
	} {
		err := w.WithSessionOptions(t.Context(), withKey(key), refused)
		if err == nil || strings.Contains(err.Error(), "s3cr3t") || !strings.Contains(err.Error(), "IdempotencyKey") {
			t.Errorf("%s: got error %v, want one about the IdempotencyKey, and not with it", name, err)
		}
	}
	if err := w.WithSessionOptions(t.Context(), withKey(strings.Repeat("x", 512)), func(*thole.Tx) error { return nil }); err != nil {
		t.Errorf("longest key: got error %v, want nil", err)
	}
	cfg, err := thole.ParseURL(w.url)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Session.IdempotencyKey = "a"
	if db, err := thole.OpenConfig(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "IdempotencyKey") {
		t.Errorf("Config.Session with a key: got error %v, want one about it", err)
		_ = db.Close()
	}
}

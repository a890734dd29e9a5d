package conformance

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/link"
	"github.com/tholedb/thole/internal/testdb"
)

// retries is section D: when fn runs again.
var retries = []sentence{
	{"D1", clauses(
		sentence{"failures", curableFailures},
		sentence{"lost", lostConnection},
		sentence{"first flight", lostBeforeFirst},
		sentence{"busy", busyAtBegin},
	)},
	{"D2", clauses(
		sentence{"failures", incurableFailures},
		sentence{"contexts", endedContexts},
		sentence{"unknown", unknownCommit},
		sentence{"hooks", afterHooks},
	)},
	{"D3", attemptsByIsolation},
	{"D4", clauses(
		sentence{"pauses", pausesAreRandom},
		sentence{"holds nothing", pauseHoldsNothing},
		sentence{"cancelled", pauseEndsWithCtx},
		sentence{"too late", pauseBeyondDeadline},
	)},
	{"D5", attemptsAreFresh},
	{"D6", exhaustion},
	{"D7", clauses(
		sentence{"statement", serializationInFn},
		sentence{"COMMIT", serializationAtCommit},
	)},
	{"D8", clauses(
		sentence{"panic", panicRunsOnce},
		sentence{"nested", nestedAttempts},
	)},
}

// curable gives a function that fails in a session with what a new attempt can
// cure: on PostgreSQL a serialization failure, on SQLite the lock of another
// database, which somebody else holds.
func (w *world) curable(t *testing.T) (fail func(tx *thole.Tx) error, kind error) {
	t.Helper()
	if w.Engine() == thole.Postgres {
		return func(tx *thole.Tx) error { return raise(tx, "40001") }, thole.ErrSerialization
	}
	busy := busyError(t)
	return func(*thole.Tx) error { return busy }, thole.ErrLocked
}

// raise makes PostgreSQL fail with a SQLSTATE.
func raise(tx *thole.Tx, code string) error {
	_, err := tx.ExecContext(tx.Context(), "do $$ begin raise exception using errcode = '"+code+"'; end $$")
	return err
}

// busyError is what a session is told when another process holds SQLite's lock.
func busyError(t *testing.T) error {
	t.Helper()
	var busy error
	w := newWorld(t, Target{URL: testdb.SQLite})
	other := w.reopen(t)
	w.hold(t, func() {
		opts := thole.SessionOptions{LockTimeout: time.Millisecond, MaxAttempts: 1}
		busy = other.WithSessionOptions(t.Context(), opts, begin)
	})
	wantIs(t, busy, thole.ErrLocked)
	return busy
}

// hold calls f while a session has SQLite's lock.
func (w *world) hold(t *testing.T, f func()) {
	t.Helper()
	err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
		defer f()
		return begin(tx)
	})
	if err != nil {
		t.Error(err)
	}
}

// begin sends a statement, with the first of which a session begins.
func begin(tx *thole.Tx) error {
	_, err := tx.ExecContext(tx.Context(), "select 1")
	return err
}

// count runs a session whose fn returns what fail does, each time, and returns
// how often it ran.
func (w *world) count(t *testing.T, opts thole.SessionOptions, fail func(tx *thole.Tx) error) (ran int, err error) {
	t.Helper()
	err = w.WithSessionOptions(t.Context(), opts, func(tx *thole.Tx) error {
		if ran++; tx.Attempt() != ran {
			t.Errorf("Attempt: got %d, want %d", tx.Attempt(), ran)
		}
		return fail(tx)
	})
	return ran, err
}

// wantRan checks how often fn ran and what the session was told.
func wantRan(t *testing.T, name string, ran int, err error, want int, kind error) {
	t.Helper()
	if ran != want || !errors.Is(err, kind) {
		t.Errorf("%s: fn ran %d times and the error is %v, want %d times and %v", name, ran, err, want, kind)
	}
}

// curableFailures are what the engine says a new attempt can cure. SQLite has
// one of them, see also the clause "busy".
func curableFailures(t *testing.T, w *world) {
	failures := map[string]error{"40001": thole.ErrSerialization, "40P01": thole.ErrDeadlock, "55P03": thole.ErrLocked}
	fail := func(code string) func(tx *thole.Tx) error {
		return func(tx *thole.Tx) error { return raise(tx, code) }
	}
	if w.Engine() != thole.Postgres {
		busy, _ := w.curable(t)
		failures = map[string]error{"busy": thole.ErrLocked}
		fail = func(string) func(tx *thole.Tx) error { return busy }
	}
	for name, kind := range failures {
		for _, allowed := range []int{1, 3} {
			ran, err := w.count(t, thole.SessionOptions{MaxAttempts: allowed}, fail(name))
			wantRan(t, name, ran, err, allowed, kind)
		}
		ran, err := w.count(t, thole.SessionOptions{MaxAttempts: 3}, func(tx *thole.Tx) error {
			if tx.Attempt() == 1 {
				return fail(name)(tx)
			}
			return insert(tx.Context(), tx, 1)
		})
		wantRan(t, name, ran, err, 2, nil)
		w.wantItems(t, 1)
		w.exec(t, "delete from item")
	}
}

// lostConnection has the server end the connection in the middle of fn. SQLite
// has no connection to lose.
func lostConnection(t *testing.T, w *world) {
	if w.Engine() != thole.Postgres {
		curableFailures(t, w)
		return
	}
	on := w.reopen(t, single)
	lose := func(tx *thole.Tx) error {
		if err := insert(tx.Context(), tx, tx.Attempt()); err != nil {
			t.Error(err)
		}
		w.terminate(t, backend(t, tx))
		return insert(tx.Context(), tx, 9)
	}
	ran, err := on.count(t, thole.SessionOptions{}, lose)
	wantRan(t, "by default", ran, err, 1, thole.ErrConnLost)
	ran, err = on.count(t, thole.SessionOptions{MaxAttempts: 2}, lose)
	wantRan(t, "always lost", ran, err, 2, thole.ErrConnLost)
	ran, err = on.count(t, thole.SessionOptions{MaxAttempts: 2}, func(tx *thole.Tx) error {
		if tx.Attempt() == 1 {
			return lose(tx)
		}
		return insert(tx.Context(), tx, 2)
	})
	wantRan(t, "lost once", ran, err, 2, nil)
	on.wantItems(t, 2)
}

// lostBeforeFirst has the server end the connections while they are idle.
// SQLite's have no other side, and a pooler keeps its clients': there they break.
func lostBeforeFirst(t *testing.T, w *world) {
	l := new(link.Link)
	on := w.reopen(t, single, standing(l))
	id := on.connection(t)
	switch {
	case w.target.Pooled:
		l.Cut()
	case w.Engine() == thole.Postgres:
		w.terminate(t, id)
	}
	ran, err := on.count(t, thole.SessionOptions{MaxAttempts: 1}, func(tx *thole.Tx) error {
		return insert(tx.Context(), tx, 1)
	})
	wantRan(t, "idle connection lost", ran, err, 1, nil)
	on.wantItems(t, 1)
	if now := on.connection(t); (now == id) == (w.Engine() == thole.Postgres) {
		t.Errorf("the session had connection %s after %s", now, id)
	}
}

// busyAtBegin has another process, as it seems to SQLite, hold the lock for
// writing. There is no other process for a database in memory, whose fn returns
// such an error, and none that PostgreSQL would wait for: there a lock is not
// waited for again unless the options ask for it.
func busyAtBegin(t *testing.T, w *world) {
	switch {
	case w.Engine() == thole.Postgres:
		ran, err := w.count(t, thole.SessionOptions{}, func(tx *thole.Tx) error { return raise(tx, "55P03") })
		wantRan(t, "55P03", ran, err, 1, thole.ErrLocked)
	case w.inMemory():
		fail, _ := w.curable(t)
		ran, err := w.count(t, thole.SessionOptions{}, fail)
		wantRan(t, "busy", ran, err, 5, thole.ErrLocked)
	default:
		other := w.reopen(t)
		w.hold(t, func() {
			for allowed, attempts := range map[int]int{0: 5, 2: 2} {
				opts := thole.SessionOptions{LockTimeout: time.Millisecond, MaxAttempts: allowed}
				ran, err := other.count(t, opts, begin)
				want := fmt.Sprintf("after %d attempts", attempts)
				wantRan(t, want, ran, err, attempts, thole.ErrLocked)
				if !strings.Contains(err.Error(), want) {
					t.Errorf("MaxAttempts %d: got error %q, want %q in it", allowed, err, want)
				}
			}
		})
	}
}

// incurableFailures are tried once, whatever the options ask for.
func incurableFailures(t *testing.T, w *world) {
	opts := thole.SessionOptions{Isolation: sql.LevelSerializable, MaxAttempts: 3}
	unique := func(tx *thole.Tx) error {
		_, err := tx.ExecContext(tx.Context(), "insert into item (id, name) values (1, 'a'), (1, 'b')")
		return err
	}
	ran, err := w.count(t, opts, unique)
	wantRan(t, "unique", ran, err, 1, thole.ErrUnique)
	ran, err = w.count(t, opts, func(*thole.Tx) error { return errFn })
	wantRan(t, "fn's own", ran, err, 1, errFn)
	ran, err = w.count(t, opts, func(tx *thole.Tx) error {
		_, err := tx.ExecContext(tx.Context(), "commit")
		return err
	})
	wantRan(t, "control", ran, err, 1, thole.ErrTxControl)
	if w.Engine() != thole.Postgres { // has no aborted transactions
		return
	}
	ran, err = w.count(t, opts, func(tx *thole.Tx) error { return raise(tx, "25P02") })
	wantRan(t, "25P02", ran, err, 1, thole.ErrTxAborted)
	ran, err = w.count(t, opts, func(tx *thole.Tx) error { _ = unique(tx); return nil })
	wantRan(t, "swallowed", ran, err, 1, thole.ErrTxAborted)
}

// endedContexts are not cured by anything that stands beside them.
func endedContexts(t *testing.T, w *world) {
	fail, _ := w.curable(t)
	opts := thole.SessionOptions{MaxAttempts: 3}
	for _, ended := range []error{context.Canceled, context.DeadlineExceeded} {
		ran, err := w.count(t, opts, func(*thole.Tx) error { return fmt.Errorf("call: %w", ended) })
		wantRan(t, "alone", ran, err, 1, ended)
		ran, err = w.count(t, opts, func(tx *thole.Tx) error { return errors.Join(fail(tx), ended) })
		wantRan(t, "beside a failure", ran, err, 1, ended)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := 0
	err := w.WithSessionOptions(ctx, opts, func(tx *thole.Tx) error {
		ran++
		cancel()
		return insert(ctx, tx, 1)
	})
	wantRan(t, "the session's", ran, err, 1, context.Canceled)
}

// unknownCommit loses the answer to COMMIT. On SQLite it can't get lost.
func unknownCommit(t *testing.T, w *world) {
	if w.Engine() != thole.Postgres {
		incurableFailures(t, w)
		return
	}
	on, l := w.link(t, single)
	opts := thole.SessionOptions{Isolation: sql.LevelSerializable, MaxAttempts: 3}
	ran, unknown := on.count(t, opts, func(tx *thole.Tx) error {
		l.Eat("commit")
		return insert(tx.Context(), tx, 1)
	})
	wantRan(t, "outermost", ran, unknown, 1, thole.ErrCommitUnknown)
	wantOutcome(t, unknown, thole.Unknown)
	on.wantItems(t, 1)
	// Nor in the session around it, on another database perhaps.
	ran, err := w.count(t, opts, func(tx *thole.Tx) error { return errors.Join(unknown, raise(tx, "40001")) })
	wantRan(t, "returned by fn", ran, err, 1, thole.ErrCommitUnknown)
	// A connection that is cut before COMMIT is written is not known to be.
	on, l = w.link(t, single)
	ran, err = on.count(t, opts, func(tx *thole.Tx) error {
		tx.BeforeCommit(func(context.Context) error { l.Cut(); return nil })
		return insert(tx.Context(), tx, 2)
	})
	wantRan(t, "cut", ran, err, 1, thole.ErrCommitUnknown)
}

func afterHooks(t *testing.T, w *world) {
	fail, _ := w.curable(t)
	var failure error
	if err := w.WithSession(t.Context(), func(tx *thole.Tx) error { failure = fail(tx); return errFn }); err == nil {
		t.Error("got no error")
	}
	ran := 0
	got, _ := recovered(func() {
		_, _ = w.count(t, thole.SessionOptions{MaxAttempts: 3}, func(tx *thole.Tx) error {
			ran++
			tx.OnCommit(func(context.Context) { panic(failure) })
			return insert(tx.Context(), tx, 1)
		})
	})
	if ran != 1 || got != failure {
		t.Errorf("fn ran %d times and the panic is %v, want once and the hook's", ran, got)
	}
	w.wantItems(t, 1)
}

// attemptsByIsolation asks for levels. SQLite's lock is tried again at all.
func attemptsByIsolation(t *testing.T, w *world) {
	fail, kind := w.curable(t)
	levels := map[sql.IsolationLevel]int{
		sql.LevelDefault:         1,
		sql.LevelReadUncommitted: 1,
		sql.LevelReadCommitted:   1,
		sql.LevelRepeatableRead:  5,
		sql.LevelSnapshot:        5,
		sql.LevelSerializable:    5,
	}
	strict := w.strict(t)
	for level, want := range levels {
		if w.Engine() != thole.Postgres {
			want = 5
		}
		for _, on := range []*world{w, strict} {
			ran, err := on.count(t, thole.SessionOptions{Isolation: level}, fail)
			wantRan(t, level.String(), ran, err, want, kind)
		}
		configured := w.reopen(t, func(cfg *thole.Config) { cfg.Session.Isolation = level })
		ran, err := configured.count(t, thole.SessionOptions{}, fail)
		wantRan(t, "configured "+level.String(), ran, err, want, kind)
	}
}

// strict is a world where SERIALIZABLE is PostgreSQL's default. That of a
// database is used, as a pooler takes no settings from its clients, and of one
// that no connection has led to before.
func (w *world) strict(t *testing.T) *world {
	t.Helper()
	if w.Engine() != thole.Postgres {
		return w.reopen(t)
	}
	url := w.target.URL(t)
	cfg, err := thole.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	w.exec(t, "alter database "+cfg.Postgres.ConnConfig.Database+" set default_transaction_isolation = serializable")
	strict := newWorld(t, Target{URL: func(testing.TB) string { return url }, Pooled: w.target.Pooled})
	if got := strict.value(t, "show default_transaction_isolation"); got != "serializable" {
		t.Fatalf("got the default %s, want serializable", got)
	}
	return strict
}

// pausesAreRandom measures them by a clock that stands still meanwhile.
func pausesAreRandom(t *testing.T, w *world) {
	fail, kind := w.curable(t)
	const attempts, sessions = 9, 20
	pauses := make([][]time.Duration, attempts)
	synctest.Test(t, func(t *testing.T) {
		on := w.reopen(t)
		for range sessions {
			var last time.Time
			ran, err := on.count(t, thole.SessionOptions{MaxAttempts: attempts}, func(tx *thole.Tx) error {
				pauses[tx.Attempt()-1] = append(pauses[tx.Attempt()-1], time.Since(last))
				last = time.Now()
				return fail(tx)
			})
			wantRan(t, "session", ran, err, attempts, kind)
		}
	})
	longest := 10 * time.Millisecond
	for i, pauses := range pauses[1:] {
		shortest, most := slices.Min(pauses), slices.Max(pauses)
		if shortest < 5*time.Millisecond || most > longest {
			t.Errorf("pauses %d: got %v to %v, want 5ms to %v", i+1, shortest, most, longest)
		}
		if spread := longest - 5*time.Millisecond; most-shortest < spread/4 {
			t.Errorf("pauses %d: got %v, want them spread over 5ms to %v", i+1, pauses, longest)
		}
		longest = min(2*longest, 500*time.Millisecond)
	}
}

// pauseHoldsNothing has another session wait for the one connection. By a clock
// that only pauses move it gets it at once.
func pauseHoldsNothing(t *testing.T, w *world) {
	fail, _ := w.curable(t)
	synctest.Test(t, func(t *testing.T) {
		on := w.reopen(t, single)
		other := make(chan error, 1)
		var failed, began time.Time
		ran, err := on.count(t, thole.SessionOptions{MaxAttempts: 2}, func(tx *thole.Tx) error {
			if tx.Attempt() > 1 {
				return nil
			}
			go func() {
				other <- on.WithSession(t.Context(), func(tx *thole.Tx) error {
					began = time.Now()
					return insert(tx.Context(), tx, 1)
				})
			}()
			synctest.Wait() // until it stands in line
			failed = time.Now()
			return fail(tx)
		})
		wantRan(t, "session", ran, err, 2, nil)
		if err := <-other; err != nil || !began.Equal(failed) {
			t.Errorf("the other session began %s later and its error is %v, want at once and nil", began.Sub(failed), err)
		}
	})
}

func pauseEndsWithCtx(t *testing.T, w *world) {
	fail, _ := w.curable(t)
	ctx, cancel := context.WithCancel(t.Context())
	var failure error
	ran := 0
	err := w.WithSessionOptions(ctx, thole.SessionOptions{MaxAttempts: 3}, func(tx *thole.Tx) error {
		ran++
		tx.OnRollback(func(context.Context, error) { cancel() })
		failure = fail(tx)
		return failure
	})
	wantRan(t, "cancelled", ran, err, 1, failure)
}

// soon is a ctx whose deadline always comes in a moment.
type soon struct{ context.Context }

func (soon) Deadline() (time.Time, bool) { return time.Now().Add(time.Millisecond), true }

func pauseBeyondDeadline(t *testing.T, w *world) {
	fail, _ := w.curable(t)
	var failure error
	ran := 0
	err := w.WithSessionOptions(soon{t.Context()}, thole.SessionOptions{MaxAttempts: 3}, func(tx *thole.Tx) error {
		ran++
		failure = fail(tx)
		return failure
	})
	wantRan(t, "too late", ran, err, 1, failure)
}

func attemptsAreFresh(t *testing.T, w *world) {
	fail, _ := w.curable(t)
	var txs []*thole.Tx
	var hooks []*ledger
	var failures []error
	made, err := thole.WithSessionOptions(t.Context(), w, thole.SessionOptions{MaxAttempts: 3}, func(tx *thole.Tx) ([]int, error) {
		txs, hooks = append(txs, tx), append(hooks, new(ledger))
		hooks[len(hooks)-1].register(tx)
		for i, failure := range failures {
			wantIs(t, insert(t.Context(), txs[i], 9), thole.ErrTxDone, failure)
			wantIs(t, hooks[i].cause, failure)
		}
		if got := tx.Attempt(); got != len(txs) {
			t.Errorf("Attempt: got %d, want %d", got, len(txs))
		}
		if err := insert(tx.Context(), tx, tx.Attempt()); err != nil {
			t.Error(err)
		}
		if tx.Attempt() < 3 {
			failures = append(failures, fail(tx))
			return []int{tx.Attempt()}, failures[len(failures)-1]
		}
		return []int{3}, nil
	})
	if err != nil || !slices.Equal(made, []int{3}) || len(txs) != 3 {
		t.Fatalf("fn ran %d times, made %v, and the error is %v, want 3 times, [3] and nil", len(txs), made, err)
	}
	hooks[0].want(t, "rollback")
	hooks[1].want(t, "rollback")
	hooks[2].want(t, "before", "commit")
	w.wantItems(t, 3)

	made, err = thole.WithSessionOptions(t.Context(), w, thole.SessionOptions{MaxAttempts: 2}, func(tx *thole.Tx) ([]int, error) {
		return []int{tx.Attempt()}, fail(tx)
	})
	if err == nil || made != nil {
		t.Errorf("got %v and error %v, want nothing of the attempts that failed", made, err)
	}
}

// exhaustion tells the last failure, and what it took.
func exhaustion(t *testing.T, w *world) {
	fail, _ := w.curable(t)
	var failures []error
	ran, err := w.count(t, thole.SessionOptions{MaxAttempts: 3}, func(tx *thole.Tx) error {
		failures = append(failures, fmt.Errorf("attempt %d: %w", tx.Attempt(), fail(tx)))
		return failures[len(failures)-1]
	})
	wantRan(t, "exhausted", ran, err, 3, failures[2])
	if errors.Is(err, failures[0]) || errors.Is(err, failures[1]) {
		t.Errorf("got error %v, want the last failure alone", err)
	}
	wantOutcome(t, err, thole.RolledBack)
	if w.Engine() == thole.Postgres {
		var driver *pgconn.PgError
		if !errors.As(err, &driver) || driver.Code != "40001" {
			t.Errorf("got error %v, want one with SQLSTATE 40001", err)
		}
	} else if !errors.Is(err, thole.ErrLocked) {
		t.Errorf("got error %v, want ErrLocked", err)
	}
	var attempts int
	var took string
	if _, scanErr := fmt.Sscanf(err.Error(), "thole: gave up after %d attempts in %s", &attempts, &took); scanErr != nil {
		t.Fatalf("got error %q, want it to begin with the attempts and the time", err)
	}
	if total, parseErr := time.ParseDuration(strings.TrimSuffix(took, ":")); parseErr != nil || total <= 0 || attempts != 3 {
		t.Errorf("got error %q, want 3 attempts and the time", err)
	}
}

// serializationInFn has another session change what fn has read and is about to
// change. SQLite lets one session write at a time: the other one is refused.
func serializationInFn(t *testing.T, w *world) {
	w.exec(t, "insert into item (id, name) values (1, 'one')")
	var other, failed error
	update := func(tx *thole.Tx, name string) error {
		_, err := tx.ExecContext(tx.Context(), "update item set name = ? where id = 1", name)
		return err
	}
	ran, err := w.count(t, thole.SessionOptions{Isolation: sql.LevelRepeatableRead}, func(tx *thole.Tx) error {
		if err := tx.GetContext(tx.Context(), new(string), "select name from item where id = 1"); err != nil {
			t.Error(err)
		}
		if tx.Attempt() > 1 {
			return update(tx, "mine")
		}
		other = w.beside(t, sql.LevelDefault, func(tx *thole.Tx) error { return update(tx, "other") })
		failed = update(tx, "mine")
		return failed
	})
	w.wantConflict(t, ran, err, other, failed)
	if got := w.value(t, "select name from item"); got != "mine" {
		t.Errorf("name: got %q, want that of the last attempt", got)
	}
}

// beside runs a session while another is open, in another goroutine than that,
// and waits for nothing.
func (w *world) beside(t *testing.T, level sql.IsolationLevel, fn func(tx *thole.Tx) error) error {
	t.Helper()
	opts := thole.SessionOptions{Isolation: level, LockTimeout: time.Millisecond, MaxAttempts: 1}
	ended := make(chan error, 1)
	go func() { ended <- w.WithSessionOptions(t.Context(), opts, fn) }()
	return receive(t, ended)
}

// wantConflict checks what becomes of a session that failed because of another,
// which committed.
func (w *world) wantConflict(t *testing.T, ran int, err, other, failed error) {
	t.Helper()
	if w.Engine() != thole.Postgres {
		wantRan(t, "session", ran, err, 1, nil)
		wantIs(t, other, thole.ErrLocked)
		return
	}
	wantRan(t, "session", ran, err, 2, nil)
	wantIs(t, failed, thole.ErrSerialization)
	if other != nil {
		t.Errorf("other session: got error %v, want nil", other)
	}
}

// serializationAtCommit has two sessions count the items before each adds one
// (write skew): no statement of the first fails, only its COMMIT, which comes
// second. SQLite refuses the other session.
func serializationAtCommit(t *testing.T, w *world) {
	for _, allowed := range []int{1, 2} {
		w.exec(t, "delete from item")
		var other error
		add := func(tx *thole.Tx, id int) error {
			return errors.Join(tx.GetContext(tx.Context(), new(int), "select count(*) from item"), insert(tx.Context(), tx, id))
		}
		opts := thole.SessionOptions{Isolation: sql.LevelSerializable, MaxAttempts: allowed}
		ran, err := w.count(t, opts, func(tx *thole.Tx) error {
			if err := add(tx, tx.Attempt()); err != nil {
				t.Errorf("attempt %d: got error %v, want COMMIT to fail", tx.Attempt(), err)
			}
			if tx.Attempt() == 1 {
				other = w.beside(t, sql.LevelSerializable, func(tx *thole.Tx) error { return add(tx, 9) })
			}
			return nil
		})
		if allowed == 2 || w.Engine() != thole.Postgres {
			w.wantConflict(t, ran, err, other, thole.ErrSerialization)
			continue
		}
		wantRan(t, "COMMIT", ran, err, 1, thole.ErrSerialization)
		wantOutcome(t, err, thole.RolledBack)
		w.wantItems(t, 9)
	}
	if w.Engine() == thole.Postgres {
		w.wantItems(t, 2, 9)
	} else {
		w.wantItems(t, 1)
	}
}

func panicRunsOnce(t *testing.T, w *world) {
	fail, _ := w.curable(t)
	var failure error
	ran := 0
	got, _ := recovered(func() {
		_, _ = w.count(t, thole.SessionOptions{Isolation: sql.LevelSerializable, MaxAttempts: 3}, func(tx *thole.Tx) error {
			ran++
			failure = fail(tx)
			panic(failure)
		})
	})
	if ran != 1 || got != failure {
		t.Errorf("fn ran %d times and the panic is %v, want once and fn's own", ran, got)
	}
}

// nestedAttempts asks for attempts in a nested session, which has none: its
// failure is the outermost session's.
func nestedAttempts(t *testing.T, w *world) {
	fail, kind := w.curable(t)
	inner := 0
	ran, err := w.count(t, thole.SessionOptions{MaxAttempts: 3}, func(tx *thole.Tx) error {
		err := tx.WithSessionOptions(tx.Context(), thole.SessionOptions{MaxAttempts: 2}, func(*thole.Tx) error {
			t.Error("fn ran")
			return nil
		})
		wantIs(t, err, thole.ErrNested, errors.ErrUnsupported)
		return tx.WithSession(tx.Context(), func(nested *thole.Tx) error {
			inner++
			return fail(nested)
		})
	})
	wantRan(t, "outermost", ran, err, 3, kind)
	if inner != 3 {
		t.Errorf("the nested fn ran %d times, want once an attempt", inner)
	}
}

package conformance

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/link"
)

// contexts is section B: what a done ctx does to a session.
var contexts = []sentence{
	{"B1", doneBefore},
	{"B2", clauses(
		sentence{"between statements", cancelledBetween},
		sentence{"in a statement", cancelledInStatement},
	)},
	{"B3", clauses(
		sentence{"outermost", doneAndNil},
		sentence{"nested", doneAndNilNested},
	)},
	{"B4", clauses(
		sentence{"before COMMIT", cancelledBeforeCommit},
		sentence{"in COMMIT", cancelledInCommit},
		sentence{"bounded", commitIsBounded},
	)},
	{"B5", clauses(
		sentence{"cancelled", statementCancelled},
		sentence{"lost", statementLosesConnection},
	)},
	{"B6", clauses(
		sentence{"fn returns", rollbackWaitsForStatement},
		sentence{"ctx ends", rollbackWaitsForFn},
	)},
	{"B7", rollbackIsBounded},
	{"B8", nestedContext},
	{"B9", waitForConnection},
}

var errCause = errors.New("the client has left")

// doneBefore makes its attempts while the one connection is taken.
func doneBefore(t *testing.T, w *world) {
	on, sent := w, func() string { return "" }
	if w.Engine() == thole.Postgres {
		linked, l := w.link(t, single)
		mark := 0
		on, sent = linked, func() (text string) {
			text, mark = l.Since(mark), l.Mark()
			return text
		}
	}
	done, cancel := context.WithCancelCause(t.Context())
	cancel(errCause)
	late, stop := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer stop()
	nothing := func(*thole.Tx) error { t.Error("fn ran"); return nil }
	err := on.WithSession(t.Context(), func(tx *thole.Tx) error {
		sent()
		for _, q := range []thole.Querier{on, tx} {
			err := q.WithSession(done, nothing)
			wantIs(t, err, context.Canceled, errCause)
			wantUnsent(t, err, sent())
			err = q.WithSession(late, nothing)
			wantIs(t, err, context.DeadlineExceeded, thole.ErrTimeout)
			wantUnsent(t, err, sent())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// wantUnsent checks that err was found before any engine was asked.
func wantUnsent(t *testing.T, err error, sent string) {
	t.Helper()
	var told *thole.Error
	if !errors.As(err, &told) || told.Query != "" || told.Engine != "" {
		t.Errorf("got error %v, want one that the engine knows nothing of", err)
	}
	if sent != "" {
		t.Errorf("sent %s, want nothing", sent)
	}
}

func cancelledBetween(t *testing.T, w *world) {
	l := new(link.Link)
	on := w.reopen(t, single, standing(l))
	id, mark := on.connection(t), l.Mark()
	ctx, cancel := context.WithCancel(t.Context())
	err := on.WithSession(ctx, func(tx *thole.Tx) error {
		if err := insert(ctx, tx, 1); err != nil {
			t.Error(err)
		}
		cancel()
		return errFn
	})
	wantIs(t, err, errFn)
	wantRolledBack(t, w, on, id)
	if sent := l.Since(mark); w.Engine() == thole.Postgres && !strings.Contains(sent, "rollback") {
		t.Errorf("sent\n%s\nwant a ROLLBACK in it", sent)
	}
}

// wantRolledBack checks that the session which had the connection has given it
// back clean, and that others can write.
func wantRolledBack(t *testing.T, w, on *world, connection string) {
	t.Helper()
	on.wantItems(t)
	if now := on.connection(t); now != connection {
		t.Errorf("the session has connection %s, want %s as before", now, connection)
	}
	if err := insert(t.Context(), w, 9); err != nil {
		t.Errorf("add an item from outside: %v", err)
	}
}

func cancelledInStatement(t *testing.T, w *world) {
	on, g := w.gate(t, single)
	id := on.connection(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	err := on.WithSession(ctx, func(tx *thole.Tx) error {
		if err := insert(ctx, tx, 1); err != nil {
			t.Error(err)
		}
		err := g.endless(t, ctx, tx, func() { cancel(errCause) })
		return err
	})
	wantIs(t, err, context.Canceled, errCause)
	wantRolledBack(t, w, on, id)
}

func doneAndNil(t *testing.T, w *world) {
	cancelled, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	late, stop := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, errCause)
	defer stop()
	ends := []struct {
		ctx  context.Context
		opts thole.SessionOptions
		want []error
	}{
		{late, thole.SessionOptions{}, []error{context.DeadlineExceeded, thole.ErrTimeout, errCause}},
		{cancelled, thole.SessionOptions{}, []error{context.Canceled, errCause}},
		{t.Context(), thole.SessionOptions{Timeout: 100 * time.Millisecond}, []error{context.DeadlineExceeded, thole.ErrTimeout}},
	}
	for _, end := range ends {
		err := w.WithSessionOptions(end.ctx, end.opts, func(tx *thole.Tx) error {
			_ = insert(end.ctx, tx, 1)
			if end.ctx == cancelled {
				cancel(errCause)
			}
			<-tx.Context().Done()
			wantDone(t, insert(end.ctx, tx, 2), end.want...)
			return nil
		})
		wantDone(t, err, end.want...)
		wantOutcome(t, err, thole.RolledBack)
		w.wantItems(t)
	}
}

// wantDone checks that err says why the ctx is done, and not that the
// transaction is.
func wantDone(t *testing.T, err error, want ...error) {
	t.Helper()
	wantIs(t, err, want...)
	if errors.Is(err, sql.ErrTxDone) {
		t.Errorf("got error %v, want it not to be sql.ErrTxDone", err)
	}
}

func doneAndNilNested(t *testing.T, w *world) {
	err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
		if err := insert(tx.Context(), tx, 1); err != nil {
			return err
		}
		ctx, cancel := context.WithCancelCause(tx.Context())
		err := tx.WithSession(ctx, func(inner *thole.Tx) error {
			if err := insert(inner.Context(), inner, 2); err != nil {
				t.Error(err)
			}
			cancel(errCause)
			return nil
		})
		wantDone(t, err, context.Canceled, errCause)
		return nil
	})
	if err != nil {
		t.Errorf("outer session: got error %v, want nil", err)
	}
	w.wantItems(t, 1)
}

// cancelledBeforeCommit is between fn's nil and COMMIT, before the one check.
func cancelledBeforeCommit(t *testing.T, w *world) {
	for range 20 {
		ctx, cancel := context.WithCancelCause(t.Context())
		err := w.WithSession(ctx, func(tx *thole.Tx) error {
			tx.BeforeCommit(func(context.Context) error { cancel(errCause); return nil })
			return insert(ctx, tx, 1)
		})
		wantDone(t, err, context.Canceled, errCause)
		wantOutcome(t, err, thole.RolledBack)
		w.wantItems(t)
	}
}

func cancelledInCommit(t *testing.T, w *world) {
	on, g := w.gate(t, single)
	id := on.connection(t)
	g.close(t, on)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- on.WithSession(ctx, func(tx *thole.Tx) error { return insert(ctx, tx, 1) })
	}()
	g.wait(t)
	cancel()
	time.Sleep(20 * time.Millisecond) // for the cancellation to do harm
	g.open()
	if err := receive(t, ended); err != nil {
		t.Errorf("got error %v, want nil", err)
	}
	on.wantItems(t, 1)
	if now := on.connection(t); now != id {
		t.Errorf("the session has connection %s, want %s as before", now, id)
	}
}

// commitIsBounded holds COMMIT back for longer than it may take. PostgreSQL's
// ends after five seconds; SQLite's is waited for.
func commitIsBounded(t *testing.T, w *world) {
	on, g := w.gate(t)
	g.close(t, on)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- on.WithSession(ctx, func(tx *thole.Tx) error { return insert(ctx, tx, 1) })
	}()
	g.wait(t)
	if w.Engine() != thole.Postgres {
		<-ctx.Done()
		g.open()
		if err := receive(t, ended); err != nil {
			t.Errorf("got error %v, want nil", err)
		}
		on.wantItems(t, 1)
		return
	}
	// The server says that it has cancelled COMMIT, so that it is known what
	// became of it.
	err := receive(t, ended)
	wantIs(t, err, context.DeadlineExceeded, thole.ErrTimeout)
	wantOutcome(t, err, thole.RolledBack)
	on.wantItems(t)
}

// statementCancelled differs as A6 does: SQLite's transaction goes on.
//
// The exception for a write that has predecessors in its group does not arise:
// each of SQLite's sessions here is a group of its own.
func statementCancelled(t *testing.T, w *world) {
	on, g := w.gate(t, single)
	id := on.connection(t)
	var after error
	err := on.WithSession(bounded(t), func(tx *thole.Tx) error {
		ctx, cancel := context.WithCancelCause(tx.Context())
		err := g.endless(t, ctx, tx, func() { cancel(errCause) })
		wantDone(t, err, context.Canceled, errCause)
		after = insert(tx.Context(), tx, 1)
		return nil
	})
	if w.Engine() == thole.Postgres {
		wantIs(t, after, thole.ErrTxAborted, context.Canceled, errCause)
		wantIs(t, err, thole.ErrTxAborted, context.Canceled, errCause)
		on.wantItems(t)
	} else {
		if err != nil || after != nil {
			t.Errorf("got errors %v and %v, want nil: the session goes on", err, after)
		}
		on.wantItems(t, 1)
	}
	if now := on.connection(t); now != id {
		t.Errorf("the session has connection %s, want %s as before", now, id)
	}
}

// statementLosesConnection has pgx's own way of cancelling, which closes the
// connection. SQLite has none to lose, but an interrupted write takes its
// transaction with it.
func statementLosesConnection(t *testing.T, w *world) {
	on, g := w.gate(t, single, closeWhenCancelled)
	want := []error{thole.ErrTxAborted, context.Canceled, errCause}
	not := thole.ErrConnLost
	if w.Engine() == thole.Postgres {
		want[0], not = thole.ErrConnLost, thole.ErrTxAborted
	}
	err := on.WithSession(bounded(t), func(tx *thole.Tx) error {
		ctx, cancel := context.WithCancelCause(tx.Context())
		err := g.endlessWrite(t, ctx, tx, func() { cancel(errCause) })
		wantDone(t, err, context.Canceled, errCause)
		for range 2 {
			for name, err := range callsOn(tx) {
				wantIs(t, err, want...)
				if errors.Is(err, not) || errors.Is(err, driver.ErrBadConn) || errors.Is(err, pgconn.ErrConnClosed) {
					t.Errorf("%s: got error %v, want the first cause alone", name, err)
				}
			}
		}
		return nil
	})
	wantIs(t, err, want...)
	if errors.Is(err, not) {
		t.Errorf("got error %v, want the first cause alone", err)
	}
	wantOutcome(t, err, thole.RolledBack)
	on.wantItems(t)
}

func closeWhenCancelled(cfg *thole.Config) {
	if cfg.Postgres != nil {
		cfg.Postgres.ConnConfig.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
			return &pgconn.DeadlineContextWatcherHandler{Conn: conn.Conn()}
		}
	}
}

// callsOn are the errors of what can be called on a Tx.
func callsOn(tx *thole.Tx) map[string]error {
	calls := map[string]error{"ExecContext": insert(tx.Context(), tx, 1)}
	_, calls["QueryContext"] = tx.QueryContext(tx.Context(), "select id from item")     //nolint:rowserrcheck,sqlclosecheck // it fails
	_, calls["PrepareContext"] = tx.PrepareContext(tx.Context(), "select id from item") //nolint:sqlclosecheck // it fails
	calls["QueryRowContext"] = tx.QueryRowContext(tx.Context(), "select id from item").Err()
	calls["GetContext"] = tx.GetContext(tx.Context(), new(int), "select id from item")
	calls["WithSession"] = tx.WithSession(tx.Context(), func(*thole.Tx) error { return nil })
	return calls
}

// rollbackWaitsForStatement leaves fn while a goroutine of its own is in a
// statement.
func rollbackWaitsForStatement(t *testing.T, w *world) {
	on, g := w.gate(t, single)
	id := on.connection(t)
	stmt, ended := make(chan error, 1), make(chan error, 1)
	inside := make(chan struct{})
	go func() {
		ended <- on.WithSession(t.Context(), func(tx *thole.Tx) error {
			go func() {
				_, err := tx.ExecContext(tx.Context(), g.statement)
				stmt <- err
			}()
			<-inside
			return errFn
		})
	}()
	g.wait(t)
	close(inside)
	time.Sleep(20 * time.Millisecond) // for a ROLLBACK to do harm
	if len(ended) > 0 {
		t.Error("WithSession returned while a statement was in progress")
	}
	g.open()
	if err := receive(t, stmt); err != nil {
		t.Errorf("statement: got error %v, want nil: nothing comes between", err)
	}
	wantIs(t, receive(t, ended), errFn)
	if now := on.connection(t); now != id {
		t.Errorf("the session has connection %s, want %s as before", now, id)
	}
}

// rollbackWaitsForFn looks, after the ctx has ended, whether the transaction is
// open as long as fn may use it. Nobody can look into a database in memory from
// outside: there a statement under another ctx would find out.
func rollbackWaitsForFn(t *testing.T, w *world) {
	on := w.reopen(t, single)
	id := on.connection(t)
	ctx, cancel := context.WithCancel(t.Context())
	err := on.WithSession(ctx, func(tx *thole.Tx) error {
		if err := insert(ctx, tx, 1); err != nil {
			t.Error(err)
		}
		cancel()
		time.Sleep(20 * time.Millisecond) // for a ROLLBACK to be sent
		if !w.inMemory() {
			// The same item waits for the transaction as long as that is open.
			opts := thole.SessionOptions{LockTimeout: 50 * time.Millisecond, MaxAttempts: 1}
			err := w.WithSessionOptions(t.Context(), opts, func(outside *thole.Tx) error {
				return insert(t.Context(), outside, 1)
			})
			wantIs(t, err, thole.ErrLocked)
		}
		return ctx.Err()
	})
	wantIs(t, err, context.Canceled)
	wantRolledBack(t, w, on, id)
}

// rollbackIsBounded makes the server unreachable. SQLite's ROLLBACK waits for
// nobody: however late it is, it works.
func rollbackIsBounded(t *testing.T, w *world) {
	l := new(link.Link)
	on := w.reopen(t, standing(l))
	t.Cleanup(l.Cut)
	id := on.connection(t)
	ended := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithCancel(t.Context())
		ended <- on.WithSession(ctx, func(tx *thole.Tx) error {
			if err := insert(ctx, tx, 1); err != nil {
				t.Error(err)
			}
			cancel()
			l.Freeze()
			return errFn
		})
	}()
	err := receive(t, ended)
	wantIs(t, err, errFn)
	wantOutcome(t, err, thole.RolledBack)
	if w.Engine() != thole.Postgres {
		wantRolledBack(t, w, on, id)
		return
	}
	w.awaitLog(t, "thole: gave up a connection on which rollback failed")
	if now := on.connection(t); now == id {
		t.Errorf("the session has connection %s again, on which ROLLBACK was not answered", now)
	}
	l.Cut() // so that the server notices
	w.awaitEnd(t, id)
	on.wantItems(t)
}

type key struct{}

func nestedContext(t *testing.T, w *world) {
	outer, cancel := context.WithCancelCause(context.WithValue(t.Context(), key{}, "outer"))
	limit := time.Now().Add(time.Hour)
	outer, stop := context.WithDeadline(outer, limit)
	defer stop()
	err := w.WithSession(outer, func(tx *thole.Tx) error {
		earlier, stop := context.WithDeadline(context.WithValue(tx.Context(), key{}, "inner"), limit.Add(-time.Minute))
		defer stop()
		wantContext(t, earlier, tx, "inner", limit.Add(-time.Minute))
		// Contexts that know nothing of the outer session.
		wantContext(t, context.Background(), tx, nil, limit)
		later, stop := context.WithDeadline(context.WithValue(context.Background(), key{}, "other"), limit.Add(time.Hour))
		defer stop()
		wantContext(t, later, tx, "other", limit)
		return tx.WithSession(later, func(inner *thole.Tx) error {
			cancel(errCause)
			receive(t, inner.Context().Done())
			if cause := context.Cause(inner.Context()); cause != errCause {
				t.Errorf("the nested ctx ended because of %v, want %v", cause, errCause)
			}
			return insert(later, inner, 1)
		})
	})
	wantIs(t, err, errCause)
	w.wantItems(t)
}

// wantContext checks the Context of a session nested in tx that is given ctx.
func wantContext(t *testing.T, ctx context.Context, tx *thole.Tx, value any, deadline time.Time) {
	t.Helper()
	err := tx.WithSession(ctx, func(inner *thole.Tx) error {
		if got := inner.Context().Value(key{}); got != value {
			t.Errorf("value of the nested ctx: got %v, want %v", got, value)
		}
		if got, ok := inner.Context().Deadline(); !ok || !got.Equal(deadline) {
			t.Errorf("deadline of the nested ctx: got %v, %t, want %v", got, ok, deadline)
		}
		return insert(ctx, inner, 1)
	})
	if err != nil {
		t.Error(err)
	}
	if _, err := tx.ExecContext(tx.Context(), "delete from item"); err != nil {
		t.Error(err)
	}
}

// waitForConnection takes the one connection: PostgreSQL's, SQLite's reader, or
// in memory the one for both.
func waitForConnection(t *testing.T, w *world) {
	on := w.reopen(t, single)
	want := map[bool]string{false: "wait for a reader, all 1 are in use, 2 sessions open, the oldest: session ", true: "wait for the writer, session "}[w.inMemory()]
	if w.Engine() == thole.Postgres {
		want = "pool exhausted (max 1): 2 sessions open, the oldest: session "
	}
	want += `"holder" opened at conformance/contexts.go:`
	ends := map[string]func(context.Context) (context.Context, context.CancelFunc){
		"deadline": func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 20*time.Millisecond)
		},
		"cancel": func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(ctx)
			time.AfterFunc(20*time.Millisecond, func() { cancel(errCause) })
			return ctx, func() { cancel(nil) }
		},
	}
	err := on.WithSessionOptions(t.Context(), thole.SessionOptions{ReadOnly: true, Label: "holder"}, func(tx *thole.Tx) error {
		if err := begin(tx); err != nil {
			return err
		}
		for name, end := range ends {
			ctx, cancel := end(t.Context())
			defer cancel()
			ended := make(chan error, 1)
			go func() {
				ended <- on.WithSessionOptions(ctx, thole.SessionOptions{ReadOnly: true}, begin)
			}()
			err := receive(t, ended)
			wantIs(t, err, ctx.Err(), context.Cause(ctx))
			if timedOut := errors.Is(err, thole.ErrTimeout); timedOut != (name == "deadline") {
				t.Errorf("%s: got error %v; is it ErrTimeout: %t", name, err, timedOut)
			}
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got error %q, want %q in it", name, err, want)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

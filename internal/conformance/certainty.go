package conformance

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/stdlib"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/link"
	"github.com/tholedb/thole/internal/testdb"
)

// ambiguity is section E: what is said of a COMMIT whose answer did not come.
// SQLite is in the same process, and its answers do come; there the same calls
// are made, and their outcome is definite.
var ambiguity = []sentence{
	{"E1", clauses(
		sentence{"unknown", lostAnswerIsUnknown},
		sentence{"before COMMIT", lostBeforeCommitIsNot},
		sentence{"late", lateAnswerIsAnAnswer},
	)},
	{"E2", idempotency},
	{"E3", readOnlyIsNeverUnknown},
	{"E3a", commitIsExtended},
	{"E3b", unreplicatedIsNotNil},
	{"E4", commitIsSentOnce},
	{"E5", clauses(
		sentence{"once", nothingRunsTwice},
		sentence{"script", scriptIsOneSession},
		sentence{"stock", stockDriverRunsTwice},
	)},
	{"E6", clauses(
		sentence{"tag", rollbackIsNotNil},
		sentence{"status", idleIsNotNil},
	)},
}

// lostAnswerIsUnknown loses the answer to COMMIT, which has happened.
func lostAnswerIsUnknown(t *testing.T, w *world) {
	if w.Engine() != thole.Postgres {
		wantDefinite(t, w)
		return
	}
	on, l := w.link(t, single)
	err := on.WithSession(t.Context(), func(tx *thole.Tx) error {
		l.Eat("commit")
		return insert(tx.Context(), tx, 1)
	})
	wantUnknown(t, err)
	if errors.Is(err, thole.ErrConnLost) {
		t.Errorf("got error %v, want it not to be %v, after which nothing has happened", err, thole.ErrConnLost)
	}
	w.wantItems(t, 1)
}

// wantUnknown checks that err says that nobody knows.
func wantUnknown(t *testing.T, err error) {
	t.Helper()
	wantIs(t, err, thole.ErrCommitUnknown)
	wantOutcome(t, err, thole.Unknown)
	if errors.Is(err, driver.ErrBadConn) {
		t.Errorf("got error %v, want it not to be %v, upon which database/sql runs a statement again", err, driver.ErrBadConn)
	}
}

// wantDefinite has SQLite's COMMIT fail.
func wantDefinite(t *testing.T, w *world) {
	t.Helper()
	err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
		_, err := tx.ExecContext(t.Context(), "insert into part (id, item) values (1, 99)")
		return err
	})
	wantIs(t, err, thole.ErrForeignKey)
	wantOutcome(t, err, thole.RolledBack)
	if n := w.value(t, "select count(*) from part"); n != "0" {
		t.Errorf("got %s parts, want none", n)
	}
}

func lostBeforeCommitIsNot(t *testing.T, w *world) {
	if w.Engine() != thole.Postgres {
		wantDefinite(t, w)
		return
	}
	on, l := w.link(t, single)
	err := on.WithSession(t.Context(), func(tx *thole.Tx) error {
		if err := begin(tx); err != nil {
			t.Error(err)
		}
		l.Eat("insert")
		_ = insert(tx.Context(), tx, 1)
		return nil
	})
	wantIs(t, err, thole.ErrConnLost)
	wantOutcome(t, err, thole.RolledBack)
	if errors.Is(err, thole.ErrCommitUnknown) {
		t.Errorf("got error %v, want it not to be %v: COMMIT was not sent", err, thole.ErrCommitUnknown)
	}
	w.wantItems(t)
}

// lateAnswerIsAnAnswer has the answer to COMMIT come when nobody else waits any
// more.
func lateAnswerIsAnAnswer(t *testing.T, w *world) {
	if w.Engine() != thole.Postgres {
		wantDefinite(t, w)
		return
	}
	on, l := w.link(t, single)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := on.WithSession(ctx, func(tx *thole.Tx) error {
		l.Delay("commit", 100*time.Millisecond)
		mark := l.Mark()
		go func() {
			eventually(t, "COMMIT is sent", func() bool { return slices.Contains(l.Executed(mark), "commit") })
			cancel()
		}()
		return insert(t.Context(), tx, 1)
	})
	if err != nil {
		t.Errorf("got error %v, want nil", err)
	}
	w.wantItems(t, 1)
}

// readOnlyIsNeverUnknown has somebody wait for the commit, so that it is asked
// for.
func readOnlyIsNeverUnknown(t *testing.T, w *world) {
	for name, opts := range map[string]thole.SessionOptions{
		"read committed": {ReadOnly: true},
		"serializable":   {ReadOnly: true, Isolation: sql.LevelSerializable, MaxAttempts: 1},
	} {
		var hooks ledger
		read := func(tx *thole.Tx) error {
			hooks.register(tx)
			return tx.GetContext(t.Context(), new(int), "select count(*) from item")
		}
		if w.Engine() != thole.Postgres {
			if err := w.WithSessionOptions(t.Context(), opts, read); err != nil {
				t.Errorf("%s: got error %v, want nil", name, err)
			}
			continue
		}
		on, l := w.link(t, single)
		err := on.WithSessionOptions(t.Context(), opts, func(tx *thole.Tx) error {
			l.Eat("commit")
			return read(tx)
		})
		wantIs(t, err, thole.ErrConnLost)
		wantOutcome(t, err, thole.RolledBack)
		hooks.want(t, "before", "rollback")
	}
}

// commitIsExtended looks at the message: Execute begins with an E, Query with a
// Q.
//
// https://www.postgresql.org/docs/current/protocol-message-formats.html
func commitIsExtended(t *testing.T, w *world) {
	if w.Engine() != thole.Postgres {
		wantDefinite(t, w)
		return
	}
	on, l := w.link(t, single)
	mark := l.Mark()
	err := on.WithSession(t.Context(), func(tx *thole.Tx) error { return insert(t.Context(), tx, 1) })
	if err != nil {
		t.Error(err)
	}
	sent := l.Since(mark)
	if !strings.Contains(sent, "E commit") || strings.Contains(sent, "Q commit") {
		t.Errorf("sent\n%s\nwant COMMIT by the extended protocol", sent)
	}
}

// unreplicatedIsNotNil has a COMMIT wait for a standby that never comes, and ends
// the wait: the server answers COMMIT and warns. SQLite has no standbys.
//
// https://www.postgresql.org/docs/current/warm-standby.html#SYNCHRONOUS-REPLICATION
func unreplicatedIsNotNil(t *testing.T, w *world) {
	if w.Engine() != thole.Postgres {
		wantDefinite(t, w)
		return
	}
	own := newWorld(t, Target{URL: testdb.PostgresWaiting})
	on := own.reopen(t, func(cfg *thole.Config) { cfg.Postgres.ConnConfig.RuntimeParams["synchronous_commit"] = "on" })
	const add = "insert into item (id, name) values (1, 'one')"
	for name, run := range map[string]func(ctx context.Context) error{
		"session": func(ctx context.Context) error {
			return on.WithSession(ctx, func(tx *thole.Tx) error { _, err := tx.ExecContext(ctx, add); return err })
		},
		"statement": func(ctx context.Context) error { _, err := on.ExecContext(ctx, add); return err },
		"argument": func(ctx context.Context) error {
			_, err := on.ExecContext(ctx, "insert into item (id, name) values (?, 'one')", 1)
			return err
		},
		"row":    func(ctx context.Context) error { return on.GetContext(ctx, new(int), add+" returning id") },
		"rows":   func(ctx context.Context) error { return on.SelectContext(ctx, &[]int{}, add+" returning id") },
		"script": func(ctx context.Context) error { _, err := on.ExecContext(ctx, add+"; select 1"); return err },
	} {
		for how, end := range map[string]string{"cancelled": "pg_cancel_backend", "terminated": "pg_terminate_backend"} {
			ended := make(chan error, 1)
			go func() { ended <- run(bounded(t)) }()
			const waits = " from pg_stat_activity where datname = current_database() and wait_event = 'SyncRep'"
			eventually(t, "the COMMIT waits for its standby", func() bool { return own.value(t, "select count(*)"+waits) == "1" })
			own.value(t, "select "+end+"(pid)"+waits)
			err := receive(t, ended)
			if !errors.Is(err, thole.ErrCommitUnknown) || thole.OutcomeOf(err) != thole.Unknown {
				t.Errorf("%s, %s: got error %v, want %v", name, how, err, thole.ErrCommitUnknown)
			}
			own.wantItems(t, 1)
			own.exec(t, "delete from item")
		}
	}
}

func commitIsSentOnce(t *testing.T, w *world) {
	opts := thole.SessionOptions{MaxAttempts: 3, Isolation: sql.LevelSerializable}
	add := func(tx *thole.Tx) error { return insert(t.Context(), tx, 1) }
	if w.Engine() != thole.Postgres {
		on, o := w.observe(t)
		if err := on.WithSessionOptions(t.Context(), opts, add); err != nil {
			t.Error(err)
		}
		if n := strings.Count(strings.Join(o.control(), " "), "commit"); n != 1 {
			t.Errorf("COMMIT ran %d times, want once", n)
		}
		return
	}
	on, l := w.link(t)
	mark, ran := l.Mark(), 0
	err := on.WithSessionOptions(t.Context(), opts, func(tx *thole.Tx) error {
		ran++
		l.Eat("commit")
		return add(tx)
	})
	wantUnknown(t, err)
	if n := strings.Count(l.Since(mark), "E commit"); n != 1 || ran != 1 {
		t.Errorf("COMMIT was sent %d times and fn ran %d times, want once each", n, ran)
	}
	w.wantItems(t, 1)
}

// once are the ways to run a statement outside a session.
func once(w *world) map[string]func(ctx context.Context) error {
	const insert = "insert into item (id, name) values (1, 'one')"
	exec := func(_ sql.Result, err error) error { return err }
	return map[string]func(ctx context.Context) error{
		"Exec": func(ctx context.Context) error { return exec(w.ExecContext(ctx, insert)) },
		"Exec, argument": func(ctx context.Context) error {
			return exec(w.ExecContext(ctx, "insert into item (id, name) values (?, 'one')", 1))
		},
		"Get":  func(ctx context.Context) error { return w.GetContext(ctx, new(int), insert+" returning id") },
		"Sqlx": func(ctx context.Context) error { return exec(w.Sqlx().ExecContext(ctx, insert)) },
		"Sqlx, argument": func(ctx context.Context) error {
			return exec(w.Sqlx().ExecContext(ctx, "insert into item (id, name) values ($1, 'one')", 1))
		},
		"Sqlx Get": func(ctx context.Context) error { return w.Sqlx().GetContext(ctx, new(int), insert+" returning id") },
		"Sqlx Begin": func(ctx context.Context) error {
			tx, err := w.Sqlx().BeginTxx(ctx, nil)
			if err != nil {
				return err
			}
			return errors.Join(exec(tx.ExecContext(ctx, insert)), tx.Commit())
		},
		"Stmt": func(ctx context.Context) error {
			stmt, err := w.PrepareContext(ctx, insert)
			if err != nil {
				return err
			}
			defer stmt.Close()
			return exec(stmt.ExecContext(ctx))
		},
	}
}

// unlink makes it possible to see a statement run twice.
const unlink = "alter table item drop constraint item_pkey; alter table item drop constraint item_name_key"

// nothingRunsTwice loses the answer to each statement outside a session, on a
// table where a second row is no error.
func nothingRunsTwice(t *testing.T, w *world) {
	if w.Engine() != thole.Postgres {
		for name, run := range once(w) {
			if err := run(t.Context()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			w.wantItems(t, 1)
			w.exec(t, "delete from item")
		}
		return
	}
	w.exec(t, "alter table part drop constraint part_item_fkey; "+unlink)
	on, l := w.link(t)
	for name, run := range once(on) {
		on.exec(t, "select 1") // the link's connections are new
		text := "insert"
		if name == "Sqlx Begin" {
			text = "commit"
		}
		l.EatLater(text)
		err := run(t.Context())
		wantUnknown(t, err)
		l.EatLater("")
		w.wantItems(t, 1)
		if t.Failed() {
			t.Fatalf("%s: see above", name)
		}
		w.exec(t, "delete from item")
	}
}

// scriptIsOneSession loses the answer to several statements in one text: COMMIT
// was not sent, and so nothing has happened.
func scriptIsOneSession(t *testing.T, w *world) {
	const script = "insert into item (id, name) values (1, 'one'); insert into item (id, name) values (2, 'two')"
	if w.Engine() == thole.Postgres {
		on, l := w.link(t)
		for text, want := range map[string]struct {
			is      error
			outcome thole.Outcome
			items   []int
		}{
			"insert": {thole.ErrConnLost, thole.RolledBack, nil},
			"commit": {thole.ErrCommitUnknown, thole.Unknown, []int{1, 2}},
		} {
			l.EatLater(text)
			_, err := on.ExecContext(t.Context(), script)
			wantIs(t, err, want.is)
			wantOutcome(t, err, want.outcome)
			l.EatLater("")
			w.wantItems(t, want.items...)
			w.exec(t, "delete from item")
		}
	}
	_, err := w.ExecContext(t.Context(), script+"; insert into item (id, name) values (2, 'again')")
	wantIs(t, err, thole.ErrUnique)
	wantOutcome(t, err, thole.RolledBack)
	w.wantItems(t)
	w.exec(t, script)
	w.wantItems(t, 1, 2)
}

// stockDriverRunsTwice shows that the link has teeth: with pgx's own driver for
// database/sql the same statement runs twice, and the error is nil. A pgx that
// no longer does so is as well; see reports of its issue tracker on SafeToRetry.
func stockDriverRunsTwice(t *testing.T, w *world) {
	if w.Engine() != thole.Postgres {
		wantDefinite(t, w)
		return
	}
	w.exec(t, "alter table part drop constraint part_item_fkey; "+unlink)
	cfg, err := thole.ParseURL(w.url)
	if err != nil {
		t.Fatal(err)
	}
	l := new(link.Link)
	l.Stand(cfg.Postgres)
	stock := stdlib.OpenDB(*cfg.Postgres.ConnConfig)
	defer stock.Close()
	if err := stock.PingContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.Eat("insert")
	_, err = stock.ExecContext(t.Context(), "insert into item (id, name) values (1, 'one')")
	rows := w.value(t, "select count(*) from item")
	t.Logf("pgx's own driver: %s rows, error %v", rows, err)
	if rows == "0" {
		t.Error("the statement did not reach the server: the link ate too early")
	}
}

func rollbackIsNotNil(t *testing.T, w *world) {
	if w.Engine() != thole.Postgres {
		wantDefinite(t, w)
		return
	}
	on, l := w.link(t, single)
	err := on.WithSession(t.Context(), func(tx *thole.Tx) error {
		forgeRollback(l)
		return insert(t.Context(), tx, 1)
	})
	wantIs(t, err, thole.ErrTxAborted)
	wantOutcome(t, err, thole.RolledBack)
}

// idleIsNotNil has the server say that no transaction is open any more.
//
// https://www.postgresql.org/docs/current/protocol-message-formats.html (ReadyForQuery)
func idleIsNotNil(t *testing.T, w *world) {
	if w.Engine() != thole.Postgres {
		wantDefinite(t, w)
		return
	}
	on, l := w.link(t, single)
	for _, end := range []error{nil, errFn} {
		err := on.WithSession(t.Context(), func(tx *thole.Tx) error {
			if err := begin(tx); err != nil {
				t.Error(err)
			}
			l.Forge("Z\x00\x00\x00\x05T", "Z\x00\x00\x00\x05I")
			if err := insert(t.Context(), tx, 1); err != nil {
				t.Error(err)
			}
			return end
		})
		wantIs(t, err, thole.ErrTxControl)
		wantOutcome(t, err, thole.Unknown)
		l.Forge("", "")
	}
}

// ownership is section F: who owns the transaction.
var ownership = []sentence{
	{"F1", clauses(
		sentence{"refused", controlIsRefused},
		sentence{"behind the lexer", controlBehindLexer},
	)},
	{"F2", clauses(
		sentence{"statement", engineRollsBack},
		sentence{"interrupt", interruptRollsBack},
	)},
	{"F3", clauses(
		sentence{"local", settingsAreLocal},
		sentence{"nested", settingsOfNested},
		sentence{"secret", settingsAreSecret},
	)},
	{"F4", clauses(
		sentence{"late", setTransactionTooLate},
		sentence{"read-only", writesAreRefused},
	)},
}

// controls are texts that begin or end a transaction.
var controls = []string{
	"begin", "BEGIN IMMEDIATE", "start transaction", "commit", "/* so */ COMMIT and chain", "end", "rollback", "abort",
	"-- so\nrollback work", "select 1; commit", "select ';'; end; select 1", "prepare transaction 'x'", "commit prepared 'x'",
	"select 1;; rollback; begin",
}

// controlIsRefused tries each text on each handle, in a session and outside.
func controlIsRefused(t *testing.T, w *world) {
	on, o := w.observe(t)
	handles := map[string]func(ctx context.Context, q thole.Querier, text string) error{
		"Exec": func(ctx context.Context, q thole.Querier, text string) error {
			_, err := q.ExecContext(ctx, text)
			return err
		},
		"Query": func(ctx context.Context, q thole.Querier, text string) error {
			_, err := q.QueryContext(ctx, text) //nolint:rowserrcheck,sqlclosecheck // it fails
			return err
		},
		"Prepare": func(ctx context.Context, q thole.Querier, text string) error {
			_, err := q.PrepareContext(ctx, text) //nolint:sqlclosecheck // it fails
			return err
		},
		"Sqlx": func(ctx context.Context, _ thole.Querier, text string) error {
			_, err := on.Sqlx().ExecContext(ctx, text)
			return err
		},
		"Sqlx Get": func(ctx context.Context, _ thole.Querier, text string) error {
			return on.Sqlx().GetContext(ctx, new(int), text)
		},
		"QueryRowx": func(ctx context.Context, q thole.Querier, text string) error {
			return q.QueryRowxContext(ctx, text).Err()
		},
	}
	for _, text := range controls {
		for name, run := range handles {
			err := on.WithSession(t.Context(), func(tx *thole.Tx) error {
				if err := insert(t.Context(), tx, 1); err != nil {
					return err
				}
				wantIs(t, run(tx.Context(), tx, text), thole.ErrTxControl)
				return nil
			})
			wantIs(t, err, thole.ErrTxControl)
			wantOutcome(t, err, thole.RolledBack)
			outside := run(t.Context(), on, text)
			if !errors.Is(outside, thole.ErrTxControl) {
				t.Errorf("%s: %q outside a session: got error %v, want %v", name, text, outside, thole.ErrTxControl)
			}
		}
	}
	for _, control := range o.control() {
		if control != "begin" && control != "rollback" {
			t.Errorf("sent %q, want it to be refused before", control)
		}
	}
	on.wantItems(t)
}

// controlBehindLexer has a setting of PostgreSQL's make another text of what the
// lexer has read: one literal to it, it is three statements to the server, which
// takes several in one text where the lexer has seen another one before, and
// the last tag and the status are those of a transaction. Nothing can do that on
// SQLite; what a connection hook of the program's can do is tested with the
// engine.
func controlBehindLexer(t *testing.T, w *world) {
	if w.Engine() != thole.Postgres {
		controlIsRefused(t, w)
		return
	}
	on := w.reopen(t, single)
	for _, hidden := range []string{
		`select 1; select '\''; commit; begin; select '`, `select 1; select '\''; rollback; begin; select '`, `select 1; select '\''; commit; select '`,
	} {
		for _, end := range []error{nil, errFn} {
			err := on.WithSession(t.Context(), func(tx *thole.Tx) error {
				if _, err := tx.ExecContext(t.Context(), "set local standard_conforming_strings = off; set local escape_string_warning = off"); err != nil {
					return err
				}
				if err := insert(t.Context(), tx, 1); err != nil {
					return err
				}
				_, err := tx.ExecContext(t.Context(), hidden+`'`)
				wantIs(t, err, thole.ErrTxControl)
				wantIs(t, insert(t.Context(), tx, 2), thole.ErrTxControl)
				return end
			})
			wantIs(t, err, thole.ErrTxControl)
			wantOutcome(t, err, thole.Unknown)
			w.exec(t, "delete from item where id = 1")
			w.wantItems(t)
		}
	}
}

// engineRollsBack has SQLite roll back by itself. On PostgreSQL nothing does,
// and each failure aborts the transaction: A6.
func engineRollsBack(t *testing.T, w *world) {
	if w.Engine() == thole.Postgres {
		swallowedError(t, w)
		return
	}
	w.exec(t, "create trigger heavy before insert on item when new.note = 'heavy' begin select raise(rollback, 'too heavy'); end")
	for name, c := range map[string]struct {
		text string
		is   error
	}{
		"OR ROLLBACK":     {"insert or rollback into item (id, name) values (1, 'again')", thole.ErrUnique},
		"RAISE(ROLLBACK)": {"insert into item (id, name, note) values (2, 'two', 'heavy')", nil},
	} {
		for _, nested := range []bool{false, true} {
			fails := func(tx *thole.Tx) error {
				_, err := tx.ExecContext(t.Context(), c.text)
				if err == nil || c.is != nil && !errors.Is(err, c.is) {
					t.Errorf("%s: got error %v, want %v", name, err, c.is)
				}
				wantPoisoned(t, tx)
				return nil
			}
			err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
				if err := insert(t.Context(), tx, 1); err != nil {
					return err
				}
				if !nested {
					return fails(tx)
				}
				wantIs(t, tx.WithSession(t.Context(), fails), thole.ErrTxAborted)
				wantPoisoned(t, tx)
				return nil
			})
			wantIs(t, err, thole.ErrTxAborted)
			if c.is != nil {
				wantIs(t, err, c.is)
			}
			wantOutcome(t, err, thole.RolledBack)
			w.wantItems(t)
		}
	}
}

// interruptRollsBack interrupts a write, upon which SQLite rolls back all of the
// transaction.
func interruptRollsBack(t *testing.T, w *world) {
	on, g := w.gate(t)
	err := on.WithSession(t.Context(), func(tx *thole.Tx) error {
		if err := insert(t.Context(), tx, -1); err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(tx.Context())
		wantIs(t, g.endlessWrite(t, ctx, tx, cancel), context.Canceled)
		wantPoisoned(t, tx)
		return nil
	})
	wantIs(t, err, thole.ErrTxAborted, context.Canceled)
	wantOutcome(t, err, thole.RolledBack)
	on.wantItems(t)
}

// tenant is a setting with what would break a text in it.
var tenant = thole.SessionOptions{Settings: map[string]string{"app.tenant": `o'ne"; select $1`, "app.role": "smith"}}

// wantNoSettings checks that SQLite, which has none, says so before fn runs.
func wantNoSettings(t *testing.T, w *world) {
	t.Helper()
	err := w.WithSessionOptions(t.Context(), tenant, func(*thole.Tx) error { t.Error("fn ran"); return nil })
	wantIs(t, err, errors.ErrUnsupported)
}

// settingsAreLocal looks for them in the session, and on its connection when it
// has ended, in every way.
func settingsAreLocal(t *testing.T, w *world) {
	if w.Engine() != thole.Postgres {
		wantNoSettings(t, w)
		return
	}
	on := w.reopen(t, single)
	read := func(q thole.Querier) (value string) {
		err := q.GetContext(t.Context(), &value, "select coalesce(current_setting('app.tenant', true), '') || '/' || coalesce(current_setting('app.role', true), '')")
		if err != nil {
			t.Error(err)
		}
		return value
	}
	for _, end := range []func() error{func() error { return nil }, func() error { return errFn }, func() error { panic(errFn) }} {
		recovered(func() {
			_ = on.WithSessionOptions(t.Context(), tenant, func(tx *thole.Tx) error {
				if got, want := read(tx), `o'ne"; select $1/smith`; got != want {
					t.Errorf("settings in the session: got %q, want %q", got, want)
				}
				return end()
			})
		})
		if got := read(on); got != "/" {
			t.Errorf("settings after the session: got %q, want none", got)
		}
	}
}

// settingsOfNested are those of the outermost session.
func settingsOfNested(t *testing.T, w *world) {
	if w.Engine() != thole.Postgres {
		wantNoSettings(t, w)
		return
	}
	other := thole.SessionOptions{Settings: map[string]string{"app.tenant": "two"}}
	same := thole.SessionOptions{Settings: map[string]string{"app.role": "smith"}}
	err := w.WithSessionOptions(t.Context(), tenant, func(tx *thole.Tx) error {
		err := tx.WithSessionOptions(t.Context(), other, func(*thole.Tx) error { t.Error("fn ran"); return nil })
		wantIs(t, err, thole.ErrNested)
		return tx.WithSession(t.Context(), func(tx *thole.Tx) error {
			return tx.WithSessionOptions(t.Context(), same, func(*thole.Tx) error { return nil })
		})
	})
	if err != nil {
		t.Errorf("got error %v, want nil: the settings are the outer session's", err)
	}
}

// settingsAreSecret has the server refuse one, and looks for its value.
func settingsAreSecret(t *testing.T, w *world) {
	if w.Engine() != thole.Postgres {
		wantNoSettings(t, w)
		return
	}
	for name, code := range map[string]string{"work_mem": "22023", "no_such_setting": "42704"} {
		opts := thole.SessionOptions{Settings: map[string]string{name: "s3cr3t"}}
		err := w.WithSessionOptions(t.Context(), opts, begin)
		var told *thole.Error
		if !errors.As(err, &told) || told.Code != code || strings.Contains(fmt.Sprint(err), "s3cr3t") {
			t.Errorf("%s: got error %v, want one with Code %s and without the value", name, err, code)
		}
	}
}

// setTransactionTooLate comes after a query. SQLite knows no such statement.
func setTransactionTooLate(t *testing.T, w *world) {
	err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
		if err := insert(t.Context(), tx, 1); err != nil {
			return err
		}
		_, err := tx.ExecContext(t.Context(), "set transaction isolation level serializable")
		return err
	})
	var told *thole.Error
	if !errors.As(err, &told) {
		t.Fatalf("got error %v, want a *thole.Error", err)
	}
	wantOutcome(t, err, thole.RolledBack)
	if w.Engine() != thole.Postgres {
		if told.Code != "SQLITE_ERROR" {
			t.Errorf("got code %s, want SQLITE_ERROR", told.Code)
		}
		return
	}
	wantIs(t, err, errors.ErrUnsupported)
	wantText(t, err, "options of the session", "25001")
}

func writesAreRefused(t *testing.T, w *world) {
	for _, text := range []string{
		"insert into item (id, name) values (1, 'one')", "create table other (id integer)", "delete from item", "update item set note = ''",
	} {
		err := w.WithSessionOptions(t.Context(), thole.SessionOptions{ReadOnly: true}, func(tx *thole.Tx) error {
			_, err := tx.ExecContext(t.Context(), text)
			return err
		})
		wantIs(t, err, thole.ErrReadOnly)
		wantOutcome(t, err, thole.RolledBack)
	}
}

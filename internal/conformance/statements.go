//nolint:rowserrcheck,sqlclosecheck // leaves rows and statements open on purpose
package conformance

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/link"
)

// statements is section G: rows, statements and goroutines, and the views.
var statements = []sentence{
	{"G1", clauses(
		sentence{"nil", rowsLeftOpen},
		sentence{"error", rowsLeftOpenByFailure},
		sentence{"nested", rowsLeftOpenNested},
		sentence{"endless", endlessRowsLeftOpen},
	)},
	{"G2", busyWithRows},
	{"G3", clauses(
		sentence{"ignored", ignoredRowsFailure},
		sentence{"early break", brokenOffBeforeFailure},
		sentence{"cancelled", cancelledBetweenRows},
	)},
	{"G4", clauses(
		sentence{"second", secondStatementIsRefused},
		sentence{"at once", goroutinesAtOnce},
	)},
	{"G5", clauses(
		sentence{"Tx", txAfterEnd},
		sentence{"rows", rowsAfterEnd},
		sentence{"statement", stmtAfterEnd},
		sentence{"fresh", txIsNeverReused},
	)},
	{"G6", clauses(
		sentence{"statement", statementOutlivesFn},
		sentence{"rows", rowsOutliveFn},
		sentence{"nested", nestedOutlivesFn},
	)},
	{"G7", clauses(
		sentence{"aborted", scanInAborted},
		sentence{"deferred", failureInScan},
	)},
	{"G8", clauses(
		sentence{"statement", interruptedRows},
		sentence{"script", interruptedScript},
	)},
	{"SqlxTx", sqlxTx},
	{"SqlxDB", sqlxDB},
	{"SqlxBegin", clauses(
		sentence{"ends", sqlxBegin},
		sentence{"joins", sqlxBeginInside},
	)},
}

// many returns its rows a few at a time, a hundred million of them.
const many = "with recursive n (i) as (select 1 union all select i + 1 from n where i < 100000000) select i from n"

// queries are the ways to have rows that stay open.
func (w *world) queries() map[string]func(tx *thole.Tx, query string) (*sql.Rows, error) {
	unwrapped := func(rows *sqlx.Rows, err error) (*sql.Rows, error) {
		if err != nil {
			return nil, err
		}
		return rows.Rows, nil
	}
	return map[string]func(tx *thole.Tx, query string) (*sql.Rows, error){
		"Query": func(tx *thole.Tx, query string) (*sql.Rows, error) { return tx.QueryContext(tx.Context(), query) },
		"Queryx": func(tx *thole.Tx, query string) (*sql.Rows, error) {
			return unwrapped(tx.QueryxContext(tx.Context(), query))
		},
		"DB": func(tx *thole.Tx, query string) (*sql.Rows, error) { return w.QueryContext(tx.Context(), query) },
		"Tx.Sqlx": func(tx *thole.Tx, query string) (*sql.Rows, error) {
			return tx.Sqlx().QueryContext(tx.Context(), query)
		},
		"DB.Sqlx": func(tx *thole.Tx, query string) (*sql.Rows, error) { return w.Sqlx().QueryContext(tx.Context(), query) },
		"Stmt": func(tx *thole.Tx, query string) (*sql.Rows, error) {
			stmt, err := tx.PrepareContext(tx.Context(), query)
			if err != nil {
				return nil, err
			}
			return stmt.QueryContext(tx.Context())
		},
	}
}

func rowsLeftOpen(t *testing.T, w *world) {
	on := w.reopen(t, single)
	id := on.connection(t)
	for name, query := range on.queries() {
		for _, read := range []int{0, 2} {
			var rows *sql.Rows
			err := on.WithSession(t.Context(), func(tx *thole.Tx) (err error) {
				if err := insert(tx.Context(), tx, 1); err != nil {
					t.Error(err)
				}
				rows, err = query(tx, "select 1 as i union all select 2 union all select 3 order by i")
				for range read {
					rows.Next()
				}
				return err
			})
			wantIs(t, err, thole.ErrRowsOpen)
			wantOutcome(t, err, thole.RolledBack)
			wantText(t, err, "conformance/statements.go:", `the rows of "select 1 as i`)
			if rows.Next() {
				t.Errorf("%s: the rows are still open", name)
			}
			on.wantItems(t)
			if now := on.connection(t); now != id {
				t.Errorf("%s: the session has connection %s, want %s as before", name, now, id)
			}
		}
	}
}

// wantText checks what err tells.
func wantText(t *testing.T, err error, want ...string) {
	t.Helper()
	for _, want := range want {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got error %v, want it to tell %q", err, want)
		}
	}
}

// rowsLeftOpenByFailure leaves rows open where fn fails anyway: its own failure
// is the one to tell.
func rowsLeftOpenByFailure(t *testing.T, w *world) {
	on := w.reopen(t, single)
	id := on.connection(t)
	open := func(end func()) func(tx *thole.Tx) error {
		return func(tx *thole.Tx) error {
			if err := insert(tx.Context(), tx, 1); err != nil {
				t.Error(err)
			}
			_, err := tx.QueryContext(tx.Context(), many)
			if err != nil {
				t.Error(err)
			}
			end()
			return errFn
		}
	}
	err := on.WithSession(t.Context(), open(func() {}))
	wantIs(t, err, errFn)
	if v, _ := recovered(func() { _ = on.WithSession(t.Context(), open(func() { panic(errFn) })) }); v != errFn {
		t.Errorf("got the panic %v, want fn's own", v)
	}
	on.wantItems(t)
	if now := on.connection(t); now != id {
		t.Errorf("the session has connection %s, want %s as before", now, id)
	}
}

func rowsLeftOpenNested(t *testing.T, w *world) {
	err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
		err := tx.WithSession(tx.Context(), func(inner *thole.Tx) error {
			if err := insert(inner.Context(), inner, 1); err != nil {
				t.Error(err)
			}
			_, err := inner.QueryContext(inner.Context(), "select id from item")
			return err
		})
		wantIs(t, err, thole.ErrRowsOpen)
		wantText(t, err, "conformance/statements.go:")
		return insert(tx.Context(), tx, 2)
	})
	if err != nil {
		t.Errorf("outer session: got error %v, want nil", err)
	}
	w.wantItems(t, 2)
}

// endlessRowsLeftOpen leaves rows that nobody would read to their end.
func endlessRowsLeftOpen(t *testing.T, w *world) {
	on := w.reopen(t, single)
	id := on.connection(t)
	ended := make(chan error, 1)
	go func() {
		ended <- on.WithSession(t.Context(), func(tx *thole.Tx) error {
			_, err := tx.QueryContext(tx.Context(), strings.Replace(many, " where i < 100000000", "", 1))
			return err
		})
	}()
	wantIs(t, receive(t, ended), thole.ErrRowsOpen)
	if now := on.connection(t); now != id {
		t.Errorf("the session has connection %s, want %s as before", now, id)
	}
}

func busyWithRows(t *testing.T, w *world) {
	for name, query := range w.queries() {
		err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
			rows, err := query(tx, "select 1 as i union all select 2 order by i")
			if err != nil {
				return err
			}
			defer rows.Close()
			read := 0
			for rows.Next() {
				wantBusy(t, w, tx)
				read++
			}
			if err := rows.Err(); err != nil || read != 2 {
				t.Errorf("%s: read %d rows, error %v, want 2 and nil: they go on", name, read, err)
			}
			return insert(tx.Context(), tx, 1)
		})
		if err != nil {
			t.Errorf("%s: got error %v, want nil", name, err)
		}
		w.wantItems(t, 1)
		w.exec(t, "delete from item")
	}
}

// wantBusy checks that nothing can be done with tx while its rows are open.
func wantBusy(t *testing.T, w *world, tx *thole.Tx) {
	t.Helper()
	calls := callsOn(tx)
	calls["DB"] = insert(tx.Context(), w, 2)
	_, calls["Sqlx"] = tx.Sqlx().ExecContext(tx.Context(), "delete from item")
	for name, err := range calls {
		if !errors.Is(err, thole.ErrBusy) || errors.Is(err, driver.ErrBadConn) {
			t.Errorf("%s: got error %v, want %v", name, err, thole.ErrBusy)
		}
		wantText(t, err, `the rows of "select 1 as i`, "at conformance/statements.go:")
	}
}

// failing returns a query that fails in its third row, and how it does.
func (w *world) failing() (query, code string) {
	if w.Engine() == thole.Postgres {
		return "select 1 / (3 - i) from generate_series(1, 5) i", "22012"
	}
	return "select abs(column1) from (values (1), (2), (-9223372036854775807 - 1), (4))", "SQLITE_ERROR"
}

// ignoredRowsFailure reads what it gets and asks for no error.
func ignoredRowsFailure(t *testing.T, w *world) {
	failing, code := w.failing()
	for name, query := range w.queries() {
		err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
			if err := insert(tx.Context(), tx, 1); err != nil {
				t.Error(err)
			}
			rows, err := query(tx, failing)
			if err != nil {
				return err
			}
			defer rows.Close()
			read := 0
			for rows.Next() {
				read++
			}
			if read != 2 {
				t.Errorf("%s: read %d rows, want 2 before the failure", name, read)
			}
			return nil
		})
		wantIs(t, err, thole.ErrTxAborted)
		wantOutcome(t, err, thole.RolledBack)
		wantFirstFailure(t, err, failing, code)
		w.wantItems(t)
	}
}

// brokenOffBeforeFailure breaks after the first row. PostgreSQL has failed by
// then, or fails while the rest is thrown away. SQLite has not come that far,
// and never does.
func brokenOffBeforeFailure(t *testing.T, w *world) {
	failing, code := w.failing()
	for name, query := range w.queries() {
		err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
			rows, err := query(tx, failing)
			if err != nil {
				return err
			}
			rows.Next()
			_ = rows.Close()
			_ = insert(tx.Context(), tx, 1)
			return nil
		})
		if w.Engine() == thole.Postgres {
			wantIs(t, err, thole.ErrTxAborted)
			wantFirstFailure(t, err, failing, code)
			w.wantItems(t)
			continue
		}
		if err != nil {
			t.Errorf("%s: got error %v, want nil: nothing has failed", name, err)
		}
		w.wantItems(t, 1)
		w.exec(t, "delete from item")
	}
}

// cancelledBetweenRows reads some of many rows under a ctx of their own, which
// then ends. What is around the level of the rows is not concerned.
func cancelledBetweenRows(t *testing.T, w *world) {
	read := func(tx *thole.Tx) error {
		ctx, cancel := context.WithCancelCause(tx.Context())
		defer cancel(nil)
		rows, err := tx.QueryContext(ctx, many)
		if err != nil {
			return err
		}
		defer rows.Close()
		rows.Next()
		cancel(errCause)
		for rows.Next() {
		}
		return nil
	}
	err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
		wantIs(t, tx.WithSession(tx.Context(), read), thole.ErrTxAborted, context.Canceled, errCause)
		return insert(tx.Context(), tx, 1)
	})
	if err != nil {
		t.Errorf("outer session: got error %v, want nil", err)
	}
	w.wantItems(t, 1)
	wantIs(t, w.WithSession(t.Context(), read), thole.ErrTxAborted, context.Canceled, errCause)
}

// secondStatementIsRefused comes while another goroutine's is in the database.
func secondStatementIsRefused(t *testing.T, w *world) {
	on, g := w.gate(t)
	err := on.WithSession(t.Context(), func(tx *thole.Tx) error {
		ended := make(chan error, 1)
		go func() {
			_, err := tx.ExecContext(tx.Context(), g.statement)
			ended <- err
		}()
		g.wait(t)
		for name, err := range callsOn(tx) {
			if !errors.Is(err, thole.ErrBusy) {
				t.Errorf("%s: got error %v, want %v", name, err, thole.ErrBusy)
			}
			wantText(t, err, fmt.Sprintf("%q is in progress", g.statement))
		}
		g.open()
		if err := receive(t, ended); err != nil {
			t.Errorf("first statement: got error %v, want nil", err)
		}
		return insert(tx.Context(), tx, 1)
	})
	if err != nil {
		t.Errorf("got error %v, want nil", err)
	}
	on.wantItems(t, 1)
}

// goroutinesAtOnce has the race detector look on.
func goroutinesAtOnce(t *testing.T, w *world) {
	var added [160]atomic.Bool
	err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
		var all sync.WaitGroup
		for id := range added {
			all.Go(func() {
				var err error
				switch id % 4 {
				case 0:
					err = insert(tx.Context(), tx, id)
				case 1:
					err = tx.GetContext(tx.Context(), new(int), "select count(*) from item")
				case 2:
					err = tx.WithSession(tx.Context(), func(inner *thole.Tx) error { return insert(inner.Context(), inner, id) })
				case 3:
					_, err = tx.PrepareContext(tx.Context(), "select id from item")
				}
				if err != nil && !errors.Is(err, thole.ErrBusy) && !errors.Is(err, thole.ErrNested) {
					t.Errorf("got error %v, want none or %v", err, thole.ErrBusy)
				}
				added[id].Store(err == nil && id%2 == 0)
			})
		}
		all.Wait()
		return nil
	})
	if err != nil {
		t.Errorf("got error %v, want nil", err)
	}
	want := []int{}
	for id := range added {
		if added[id].Load() {
			want = append(want, id)
		}
	}
	w.wantItems(t, want...)
}

// ends are the ways in which a session ends, and what is said of it afterwards.
var ends = []struct {
	text string
	fn   func(cancel func()) error
	want error
}{
	{"it was committed", func(func()) error { return nil }, thole.ErrTxDone},
	{"it was rolled back", func(func()) error { return errFn }, errFn},
	{"it was rolled back", func(cancel func()) error { cancel(); return nil }, errCause},
	{"it was rolled back", func(cancel func()) error { cancel(); return nil }, context.Canceled},
}

// wantDead checks that err says how a session ended.
func wantDead(t *testing.T, name string, err error, text string, cause error) {
	t.Helper()
	if !errors.Is(err, thole.ErrTxDone) || !errors.Is(err, sql.ErrTxDone) || !errors.Is(err, cause) || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: got error %v, want %v that says %q because of %v", name, err, thole.ErrTxDone, text, cause)
	}
}

// idle reopens the database with one connection, and a function that checks
// whether anything was sent on it since. SQLite shows by its items that nothing
// was.
func (w *world) idle(t *testing.T) (on *world, mark func(), wantNothing func()) {
	t.Helper()
	if w.Engine() != thole.Postgres {
		on = w.reopen(t, single)
		return on, func() {}, func() { on.wantItems(t) }
	}
	on, l := w.link(t, single)
	at := 0
	mark = func() {
		on.exec(t, "select 1") // on the connection, which a ROLLBACK may have had until now
		at = l.Mark()
	}
	return on, mark, func() {
		t.Helper()
		if sent := l.Since(at); sent != "" {
			t.Errorf("sent\n%s\nwant nothing", sent)
		}
	}
}

func txAfterEnd(t *testing.T, w *world) {
	on, mark, wantNothing := w.idle(t)
	for _, end := range ends {
		ctx, cancel := context.WithCancelCause(t.Context())
		var tx *thole.Tx
		var view *sqlx.Tx
		_ = on.WithSession(ctx, func(its *thole.Tx) error {
			tx, view = its, its.Sqlx()
			if err := its.GetContext(ctx, new(int), "select count(*) from item"); err != nil {
				t.Error(err)
			}
			return end.fn(func() { cancel(errCause) })
		})
		mark()
		calls := callsOn(tx)
		own := context.WithoutCancel(tx.Context())
		calls["ExecContext, own ctx"] = insert(t.Context(), tx, 1)
		calls["DB"] = insert(own, on, 1)
		calls["DB.WithSession"] = on.WithSession(own, func(*thole.Tx) error { t.Error("fn ran"); return nil })
		calls["DB.Sqlx"] = sqlx.GetContext(own, on.Sqlx(), new(int), "select 1")
		for name, err := range calls {
			if errors.Is(ctx.Err(), context.Canceled) && strings.HasSuffix(name, "WithSession") && errors.Is(err, context.Canceled) {
				continue // WithSession looks at ctx first
			}
			wantDead(t, name, err, end.text, end.want)
		}
		if _, err := view.ExecContext(t.Context(), "delete from item"); !errors.Is(err, thole.ErrTxDone) {
			t.Errorf("Sqlx: got error %v, want %v", err, thole.ErrTxDone)
		}
		if _, err := tx.Sqlx().ExecContext(t.Context(), "delete from item"); !errors.Is(err, thole.ErrTxDone) {
			t.Errorf("Sqlx anew: got error %v, want %v", err, thole.ErrTxDone)
		}
		wantNothing()
		cancel(nil)
	}
}

// rowsAfterEnd keeps rows that were left open. Of those of a view database/sql
// may say itself that they have ended.
func rowsAfterEnd(t *testing.T, w *world) {
	on, mark, wantNothing := w.idle(t)
	for name, query := range on.queries() {
		var rows *sql.Rows
		err := on.WithSession(t.Context(), func(tx *thole.Tx) (err error) {
			rows, err = query(tx, many)
			if err != nil || !rows.Next() {
				t.Errorf("%s: no rows, error %v", name, err)
			}
			return errFn
		})
		wantIs(t, err, errFn)
		mark()
		if rows.Next() {
			t.Errorf("%s: there is another row", name)
		}
		if err := rows.Err(); name != "Tx.Sqlx" || !errors.Is(err, context.Canceled) {
			wantDead(t, name, err, "it was rolled back", errFn)
		}
		if err := rows.Close(); err != nil {
			t.Errorf("%s: close rows: %v", name, err)
		}
		wantNothing()
	}
}

func stmtAfterEnd(t *testing.T, w *world) {
	on, mark, wantNothing := w.idle(t)
	for _, end := range ends {
		ctx, cancel := context.WithCancelCause(t.Context())
		var read, write *sql.Stmt
		_ = on.WithSession(ctx, func(tx *thole.Tx) error {
			var errs [2]error
			read, errs[0] = tx.PrepareContext(ctx, "select id from item")
			write, errs[1] = tx.PrepareContext(ctx, "insert into item (id, name) values (1, 'late')")
			if err := errors.Join(errs[:]...); err != nil {
				t.Error(err)
			}
			return end.fn(func() { cancel(errCause) })
		})
		mark()
		_, err := write.ExecContext(t.Context())
		wantDead(t, "ExecContext", err, end.text, end.want)
		_, err = read.QueryContext(t.Context())
		wantDead(t, "QueryContext", err, end.text, end.want)
		wantDead(t, "QueryRowContext", read.QueryRowContext(t.Context()).Scan(new(int)), end.text, end.want)
		if err := errors.Join(read.Close(), write.Close()); err != nil {
			t.Errorf("close statements: %v", err)
		}
		wantNothing()
		cancel(nil)
	}
}

// txIsNeverReused keeps what sessions were given, so that a Tx which comes again
// is seen.
func txIsNeverReused(t *testing.T, w *world) {
	seen := make(map[*thole.Tx]bool)
	keep := func(tx *thole.Tx) {
		if seen[tx] {
			t.Error("a session was given the Tx of another")
		}
		seen[tx] = true
	}
	for range 50 {
		err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
			keep(tx)
			return tx.WithSession(tx.Context(), func(inner *thole.Tx) error { keep(inner); return nil })
		})
		if err != nil {
			t.Error(err)
		}
	}
	err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
		for old := range seen {
			wantIs(t, insert(tx.Context(), old, 1), thole.ErrTxDone)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	w.wantItems(t)
}

// leaving runs a session whose fn starts a goroutine and returns nil when told to
// by leave, which returns when the session has begun to end.
func (w *world) leaving(t *testing.T, start func(tx *thole.Tx)) (leave func(), ended chan error) {
	t.Helper()
	begun, left := make(chan *thole.Tx, 1), make(chan struct{})
	ended = make(chan error, 1)
	go func() {
		ended <- w.WithSession(t.Context(), func(tx *thole.Tx) error {
			start(tx)
			begun <- tx
			<-left
			return nil
		})
	}()
	tx := receive(t, begun)
	return func() {
		t.Helper()
		close(left)
		eventually(t, "the session is ending", func() bool { return errors.Is(insert(t.Context(), tx, 9), thole.ErrTxDone) })
	}, ended
}

// statementOutlivesFn returns nil while a goroutine is in the database: that is
// waited for, and then nothing is committed.
func statementOutlivesFn(t *testing.T, w *world) {
	l := new(link.Link)
	on, g := w.gate(t, single, standing(l))
	id := on.connection(t)
	mark := l.Mark()
	text := "insert into item (id, name) values (1, 'one'); " + g.statement
	stmt, late := make(chan error, 1), make(chan error, 1)
	leave, ended := on.leaving(t, func(tx *thole.Tx) {
		go func() {
			_, err := tx.ExecContext(tx.Context(), text)
			stmt <- err
			late <- insert(tx.Context(), tx, 2)
		}()
	})
	g.wait(t)
	leave()
	if len(ended) > 0 {
		t.Error("WithSession returned while a statement was in progress")
	}
	g.open()
	if err := receive(t, stmt); err != nil {
		t.Errorf("statement: got error %v, want nil: nothing comes between", err)
	}
	wantIs(t, receive(t, late), thole.ErrTxDone)
	err := receive(t, ended)
	wantIs(t, err, thole.ErrBusy)
	wantOutcome(t, err, thole.RolledBack)
	wantText(t, err, text, "is in progress")
	if sent := l.Since(mark); strings.Contains(sent, "commit") {
		t.Errorf("sent\n%s\nwant no COMMIT", sent)
	}
	on.wantItems(t)
	if now := on.connection(t); now != id {
		t.Errorf("the session has connection %s, want %s as before", now, id)
	}
}

// rowsOutliveFn returns nil while a goroutine reads rows.
func rowsOutliveFn(t *testing.T, w *world) {
	on := w.reopen(t, single)
	id := on.connection(t)
	reading, read := make(chan struct{}), make(chan error, 1)
	leave, ended := on.leaving(t, func(tx *thole.Tx) {
		go func() {
			rows, err := tx.QueryContext(tx.Context(), many)
			if err != nil {
				t.Error(err)
				return
			}
			defer rows.Close()
			rows.Next()
			close(reading)
			for rows.Next() {
			}
			read <- rows.Err()
		}()
	})
	<-reading
	leave()
	wantDead(t, "rows", receive(t, read), "use session opened at", thole.ErrTxDone)
	wantIs(t, receive(t, ended), thole.ErrRowsOpen)
	if now := on.connection(t); now != id {
		t.Errorf("the session has connection %s, want %s as before", now, id)
	}
}

// nestedOutlivesFn returns nil while a goroutine has a nested session.
func nestedOutlivesFn(t *testing.T, w *world) {
	inside, nested, resume := make(chan struct{}), make(chan error, 1), make(chan struct{})
	leave, ended := w.leaving(t, func(tx *thole.Tx) {
		go func() {
			nested <- tx.WithSession(tx.Context(), func(inner *thole.Tx) error {
				if err := insert(inner.Context(), inner, 1); err != nil {
					t.Error(err)
				}
				close(inside)
				<-resume
				wantIs(t, insert(inner.Context(), inner, 2), thole.ErrTxDone)
				return nil
			})
		}()
		<-inside
	})
	leave()
	err := receive(t, ended)
	wantIs(t, err, thole.ErrNested)
	wantText(t, err, "conformance/statements.go:", "is still open")
	wantOutcome(t, err, thole.RolledBack)
	close(resume)
	wantIs(t, receive(t, nested), thole.ErrTxDone)
	w.wantItems(t)
}

// scanInAborted asks for rows where nothing can be asked any more.
func scanInAborted(t *testing.T, w *world) {
	err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
		if tx.Engine() == thole.Postgres {
			_ = raise(tx, "22012")
		} else { // a failed statement takes nothing with it there
			_ = tx.WithSessionOptions(tx.Context(), join, func(*thole.Tx) error { return errFn })
		}
		var id int
		var ids []int
		const query = "select id from item"
		for name, err := range map[string]error{
			"Scan":          tx.QueryRowContext(tx.Context(), query).Scan(&id),
			"Err":           tx.QueryRowContext(tx.Context(), query).Err(),
			"sqlx Scan":     tx.QueryRowxContext(tx.Context(), query).Scan(&id),
			"GetContext":    tx.GetContext(tx.Context(), &id, query),
			"SelectContext": tx.SelectContext(tx.Context(), &ids, query),
		} {
			if !errors.Is(err, thole.ErrTxAborted) || errors.Is(err, sql.ErrNoRows) {
				t.Errorf("%s: got error %v, want %v", name, err, thole.ErrTxAborted)
			}
		}
		return nil
	})
	wantIs(t, err, thole.ErrTxAborted)
}

// failureInScan has queries that fail in their first row and in a later one, and
// an fn that looks away. SQLite fails in the first row before there are rows:
// that is a failure as in A6, which takes nothing with it.
func failureInScan(t *testing.T, w *world) {
	first, code := "select 1 / (1 - i) from generate_series(1, 5) i", "22012"
	aborted := thole.ErrTxAborted
	if w.Engine() != thole.Postgres {
		first, code, aborted = "select abs(-9223372036854775807 - 1)", "SQLITE_ERROR", nil
	}
	later, _ := w.failing()
	var id int
	var ids []int
	for name, c := range map[string]struct {
		query string
		ask   func(tx *thole.Tx) error
		want  error
	}{
		"Scan":          {first, func(tx *thole.Tx) error { return tx.QueryRowContext(tx.Context(), first).Scan(&id) }, aborted},
		"sqlx Scan":     {first, func(tx *thole.Tx) error { return tx.QueryRowxContext(tx.Context(), first).Scan(&id) }, aborted},
		"GetContext":    {first, func(tx *thole.Tx) error { return tx.GetContext(tx.Context(), &id, first) }, aborted},
		"SelectContext": {later, func(tx *thole.Tx) error { return tx.SelectContext(tx.Context(), &ids, later) }, thole.ErrTxAborted},
		"Err":           {later, func(tx *thole.Tx) error { return readAll(tx, later) }, thole.ErrTxAborted},
	} {
		err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
			var told *thole.Error
			if err := c.ask(tx); !errors.As(err, &told) || told.Code != code || told.Query != c.query {
				t.Errorf("%s: got error %v, want one with Code %s and the query", name, err, code)
			}
			return nil
		})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: got error %v, want %v", name, err, c.want)
		}
		if c.want != nil {
			wantFirstFailure(t, err, c.query, code)
		}
	}
}

// readAll returns what rows.Err says at the end.
func readAll(tx *thole.Tx, query string) error {
	rows, err := tx.QueryContext(tx.Context(), query)
	if err != nil {
		return nil // not the failure that is looked for
	}
	defer rows.Close()
	for rows.Next() {
	}
	return rows.Err()
}

// interruptedRows stops a statement that adds many items in the middle of them.
func interruptedRows(t *testing.T, w *world) {
	on, g := w.gate(t)
	text := "insert into item (id, name) select i, case i when 50 then pg_advisory_xact_lock(1)::text else i::text end from generate_series(1, 100) i"
	if w.Engine() != thole.Postgres {
		text = "with recursive n (i) as (select gate() union all select i + 1 from n) insert into item (id, name) select i, i from n"
	}
	err := on.WithSession(t.Context(), func(tx *thole.Tx) error {
		ctx, cancel := context.WithCancelCause(tx.Context())
		wantIs(t, g.run(t, ctx, tx, func() { cancel(errCause) }, text), context.Canceled, errCause)
		wantIs(t, insert(tx.Context(), tx, 101), thole.ErrTxAborted)
		return nil
	})
	wantIs(t, err, thole.ErrTxAborted, context.Canceled, errCause)
	wantOutcome(t, err, thole.RolledBack)
	on.wantItems(t)
}

// interruptedScript stops a text of several statements in one that only reads,
// when others have written: by itself SQLite would keep what they did. The level
// where that happened can't be kept, the one around it can.
func interruptedScript(t *testing.T, w *world) {
	on, g := w.gate(t)
	wait := g.statement
	if w.Engine() != thole.Postgres {
		wait = "with recursive n (i) as (select gate() union all select i + 1 from n) select count(*) from n"
	}
	text := "insert into item (id, name) values (1, 'one'), (2, 'two'); " + wait + "; insert into item (id, name) values (3, 'three')"
	err := on.WithSession(t.Context(), func(tx *thole.Tx) error {
		err := tx.WithSession(tx.Context(), func(inner *thole.Tx) error {
			ctx, cancel := context.WithCancelCause(inner.Context())
			wantIs(t, g.run(t, ctx, inner, func() { cancel(errCause) }, text), context.Canceled, errCause)
			wantIs(t, insert(inner.Context(), inner, 4), thole.ErrTxAborted)
			return nil
		})
		wantIs(t, err, thole.ErrTxAborted, context.Canceled, errCause)
		return insert(tx.Context(), tx, 5)
	})
	if err != nil {
		t.Errorf("outer session: got error %v, want nil", err)
	}
	on.wantItems(t, 5)
}

func sqlxTx(t *testing.T, w *world) {
	err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
		view := tx.Sqlx()
		if view != tx.Sqlx() {
			t.Error("got another view, want the same")
		}
		if err := insert(tx.Context(), tx, 1); err != nil {
			return err
		}
		_, err := view.NamedExecContext(tx.Context(), "insert into item (id, name) values (:id, :name)", map[string]any{"id": 2, "name": "view"})
		if err != nil {
			return err
		}
		var ids [2][]int
		err = errors.Join(view.SelectContext(tx.Context(), &ids[0], "select id from item order by id"),
			tx.SelectContext(tx.Context(), &ids[1], "select id from item order by id"))
		if want := []int{1, 2}; !slices.Equal(ids[0], want) || !slices.Equal(ids[1], want) {
			t.Errorf("got items %v by the view and %v by the Tx, want %v by both", ids[0], ids[1], want)
		}
		return err
	})
	if err != nil {
		t.Errorf("got error %v, want nil", err)
	}
	w.wantItems(t, 1, 2)
	w.exec(t, "delete from item")
	wantNoEnd(t, w, func(tx *thole.Tx) ender { return tx.Sqlx() })
}

// ender is a transaction of database/sql's or sqlx's.
type ender interface {
	Commit() error
	Rollback() error
}

// wantNoEnd checks that a view of a session does not end it, and that the
// session in which it tried fails, and what is around that does not.
func wantNoEnd(t *testing.T, w *world, view func(tx *thole.Tx) ender) {
	t.Helper()
	for name, end := range map[string]func(ender) error{"Commit": ender.Commit, "Rollback": ender.Rollback} {
		fails := func(tx *thole.Tx) error {
			if err := insert(tx.Context(), tx, 1); err != nil {
				t.Error(err)
			}
			err := end(view(tx))
			wantIs(t, err, thole.ErrTxControl)
			wantText(t, err, "refuse "+name, "at conformance/statements.go:")
			wantIs(t, insert(tx.Context(), tx, 2), thole.ErrTxControl)
			return nil
		}
		err := w.WithSession(t.Context(), fails)
		wantIs(t, err, thole.ErrTxControl)
		wantOutcome(t, err, thole.RolledBack)
		w.wantItems(t)
		err = w.WithSession(t.Context(), func(tx *thole.Tx) error {
			wantIs(t, tx.WithSession(tx.Context(), fails), thole.ErrTxControl)
			return insert(tx.Context(), tx, 3)
		})
		if err != nil {
			t.Errorf("%s: outer session: got error %v, want nil", name, err)
		}
		w.wantItems(t, 3)
		w.exec(t, "delete from item")
	}
}

// sqlxDB is in the session that its ctx carries, and else in none.
func sqlxDB(t *testing.T, w *world) {
	view := w.Sqlx()
	err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
		_, err := view.NamedExecContext(tx.Context(), "insert into item (id, name) values (:id, :name)", map[string]any{"id": 1, "name": "view"})
		if err != nil {
			return err
		}
		var inside, outside int
		if err := tx.GetContext(tx.Context(), &inside, "select count(*) from item"); err != nil {
			return err
		}
		if !w.inMemory() { // it has no other connection to look from
			if err := view.GetContext(t.Context(), &outside, "select count(*) from item"); err != nil {
				return err
			}
		}
		if inside != 1 || outside != 0 {
			t.Errorf("got %d items inside the session and %d outside, want 1 and 0", inside, outside)
		}
		return errFn
	})
	wantIs(t, err, errFn)
	w.wantItems(t)
	if _, err := view.ExecContext(t.Context(), "insert into item (id, name) values (2, 'outside')"); err != nil {
		t.Error(err)
	}
	w.wantItems(t, 2)
}

// sqlxBegin ends sessions by the methods of sqlx.
func sqlxBegin(t *testing.T, w *world) {
	on := w.reopen(t, single)
	id := on.connection(t)
	begin := func(ctx context.Context, opts *sql.TxOptions, item int) (*sqlx.Tx, error) {
		tx, err := on.Sqlx().BeginTxx(ctx, opts)
		if err != nil {
			t.Fatal(err)
		}
		_, err = tx.ExecContext(ctx, "insert into item (id, name) values ($1, $2)", item, fmt.Sprint(item))
		return tx, err
	}
	committed, err := begin(t.Context(), nil, 1)
	if err := errors.Join(err, committed.Commit()); err != nil {
		t.Errorf("Commit: got error %v, want nil", err)
	}
	undone, err := begin(t.Context(), nil, 2)
	if err := errors.Join(err, undone.Rollback()); err != nil {
		t.Errorf("Rollback: got error %v, want nil", err)
	}
	reader, err := begin(t.Context(), &sql.TxOptions{ReadOnly: true}, 3)
	wantIs(t, err, thole.ErrReadOnly)
	if err := reader.Rollback(); err != nil {
		t.Errorf("Rollback: got error %v, want nil", err)
	}
	controlled, err := begin(t.Context(), nil, 4)
	if err != nil {
		t.Error(err)
	}
	_, err = controlled.ExecContext(t.Context(), "commit")
	wantIs(t, err, thole.ErrTxControl)
	wantIs(t, controlled.Commit(), thole.ErrTxControl)
	ctx, cancel := context.WithCancel(t.Context())
	left, err := begin(ctx, nil, 5)
	if err != nil {
		t.Error(err)
	}
	cancel()
	if err := left.Commit(); !errors.Is(err, context.Canceled) && !errors.Is(err, thole.ErrTxDone) {
		t.Errorf("Commit of a done ctx: got error %v, want %v", err, context.Canceled)
	}
	on.wantItems(t, 1)
	if now := on.connection(t); now != id {
		t.Errorf("the session has connection %s, want %s as before", now, id)
	}
}

// sqlxBeginInside begins nothing: the session is the transaction.
func sqlxBeginInside(t *testing.T, w *world) {
	wantNoEnd(t, w, func(tx *thole.Tx) ender {
		view, err := w.Sqlx().BeginTxx(tx.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		var items int
		if err := view.GetContext(tx.Context(), &items, "select count(*) from item where id = 1"); err != nil || items != 1 {
			t.Errorf("got %d items and error %v, want the one that the session has added", items, err)
		}
		return view
	})
}

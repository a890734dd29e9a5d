package thole_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/testing/dbtest"
)

const errorsSchema = `
create table parent (id integer primary key, name text not null unique, rating integer check (rating >= 0));
create table child (id integer primary key, parent integer references parent (id));`

// openForErrors is a database with a row in it.
func openForErrors(t *testing.T, db *thole.DB) {
	t.Helper()
	err := db.WithSession(t.Context(), func(tx *thole.Tx) error {
		_, err := tx.ExecContext(t.Context(), errorsSchema+"insert into parent values (1, 'iron', 3);")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestConstraintErrors breaks each kind of constraint on both engines.
func TestConstraintErrors(t *testing.T) {
	t.Parallel()
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		openForErrors(t, db)
		for _, tt := range []struct {
			query    string
			want     error
			code     string // on PostgreSQL
			sqlite   string // the code on SQLite
			told     thole.Error
			onSQLite thole.Error
		}{
			{
				"insert into parent values (2, ?, 1)", thole.ErrUnique, "23505", "SQLITE_CONSTRAINT_UNIQUE",
				thole.Error{Constraint: "parent_name_key", Table: "parent"},
				thole.Error{Table: "parent", Column: "name"},
			},
			{
				"insert into parent select 3, null, 1 where ? <> ''", thole.ErrNotNull, "23502", "SQLITE_CONSTRAINT_NOTNULL",
				thole.Error{Table: "parent", Column: "name"},
				thole.Error{Table: "parent", Column: "name"},
			},
			{
				"insert into parent select 4, 'x', -1 where ? <> ''", thole.ErrCheck, "23514", "SQLITE_CONSTRAINT_CHECK",
				thole.Error{Constraint: "parent_rating_check", Table: "parent"},
				thole.Error{Constraint: "rating >= 0"},
			},
			{
				"insert into child select 1, 99 where ? <> ''", thole.ErrForeignKey, "23503", "SQLITE_CONSTRAINT_FOREIGNKEY",
				thole.Error{Constraint: "child_parent_fkey", Table: "child"},
				thole.Error{},
			},
		} {
			_, err := db.ExecContext(t.Context(), tt.query, "iron")
			var got *thole.Error
			if !errors.Is(err, tt.want) || !errors.As(err, &got) {
				t.Errorf("%s: got error %v, want %v", tt.query, err, tt.want)
				continue
			}
			want, code := tt.told, tt.code
			if db.Engine() == thole.SQLite {
				want, code = tt.onSQLite, tt.sqlite
			}
			if got.Code != code || got.Constraint != want.Constraint || got.Table != want.Table || got.Column != want.Column {
				t.Errorf("%s: got %q of constraint %q, table %q, column %q, want %q of %q, %q, %q", tt.query,
					got.Code, got.Constraint, got.Table, got.Column, code, want.Constraint, want.Table, want.Column)
			}
			if got.Engine != db.Engine() || got.Query != tt.query || !strings.HasPrefix(got.Caller, "thole/errors_test.go:") && !strings.Contains(got.Caller, "/errors_test.go:") {
				t.Errorf("%s: got engine %q, query %q, caller %q", tt.query, got.Engine, got.Query, got.Caller)
			}
			if strings.Contains(err.Error(), "iron") {
				t.Errorf("the error quotes an argument: %v", err)
			}
		}
	})
}

// TestExclusionError is PostgreSQL's alone: SQLite has no such constraint.
func TestExclusionError(t *testing.T) {
	t.Parallel()
	db := dbtest.Config{Engines: []thole.Engine{thole.Postgres}}.Database(t)
	_, err := db.ExecContext(t.Context(), "create table room (during int4range, exclude using gist (during with &&))")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, err = db.ExecContext(t.Context(), "insert into room values ('[1,5)')")
	}
	if !errors.Is(err, thole.ErrExclusion) {
		t.Errorf("got error %v, want ErrExclusion", err)
	}
}

func TestReadOnlyError(t *testing.T) {
	t.Parallel()
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		openForErrors(t, db)
		err := db.WithSessionOptions(t.Context(), thole.SessionOptions{ReadOnly: true}, func(tx *thole.Tx) error {
			_, err := tx.ExecContext(t.Context(), "delete from parent")
			return err
		})
		if !errors.Is(err, thole.ErrReadOnly) {
			t.Errorf("got error %v, want ErrReadOnly", err)
		}
		// Nor can the session be made to write.
		allow := "set transaction read write"
		if db.Engine() == thole.SQLite {
			allow = "pragma query_only = 0"
		}
		err = db.WithSessionOptions(t.Context(), thole.SessionOptions{ReadOnly: true}, func(tx *thole.Tx) error {
			if _, err := tx.ExecContext(t.Context(), allow); err != nil {
				return err
			}
			_, err := tx.ExecContext(t.Context(), "delete from parent")
			return err
		})
		if err == nil {
			t.Errorf("%s: the session wrote after it", allow)
		}
	})
}

// slow is a statement that runs until it is stopped.
func slow(engine thole.Engine) string {
	if engine == thole.Postgres {
		return "select pg_sleep(60)"
	}
	return "with recursive n (i) as (select 1 union all select i + 1 from n) select count(*) from n"
}

func TestTimeoutErrors(t *testing.T) {
	t.Parallel()
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		for name, opts := range map[string]thole.SessionOptions{
			"Timeout":          {Timeout: 50 * time.Millisecond},
			"StatementTimeout": {StatementTimeout: 50 * time.Millisecond},
		} {
			err := db.WithSessionOptions(t.Context(), opts, func(tx *thole.Tx) error {
				_, err := tx.ExecContext(context.WithoutCancel(t.Context()), slow(db.Engine()))
				return err
			})
			if !errors.Is(err, thole.ErrTimeout) {
				t.Errorf("%s: got error %v, want ErrTimeout", name, err)
			}
			// PostgreSQL's own statement_timeout is no deadline of the program.
			ofProgram := name == "Timeout" || db.Engine() == thole.SQLite
			if got := errors.Is(err, context.DeadlineExceeded); got != ofProgram {
				t.Errorf("%s: got DeadlineExceeded %v of error %v, want %v", name, got, err, ofProgram)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := db.ExecContext(ctx, slow(db.Engine())); !errors.Is(err, thole.ErrTimeout) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("ctx: got error %v, want ErrTimeout and DeadlineExceeded", err)
		}
	})
}

// TestLockedError has one session wait for the other's lock in vain.
func TestLockedError(t *testing.T) {
	t.Parallel()
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		openForErrors(t, db)
		const write = "update parent set rating = 4 where id = 1"
		err := db.WithSessionOptions(t.Context(), thole.SessionOptions{Label: "holder"}, func(tx *thole.Tx) error {
			if _, err := tx.ExecContext(t.Context(), write); err != nil {
				return err
			}
			waits := make(chan error) // for another goroutine: a session waits for itself with another error
			go func() {
				opts := thole.SessionOptions{LockTimeout: 50 * time.Millisecond}
				waits <- db.WithSessionOptions(t.Context(), opts, func(tx *thole.Tx) error {
					_, err := tx.ExecContext(t.Context(), write)
					return err
				})
			}()
			return <-waits
		})
		if !errors.Is(err, thole.ErrLocked) {
			t.Fatalf("got error %v, want ErrLocked", err)
		}
		if db.Engine() == thole.SQLite && !strings.Contains(err.Error(), `"holder"`) {
			t.Errorf("got error %v, want one that names the session with the lock", err)
		}
	})
}

// TestDeadlockError is PostgreSQL's alone: SQLite has one writer.
func TestDeadlockError(t *testing.T) {
	t.Parallel()
	db := dbtest.Config{Engines: []thole.Engine{thole.Postgres}}.Database(t)
	openForErrors(t, db)
	if _, err := db.ExecContext(t.Context(), "insert into parent values (2, 'bronze', 1)"); err != nil {
		t.Fatal(err)
	}
	update := func(tx *thole.Tx, id int) error {
		_, err := tx.ExecContext(t.Context(), "update parent set rating = rating where id = ?", id)
		return err
	}
	locked1, locked2, other := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		other <- db.WithSession(t.Context(), func(tx *thole.Tx) error {
			if err := update(tx, 2); err != nil {
				return err
			}
			close(locked2)
			<-locked1
			return update(tx, 1)
		})
	}()
	err := db.WithSession(t.Context(), func(tx *thole.Tx) error {
		if err := update(tx, 1); err != nil {
			return err
		}
		close(locked1)
		<-locked2
		return update(tx, 2)
	})
	if both := errors.Join(err, <-other); !errors.Is(both, thole.ErrDeadlock) {
		t.Errorf("got errors %v, want ErrDeadlock in one of them", both)
	}
}

// TestSerializationError is PostgreSQL's alone: on SQLite the sessions would
// wait for each other.
func TestSerializationError(t *testing.T) {
	t.Parallel()
	db := dbtest.Config{Engines: []thole.Engine{thole.Postgres}}.Database(t)
	openForErrors(t, db)
	const change = "update parent set rating = rating + 1 where id = 1"
	opts := thole.SessionOptions{Isolation: sql.LevelRepeatableRead, MaxAttempts: 1}
	err := db.WithSessionOptions(t.Context(), opts, func(tx *thole.Tx) error {
		if err := tx.GetContext(t.Context(), new(int), "select rating from parent"); err != nil {
			return err
		}
		if _, err := db.ExecContext(t.Context(), change); err != nil {
			return err
		}
		_, err := tx.ExecContext(t.Context(), change)
		return err
	})
	if !errors.Is(err, thole.ErrSerialization) {
		t.Errorf("got error %v, want ErrSerialization", err)
	}
}

func TestConnLostError(t *testing.T) {
	t.Parallel()
	db := dbtest.Config{Engines: []thole.Engine{thole.Postgres}}.Database(t)
	err := db.WithSession(t.Context(), func(tx *thole.Tx) error {
		var pid int
		if err := tx.GetContext(t.Context(), &pid, "select pg_backend_pid()"); err != nil {
			return err
		}
		if _, err := db.ExecContext(t.Context(), "select pg_terminate_backend(?)", pid); err != nil {
			return err
		}
		_, err := tx.ExecContext(t.Context(), "select 1")
		return err
	})
	if !errors.Is(err, thole.ErrConnLost) || thole.OutcomeOf(err) != thole.RolledBack {
		t.Errorf("got error %v with outcome %v, want ErrConnLost, rolled back", err, thole.OutcomeOf(err))
	}
}

// TestOutcomeOf has sessions of two DBs in each other: the outermost counts.
func TestOutcomeOf(t *testing.T) {
	t.Parallel()
	if got := thole.OutcomeOf(nil); got != thole.Committed {
		t.Errorf("nil: got %v, want committed", got)
	}
	if got := thole.OutcomeOf(io.EOF); got != thole.RolledBack {
		t.Errorf("any other error: got %v, want rolled back", got)
	}
	for outcome, want := range map[thole.Outcome]string{thole.Committed: "committed", thole.RolledBack: "rolled back", thole.Unknown: "unknown"} {
		if got := fmt.Sprint(outcome); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestTxDoneError is the sentinel of database/sql too.
func TestTxDoneError(t *testing.T) {
	t.Parallel()
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		var late *thole.Tx
		if err := db.WithSession(t.Context(), func(tx *thole.Tx) error { late = tx; return nil }); err != nil {
			t.Fatal(err)
		}
		_, err := late.ExecContext(t.Context(), "select 1")
		if !errors.Is(err, thole.ErrTxDone) || !errors.Is(err, sql.ErrTxDone) {
			t.Errorf("got error %v, want ErrTxDone", err)
		}
	})
}

// TestTxControlOutcome ends the transaction behind our back, with a text that
// reads otherwise when standard_conforming_strings is off: what it did may be
// committed, whatever fn returns.
func TestTxControlOutcome(t *testing.T) {
	t.Parallel()
	db := dbtest.Config{Engines: []thole.Engine{thole.Postgres}}.Database(t)
	openForErrors(t, db)
	for _, fnErr := range []error{nil, io.EOF} {
		err := db.WithSession(t.Context(), func(tx *thole.Tx) error {
			tx.OnRollback(func(context.Context, error) { t.Error("OnRollback ran") })
			if _, err := tx.ExecContext(t.Context(), "set local standard_conforming_strings = off"); err != nil {
				return err
			}
			_, _ = tx.ExecContext(t.Context(), `select 1; select '\''; commit; --'`)
			return fnErr
		})
		if !errors.Is(err, thole.ErrTxControl) || thole.OutcomeOf(err) != thole.Unknown {
			t.Errorf("fn returned %v: got error %v with outcome %v, want ErrTxControl, unknown", fnErr, err, thole.OutcomeOf(err))
		}
	}
}

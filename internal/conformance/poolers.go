package conformance

import (
	"database/sql"
	"testing"
	"time"

	"github.com/tholedb/thole"
)

// poolers is section J: what is left on a connection to the server would meet
// the sessions of others. Without a pooler these are two pools, or on SQLite two
// openings of one file, which need not mind each other.
var poolers = []sentence{
	{"J1", clauses(
		sentence{"statements", sameStatements},
		sentence{"settings", settingsEnd},
	)},
}

// sameStatements has two clients prepare and run the same statements, in turns:
// behind a pooler on one connection.
func sameStatements(t *testing.T, w *world) {
	const query = "select count(*) from item where id > ?"
	clients := []*world{w.reopen(t, single), w.reopen(t, single)}
	if w.inMemory() { // each is another database
		clients = []*world{w, w}
	}
	for i := range 6 {
		on := clients[i%2]
		err := on.WithSession(t.Context(), func(tx *thole.Tx) error {
			if err := insert(tx.Context(), tx, i); err != nil {
				return err
			}
			stmt, err := tx.PrepareContext(tx.Context(), query)
			if err != nil {
				return err
			}
			defer stmt.Close()
			wantNumber(t, stmt.QueryRowContext(tx.Context(), -1), i+1)
			wantNumber(t, tx.QueryRowContext(tx.Context(), query, -1), i+1)
			return nil
		})
		if err != nil {
			t.Errorf("session %d: got error %v, want nil", i, err)
		}
		stmt, err := on.PrepareContext(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		defer stmt.Close()
		wantNumber(t, stmt.QueryRowContext(t.Context(), -1), i+1)
		wantNumber(t, on.QueryRowContext(t.Context(), query, -1), i+1)
	}
}

func wantNumber(t *testing.T, row *sql.Row, want int) {
	t.Helper()
	var got int
	if err := row.Scan(&got); err != nil || got != want {
		t.Errorf("got %d, error %v, want %d", got, err, want)
	}
}

// settingsEnd looks for the options of a session in the next one of another
// client. On SQLite they are nothing that a connection knows.
func settingsEnd(t *testing.T, w *world) {
	opts := thole.SessionOptions{LockTimeout: time.Hour, StatementTimeout: time.Hour, MaxAttempts: 1}
	reads := thole.SessionOptions{ReadOnly: true}
	one, other := w.reopen(t, single), w.reopen(t, single)
	for _, opts := range []thole.SessionOptions{opts, reads} {
		err := one.WithSessionOptions(t.Context(), opts, func(tx *thole.Tx) error {
			_, err := tx.ExecContext(tx.Context(), "select id from item")
			return err
		})
		if err != nil {
			t.Errorf("got error %v, want nil", err)
		}
		err = other.WithSession(t.Context(), func(tx *thole.Tx) error {
			if tx.Engine() == thole.Postgres {
				wantSettings(t, tx)
			}
			_, err := tx.ExecContext(tx.Context(), "delete from item")
			return err
		})
		if err != nil {
			t.Errorf("session of another client: got error %v, want nil", err)
		}
	}
}

// wantSettings checks that PostgreSQL has no timeouts.
func wantSettings(t *testing.T, tx *thole.Tx) {
	t.Helper()
	for _, name := range []string{"lock_timeout", "statement_timeout"} {
		var got string
		if err := tx.GetContext(tx.Context(), &got, "select current_setting(?)", name); err != nil || got != "0" {
			t.Errorf("%s = %s, error %v, want 0", name, got, err)
		}
	}
}

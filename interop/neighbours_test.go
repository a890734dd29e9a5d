// Package interop runs other people's code over thole's sessions, on both
// engines. README.md says what was run, and what can't be.
package interop

import (
	"context"
	"errors"
	"testing"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/testing/dbtest"
)

// neighbour writes and reads items by somebody else's code.
type neighbour struct {
	// add adds an item in a session, and says how many it sees then.
	add func(ctx context.Context, tx *thole.Tx, name string) (seen int, err error)

	// alone adds an item outside any session; nil where that isn't possible.
	alone func(ctx context.Context, db *thole.DB, name string) error

	// on are the engines it runs on. Default: both.
	on []thole.Engine
}

// postgres is for what is written for pgx.
var postgres = []thole.Engine{thole.Postgres}

var errUndo = errors.New("undo")

// hold holds a neighbour against what must hold of a session: what it does is
// seen there, is committed with it, or is gone with it, and its errors are the
// session's.
func (n neighbour) hold(t *testing.T) {
	t.Helper()
	dbtest.Config{Engines: n.on}.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		ctx := t.Context()
		if _, err := db.ExecContext(ctx, "create table items (id integer primary key, name text not null unique)"); err != nil {
			t.Fatal(err)
		}
		add := func(name string, seen int, end error) error {
			return db.WithSession(ctx, func(tx *thole.Tx) error {
				got, err := n.add(ctx, tx, name)
				if err == nil && got != seen {
					t.Errorf("%s: the session sees %d items, want %d", name, got, seen)
				}
				return errors.Join(err, end)
			})
		}
		if err := add("a", 1, nil); err != nil {
			t.Errorf("got error %v, want nil", err)
		}
		wantItems(t, db, 1)
		if err := add("b", 2, errUndo); !errors.Is(err, errUndo) {
			t.Errorf("got error %v, want fn's own", err)
		}
		wantItems(t, db, 1)
		if err := add("a", 0, nil); !errors.Is(err, thole.ErrUnique) {
			t.Errorf("got error %v, want %v", err, thole.ErrUnique)
		}
		err := db.WithSession(ctx, func(tx *thole.Tx) error {
			_ = tx.WithSession(ctx, func(inner *thole.Tx) error {
				_, err := n.add(ctx, inner, "c")
				return errors.Join(err, errUndo)
			})
			_, err := n.add(ctx, tx, "d")
			return err
		})
		if err != nil {
			t.Errorf("nested: got error %v, want nil", err)
		}
		wantItems(t, db, 2)
		if n.alone == nil {
			return
		}
		if err := n.alone(ctx, db, "e"); err != nil {
			t.Errorf("outside a session: got error %v, want nil", err)
		}
		wantItems(t, db, 3)
		if err := n.alone(ctx, db, "e"); !errors.Is(err, thole.ErrUnique) {
			t.Errorf("outside a session: got error %v, want %v", err, thole.ErrUnique)
		}
	})
}

func wantItems(t *testing.T, db *thole.DB, want int) {
	t.Helper()
	got, err := thole.One[int](t.Context(), db, "select count(*) from items")
	if err != nil || got != want {
		t.Errorf("got %d items and error %v, want %d", got, err, want)
	}
}

type item struct {
	ID   int64
	Name string
}

// next is an id that is free.
const next = "(select coalesce(max(id), 0) + 1 from items)"

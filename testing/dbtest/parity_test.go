package dbtest_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/tholedb/thole"
)

// TestHelperParityGoesOn goes on after a statement that has failed.
func TestHelperParityGoesOn(t *testing.T) {
	t.Parallel()
	helperOnly(t)
	stock.Each(t, func(t *testing.T, db *thole.DB) {
		err := inSession(t, db, func(ctx context.Context, tx *thole.Tx) error {
			_ = errors.Join(add(ctx, tx, "shield"), add(ctx, tx, "shield"))
			return add(ctx, tx, "sword")
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// TestHelperParityCommits commits after a statement that has failed.
func TestHelperParityCommits(t *testing.T) {
	t.Parallel()
	helperOnly(t)
	stock.Each(t, func(t *testing.T, db *thole.DB) {
		err := inSession(t, db, func(ctx context.Context, tx *thole.Tx) error {
			_ = errors.Join(add(ctx, tx, "shield"), add(ctx, tx, "shield"))
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// TestHelperParityNests does what both engines allow.
func TestHelperParityNests(t *testing.T) {
	t.Parallel()
	helperOnly(t)
	stock.Each(t, func(t *testing.T, db *thole.DB) {
		err := inSession(t, db, func(ctx context.Context, tx *thole.Tx) error {
			for range 2 {
				_ = tx.WithSession(ctx, func(tx *thole.Tx) error { return add(ctx, tx, "shield") })
			}
			return add(ctx, tx, "sword")
		})
		if err != nil {
			t.Error(err)
		}
		conn, err := db.Sqlx().Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		for range 3 {
			_, _ = conn.ExecContext(t.Context(), "insert into item (name) values ('axe')") // outside a session each is alone
		}
		_ = inSession(t, db, func(ctx context.Context, tx *thole.Tx) error { return add(ctx, tx, "sword") })
	})
}

// TestParityGoesOn: a session that goes on after a failed statement is told on both
// engines, and one that need not be is not.
func TestParityGoesOn(t *testing.T) {
	t.Parallel()
	const next = `"insert into item`
	for name, want := range map[string]string{"TestHelperParityGoesOn": next, "TestHelperParityCommits": "it was committed"} {
		got := rerun(t, name, true)
		const hint = " went on after \"insert into item (name) values ("
		if n := strings.Count(got, hint); n != 2 {
			t.Errorf("%s: got %d hints, want one on each engine:\n%s", name, n, got)
		}
		for _, want := range []string{want, "more was to run, or to be committed. "} {
			if n := strings.Count(got, "had failed: "+want); n != 1 {
				t.Errorf("%s: got %d times, want once: %q in\n%s", name, n, want, got)
			}
		}
	}
	if got := rerun(t, "TestHelperParityNests", false); strings.Contains(got, "went on") {
		t.Errorf("got a hint in\n%s", got)
	}
}

// TestHelperParityTime fails after asking for the time.
func TestHelperParityTime(t *testing.T) {
	t.Parallel()
	helperOnly(t)
	stock.Each(t, func(t *testing.T, db *thole.DB) {
		t.Run("two sessions", func(t *testing.T) {
			askForTime(t, db)
			askForTime(t, db)
			t.Error("on purpose")
		})
	})
	stock.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		err := inSession(t, db, func(ctx context.Context, tx *thole.Tx) error {
			askForTime(t, tx)
			askForTime(t, tx)
			return nil
		})
		t.Error("on purpose", err)
	})
	stock.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		for range 2 { // sessions, between which it moves
			_ = inSession(t, db, func(ctx context.Context, tx *thole.Tx) error {
				askForTime(t, tx)
				return nil
			})
		}
		t.Error("on purpose: it moves")
	})
}

func askForTime(t *testing.T, q thole.Querier) {
	t.Helper()
	if _, err := thole.One[string](t.Context(), q, "select cast(current_timestamp as text)"); err != nil {
		t.Error(err)
	}
}

// TestParityTime: a test that has failed is told of the time where it stands still.
func TestParityTime(t *testing.T) {
	t.Parallel()
	got := rerun(t, "TestHelperParityTime", true)
	for _, want := range []string{
		"2 statements asked for now(), which on PostgreSQL stands still in a sandbox",
		" statements of one session asked for now(), which on PostgreSQL stands still there",
		" statements of one session asked for the time, which on SQLite moves there",
	} {
		if n := strings.Count(got, want); n != 1 {
			t.Errorf("got %d times, want once: %q in\n%s", n, want, got)
		}
	}
}

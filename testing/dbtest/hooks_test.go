package dbtest_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/testing/dbtest"
)

func first(context.Context)  {}
func second(context.Context) {}
func never(context.Context)  {}

// TestB10HooksAreListed: those that ran, in order and once, and none of what was
// rolled back.
func TestB10HooksAreListed(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, config dbtest.Config) {
		db := config.Sandbox(t)
		if got := dbtest.Hooks(t, db); len(got) != 0 {
			t.Errorf("got hooks %v before any session", got)
		}
		err := db.WithSessionOptions(t.Context(), thole.SessionOptions{Label: "forge"}, func(tx *thole.Tx) error {
			tx.OnCommit(first)
			undone := tx.WithSession(t.Context(), func(tx *thole.Tx) error {
				tx.OnCommit(never)
				return errors.New("undo the nested session")
			})
			if undone == nil {
				t.Error("the nested session was kept")
			}
			return tx.WithSession(t.Context(), func(tx *thole.Tx) error {
				tx.OnCommit(second)
				return add(t.Context(), tx, "shield")
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		_ = db.WithSession(t.Context(), func(tx *thole.Tx) error {
			tx.OnCommit(never)
			return errors.New("undo the session")
		})
		got := dbtest.Hooks(t, db)
		for i, h := range got {
			if !strings.HasPrefix(h.Caller, "dbtest/hooks_test.go:") {
				t.Errorf("got the call site %q", h.Caller)
			}
			got[i].Caller = ""
		}
		const here = "github.com/tholedb/thole/testing/dbtest_test."
		want := []dbtest.Hook{{Name: here + "first", Session: "forge"}, {Name: here + "second", Session: "forge"}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("hooks (-want +got):\n%s", diff)
		}
	})
}

package dbtest_test

import (
	"context"
	"database/sql"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/testing/dbtest"
)

// helperVariable names the helper that this test binary, run once more, is to be.
const helperVariable = "DBTEST_TEST_HELPER"

// rerun runs the helper of a name, a test that is skipped otherwise, in a process of
// its own, and returns what it has printed. It is to fail, or not.
func rerun(t *testing.T, name string, fails bool, env ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+name+"$", "-test.timeout=4s", "-test.parallel=8", "-test.v")
	cmd.Env = append(os.Environ(), helperVariable+"="+name)
	cmd.Env = append(cmd.Env, env...)
	output, err := cmd.CombinedOutput()
	if (err != nil) != fails {
		t.Errorf("%s: got %v, want it to fail: %t\n%s", name, err, fails, output)
	}
	return string(output)
}

// helperOnly skips a test that is none in this process.
func helperOnly(t *testing.T) {
	t.Helper()
	if os.Getenv(helperVariable) != t.Name() {
		t.Skip("it is a part of another test")
	}
}

// forgeBadly is a session with a nested one that fails.
func forgeBadly(tb testing.TB, db *thole.DB) {
	tb.Helper()
	ctx := context.WithoutCancel(tb.Context())
	opts := thole.SessionOptions{Label: "forge", Isolation: sql.LevelSerializable}
	err := db.WithSessionOptions(ctx, opts, func(tx *thole.Tx) error {
		if err := add(ctx, tx, "shield"); err != nil {
			return err
		}
		if err := tx.WithSession(ctx, func(tx *thole.Tx) error { return add(ctx, tx, "shield") }); err == nil {
			tb.Error("the same name was inserted twice")
		}
		var found []string
		return tx.SelectContext(ctx, &found, "select name\n\tfrom item")
	})
	if err != nil {
		tb.Error(err)
	}
	if _, err := thole.All[string](ctx, db, "select name from item where name = ?", strings.Repeat("x", 300)); err != nil {
		tb.Error(err)
	}
	_ = db.WithSessionOptions(ctx, thole.SessionOptions{ReadOnly: true}, func(tx *thole.Tx) error {
		return tx.GetContext(ctx, new([]byte), "select ?", []byte("secret"))
	})
}

// TestB36Report: a test that has failed prints its sessions, and one that has passed
// nothing.
func TestB36Report(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, config dbtest.Config) {
		passed := record(t, func(tb testing.TB) {
			tb.Helper()
			forgeBadly(tb, config.Sandbox(tb))
		})
		if got := passed.output(); passed.Failed() || strings.Contains(got, "what ran") {
			t.Errorf("got %q from a test that has passed", got)
		}
		for name, open := range map[string]func(testing.TB) *thole.DB{"sandbox": config.Sandbox, "database": config.Database} {
			failed := record(t, func(tb testing.TB) {
				tb.Helper()
				forgeBadly(tb, open(tb))
				tb.Error("on purpose")
			})
			const at, took = `report_test\.go:\d+`, `[\d.]+(µ|m)?s`
			for _, want := range []string{
				`what ran on ` + string(config.Engines[0]) + ":\n",
				`\n\tsession "forge" opened at dbtest/` + at + `, attempt 1, serializable: committed after ` + took,
				`\n\t\tinsert into item \(name\) values \(\S+\) \["shield"\]: 1 row after ` + took + `, at dbtest/sandbox_test\.go:\d+`,
				`\n\t\tnested session opened at dbtest/` + at,
				`\n\t\t\tinsert into item .*: failed: .*(UNIQUE constraint failed: item.name|duplicate key value).*\((SQLITE_CONSTRAINT_UNIQUE|23505)\) after ` + took,
				`\n\t\tthe nested session was rolled back`,
				`\n\t\tselect name from item: 1 row after ` + took + `, at dbtest/` + at,
				`\n\tselect name from item where name = \S+ \["x{100}"… \(300 bytes\)\]: 0 rows`,
				`\n\tsession opened at dbtest/` + at + `, attempt 1, read-only: committed`,
				`\[6 bytes\]`,
			} {
				if !regexp.MustCompile(want).MatchString(failed.output()) {
					t.Errorf("%s: got no %s in\n%s", name, want, failed.output())
				}
			}
			if strings.Contains(failed.output(), "secret") {
				t.Errorf("%s: got the bytes of an argument in\n%s", name, failed.output())
			}
		}
	})
}

// TestB36Most: what a test keeps in mind and prints has bounds.
func TestB36Most(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, config dbtest.Config) {
		failed := record(t, func(tb testing.TB) {
			tb.Helper()
			db := config.Sandbox(tb)
			for i := range 2500 {
				if err := db.GetContext(tb.Context(), new(int), "select cast(? as integer)", i); err != nil {
					tb.Fatal(err)
				}
			}
			tb.Error("on purpose")
		})
		_, told, _ := strings.Cut(failed.output(), "what ran")
		if got := strings.Count(told, "\n"); got != 201 {
			t.Errorf("got %d lines, want one and 200 statements", got)
		}
		if !strings.Contains(told, "\t2300 lines before these are left out") || !strings.Contains(told, "[2499]") {
			t.Errorf("got %s, want the last ones and how many are left out", told)
		}
	})
}

// TestHelperB36Args fails with an argument.
func TestHelperB36Args(t *testing.T) {
	t.Parallel()
	helperOnly(t)
	each(t, func(t *testing.T, config dbtest.Config) {
		forgeBadly(t, config.Sandbox(t))
		t.Error("on purpose")
	})
}

// TestB36Args: arguments are left out where that is asked for.
func TestB36Args(t *testing.T) {
	t.Parallel()
	if got := rerun(t, "TestHelperB36Args", true, "DBTEST_ARGS=off"); strings.Contains(got, "shield") || strings.Count(got, "[1 argument]") < 6 {
		t.Errorf("got arguments in\n%s", got)
	}
	if got := rerun(t, "TestHelperB36Args", true, "DBTEST_ARGS=no"); !strings.Contains(got, `DBTEST_ARGS is "no": it is off or not set`) {
		t.Errorf("got %s, want the value refused", got)
	}
}

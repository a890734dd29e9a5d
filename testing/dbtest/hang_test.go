package dbtest_test

import (
	"context"
	"regexp"
	"testing"

	"github.com/tholedb/thole"
)

// TestHelperB38 hangs in a session of each engine, in which a statement waits for a
// lock or nothing runs.
func TestHelperB38(t *testing.T) {
	t.Parallel()
	helperOnly(t)
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		config := stock
		config.Engines = []thole.Engine{thole.SQLite}
		hang(t, config.Sandbox(t), "select 1")
	})
	t.Run("sandbox", func(t *testing.T) {
		t.Parallel()
		hang(t, onPostgres().Sandbox(t), "select pg_sleep(1000)")
	})
	t.Run("database", func(t *testing.T) {
		t.Parallel()
		db := onPostgres().Database(t)
		go hang(t, db, "lock table item")
		hang(t, db, "lock table item")
	})
	t.Run("idle", func(t *testing.T) {
		t.Parallel()
		onPostgres().Sandbox(t)
		select {}
	})
}

func hang(t *testing.T, db *thole.DB, statement string) {
	t.Helper()
	_ = db.WithSessionOptions(t.Context(), thole.SessionOptions{Label: "hang"}, func(tx *thole.Tx) error {
		if _, err := tx.ExecContext(context.WithoutCancel(t.Context()), statement); err != nil {
			return err
		}
		select {}
	})
}

// TestB38Hang: what hangs is written before the test binary is ended.
func TestB38Hang(t *testing.T) {
	t.Parallel()
	got := rerun(t, "TestHelperB38", true)
	const at = `session "hang" opened at dbtest/hang_test\.go:\d+ \S+ ago`
	for _, want := range []string{
		`dbtest: TestHelperB38/sqlite is about to run out of time:\n\t` + at + `, and has the turn\n\t\tits last statement: select 1: `,
		`dbtest: TestHelperB38/sandbox is about to run out of time:\n\t` + at + `, and has the turn\n\t\tit runs, since \S+: select pg_sleep\(1000\): is running, at dbtest/hang_test\.go:`,
		`on the server:\n\tTestHelperB38/sandbox, process \d+, active for \S+: select pg_sleep\(1000\)`,
		`dbtest: TestHelperB38/database is about to run out of time:\n\t` + at + `\n(\t.*\n)*\t\tit runs, since \S+: lock table item: is running`,
		`process \d+, active for \S+, waits for AccessExclusiveLock on item, blocked by \d+: lock table item`,
		`process \d+, idle in transaction for \S+: lock table item`,
	} {
		if !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("got no %s in\n%s", want, got)
		}
	}
	if regexp.MustCompile(`TestHelperB38/idle is about`).MatchString(got) {
		t.Errorf("got a word of a test that does not hang in\n%s", got)
	}
}

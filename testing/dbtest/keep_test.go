package dbtest_test

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/testdb"
)

// TestHelperB37 adds an item to each kind of database and passes or fails.
func TestHelperB37(t *testing.T) {
	t.Parallel()
	helperOnly(t)
	config := stock
	config.Engines = []thole.Engine{thole.Engine(os.Getenv("DBTEST_TEST_ENGINE"))}
	for name, open := range map[string]func(testing.TB) *thole.DB{"sandbox": config.Sandbox, "database": config.Database} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := add(t.Context(), open(t), "kept"); err != nil {
				t.Error(err)
			}
			if os.Getenv("DBTEST_TEST_FAIL") != "" {
				t.Error("on purpose")
			}
		})
	}
}

// TestB37SQLite: the file of a database is kept, and a sandbox says that it can't be.
func TestB37SQLite(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	run := func(keep, fail string) string {
		return rerun(t, "TestHelperB37", fail != "", "TMPDIR="+dir, "DBTEST_TEST_ENGINE=sqlite", "DBTEST_KEEP="+keep, "DBTEST_TEST_FAIL="+fail)
	}
	for _, mode := range []struct{ keep, fail string }{{"", "1"}, {"fail", ""}} {
		if got := run(mode.keep, mode.fail); strings.Contains(got, "kept:") {
			t.Errorf("DBTEST_KEEP=%q, test failed: %q: got\n%s", mode.keep, mode.fail, got)
		}
		if kept, _ := filepath.Glob(filepath.Join(dir, "dbtest-*")); len(kept) != 0 {
			t.Errorf("DBTEST_KEEP=%q: %v was kept", mode.keep, kept)
		}
	}
	for _, mode := range []struct{ keep, fail string }{{"fail", "1"}, {"all", ""}} {
		got := run(mode.keep, mode.fail)
		if !strings.Contains(got, "the database is not kept: a sandbox is no database of its own; use dbtest.Database") {
			t.Errorf("DBTEST_KEEP=%q: got no word of the sandbox in\n%s", mode.keep, got)
		}
		command := regexp.MustCompile(`the database is kept: sqlite3 (\S+)`).FindStringSubmatch(got)
		if command == nil {
			t.Fatalf("DBTEST_KEEP=%q: got no command in\n%s", mode.keep, got)
		}
		db, err := thole.Open(t.Context(), "sqlite:///"+command[1])
		if err != nil {
			t.Fatal(err)
		}
		wantNames(t, db, "kept")
		db.Close()
	}
}

// TestB37Postgres: the database is kept on a server that stays, and no other one is.
func TestB37Postgres(t *testing.T) {
	t.Parallel()
	server := testdb.Server(t)
	got := rerun(t, "TestHelperB37", false, "DBTEST_TEST_ENGINE=postgres", "DBTEST_KEEP=all", "DBTEST_URL="+server.URL, "DBTEST_UNSAFE=1")
	command := regexp.MustCompile(`the database is kept: psql -h \S+ -p \d+ -U \S+ (\S+)`).FindStringSubmatch(got)
	if command == nil {
		t.Fatalf("got no command in\n%s", got)
	}
	ctx := context.WithoutCancel(t.Context())
	admin, err := pgx.Connect(ctx, server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(ctx)
	t.Cleanup(func() {
		if conn, err := pgx.Connect(ctx, server.URL); err == nil {
			_, _ = conn.Exec(ctx, "drop database "+command[1])
			conn.Close(ctx)
		}
	})
	cfg := admin.Config().Copy()
	cfg.Database = command[1]
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	var name string
	if err := conn.QueryRow(ctx, "select name from item").Scan(&name); err != nil || name != "kept" {
		t.Errorf("got item %q, %v", name, err)
	}
	var kept bool // as what drops the databases of processes that have ended asks
	const isKept = "select pg_catalog.shobj_description(oid, 'pg_database') = 'kept by dbtest' from pg_catalog.pg_database where datname = current_database()"
	if err := conn.QueryRow(ctx, isKept).Scan(&kept); err != nil || !kept {
		t.Errorf("got %t, %v, want the database marked as kept", kept, err)
	}
	if !server.Private {
		return
	}
	private := rerun(t, "TestHelperB37", false, "DBTEST_TEST_ENGINE=postgres", "DBTEST_KEEP=all", "DBTEST_URL=")
	if !strings.Contains(private, "ends with them; name one that stays in DBTEST_URL") || strings.Contains(private, "kept: psql") {
		t.Errorf("got no word of the server, which ends, in\n%s", private)
	}
}

// TestB37Values: other values of the variable are refused.
func TestB37Values(t *testing.T) {
	t.Parallel()
	got := rerun(t, "TestHelperB37", true, "DBTEST_TEST_ENGINE=sqlite", "DBTEST_KEEP=yes")
	if !strings.Contains(got, `DBTEST_KEEP is "yes": it is fail, all or not set`) {
		t.Errorf("got %s, want the value refused", got)
	}
}

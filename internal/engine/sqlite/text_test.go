package sqlite

import (
	"context"
	"strings"
	"testing"
	"time"

	"modernc.org/sqlite"
)

func TestSetsGuarded(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		"PRAGMA query_only = 0":                        "query_only",
		"pragma Query_Only=0":                          "query_only",
		"PRAGMA query_only(0)":                         "query_only",
		"PRAGMA query_only=''":                         "query_only",
		`PRAGMA "query_only" = 0`:                      "query_only",
		"PRAGMA [query_only] = 0":                      "query_only",
		"PRAGMA main.journal_mode = DELETE":            "journal_mode",
		"PRAGMA main /* . */ . journal_mode = DELETE":  "journal_mode",
		"-- a\nPRAGMA foreign_keys = 0":                "foreign_keys",
		"EXPLAIN PRAGMA foreign_keys = 0":              "foreign_keys",
		"EXPLAIN QUERY PLAN PRAGMA a.foreign_keys = 0": "foreign_keys",
		"SELECT 1; PRAGMA writable_schema = 1;":        "writable_schema",
		"PRAGMA query_only":                            "",
		"PRAGMA query_only;":                           "",
		"PRAGMA main.query_only":                       "",
		"PRAGMA user_version = 3":                      "",
		"PRAGMA":                                       "",
		"EXPLAIN":                                      "",
		"SELECT 'PRAGMA query_only = 0'":               "",
		"SELECT '; PRAGMA query_only = 0'":             "",
		"":                                             "",
	}
	for query, want := range tests {
		if got := setsGuarded(query); got != want {
			t.Errorf("setsGuarded(%q): got %q, want %q", query, got, want)
		}
	}
}

func TestReads(t *testing.T) {
	t.Parallel()
	tests := map[string]bool{
		"SELECT 1":              true,
		"select 1; ":            true,
		"VALUES (1)":            true,
		"EXPLAIN DELETE FROM t": true,
		"WITH insert_ AS (SELECT 1) SELECT * FROM insert_":                     true,
		"WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x) SELECT * FROM c": true,
		"WITH a AS MATERIALIZED (SELECT 1), b AS (SELECT 2) VALUES (1)":        true,
		"/* a */ SELECT 1; SELECT 2":                                           true,
		"WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a":                   false,
		"WITH a AS (SELECT 1) REPLACE INTO t SELECT * FROM a":                  false,
		"WITH a AS (SELECT 1) UPDATE t SET x = 1":                              false,
		"WITH a AS (SELECT 1) DELETE FROM t":                                   false,
		"INSERT INTO t SELECT 1":                                               false,
		"SELECT 1; DELETE FROM t":                                              false,
		"CREATE TABLE t (a)":                                                   false,
		"PRAGMA user_version = 1":                                              false,
		"WITH":                                                                 false,
	}
	for query, want := range tests {
		if got := reads(query); got != want {
			t.Errorf("reads(%q): got %v, want %v", query, got, want)
		}
	}
}

func TestStandsAlone(t *testing.T) {
	t.Parallel()
	tests := map[string]bool{
		"VACUUM": true, "vacuum main": true, "/* a */ ATTACH 'a' AS b": true, "DETACH b": true, "PRAGMA optimize": true,
		"": false, "SELECT 'VACUUM'": false, "ANALYZE": false,
	}
	for query, want := range tests {
		if got := standsAlone(query); got != want {
			t.Errorf("standsAlone(%q): got %v, want %v", query, got, want)
		}
	}
}

// What isn't refused leaves the guarded pragmas and the transaction alone, as SQLite itself reads the text.
func FuzzRefused(f *testing.F) {
	for _, seed := range []string{
		"PRAGMA query_only=0", "SELECT 1; PRAGMA query_only(0)", `PRAGMA "main"."query_only" = 0`, "EXPLAIN PRAGMA query_only=0",
		"EXPLAIN QUERY PLAN PRAGMA query_only=''", ";;PRAGMA query_only=0", "/**/PRAGMA/**/query_only/**/=/**/0", "\ufeffPRAGMA query_only=0",
		"BEGIN", "SELECT 1;\vEND", "SAVEPOINT a", "CREATE TRIGGER a BEGIN END; COMMIT", "PRAGMA 'query_only'=0", "PRAGMA query_only--\n=0",
	} {
		f.Add(seed)
	}
	raw, err := new(sqlite.Driver).Open(":memory:")
	if err != nil {
		f.Fatal(err)
	}
	c := newConn(raw)
	f.Cleanup(func() { _ = raw.Close() })
	f.Fuzz(func(t *testing.T, query string) {
		lower := strings.ToLower(query)
		if refused(query) != nil || strings.Contains(lower, "attach") || strings.Contains(lower, "vacuum") {
			t.Skip("it isn't run, or it writes files")
		}
		if err := c.settle(t.Context(), "PRAGMA query_only=1; BEGIN"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_ = c.settle(ctx, query)
		if got, err := c.ask(t.Context(), "PRAGMA query_only"); got != "1" || err != nil {
			t.Errorf("query_only after %q: got %q, %v, want 1", query, got, err)
		}
		if err := c.settle(t.Context(), "ROLLBACK"); err != nil {
			t.Errorf("transaction after %q: got %v, want it open", query, err)
		}
	})
}

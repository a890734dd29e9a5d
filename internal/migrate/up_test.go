package migrate

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tholedb/thole/internal/engine"
	"github.com/tholedb/thole/internal/testdb"
	"github.com/tholedb/thole/migrations"
)

// endless runs a long time, and can be interrupted.
const endless = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 1000000000) SELECT count(*) FROM c;"

// up applies the migrations of paths and texts.
func up(t *testing.T, eng engine.Engine, files map[string]string) {
	t.Helper()
	if err := Up(t.Context(), eng, memFS(files)); err != nil {
		t.Fatalf("Up: %v", err)
	}
}

// upFails is up where an error is wanted; part is in its message.
func upFails(t *testing.T, eng engine.Engine, files map[string]string, part string) error {
	t.Helper()
	err := Up(t.Context(), eng, memFS(files))
	if err == nil || !strings.Contains(err.Error(), part) {
		t.Fatalf("Up: got %v, want an error with %q", err, part)
	}
	return err
}

// wantVersion checks the table schema_migrations, which has two columns and one
// row.
func wantVersion(t *testing.T, eng engine.Engine, want string) {
	t.Helper()
	table := query(t, eng, "SELECT * FROM schema_migrations")
	if diff := cmp.Diff([]string{"version", "dirty"}, table[0]); diff != "" || len(table) != 2 {
		t.Errorf("schema_migrations: got %v, want one row of version and dirty", table)
	}
	wantValue(t, eng, "SELECT version FROM schema_migrations WHERE NOT dirty", want)
}

// wantValue checks the only value of a query.
func wantValue(t *testing.T, eng engine.Engine, text, want string) {
	t.Helper()
	rows := query(t, eng, text)
	if len(rows) != 2 || rows[1][0] != want {
		t.Errorf("%s: got %v, want %s", text, rows[1:], want)
	}
}

func TestUp(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, eng engine.Engine) {
		files := map[string]string{
			"9_counter.up.sql":    "CREATE TABLE counter (n integer);\n-- It counts.\nINSERT INTO counter VALUES (0);",
			"10_count.up.sql":     "UPDATE counter SET n = n + 1",
			"10_count.down.sql":   "UPDATE counter SET n = n - 1",
			"000011_count.up.sql": "UPDATE counter SET n = n + 10",
		}
		for range 2 {
			up(t, eng, files)
			wantVersion(t, eng, "11")
			wantValue(t, eng, "SELECT n FROM counter", "11")
		}
		files["12_more.up.sql"] = "UPDATE counter SET n = n + 100"
		files["13_nothing.up.sql"] = "-- Nothing to do."
		up(t, eng, files)
		wantVersion(t, eng, "13")
		wantValue(t, eng, "SELECT n FROM counter", "111")
	})
}

func TestUpExampleSchema(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, eng engine.Engine) {
		if err := Up(t.Context(), eng, migrations.FS); err != nil {
			t.Fatalf("Up: %v", err)
		}
		insert := "INSERT INTO shields (name, defense_rating, material) VALUES ('Dragon Scale Shield', 12, 'iron')"
		exec(t, eng, insert, "INSERT INTO armoury (material, stock) VALUES ('iron', 3)")
		for text, want := range map[string]error{
			insert: engine.ErrUnique,
			"INSERT INTO shields (name, defense_rating, material) VALUES ('Sieve', -1, 'iron')": engine.ErrCheck,
			"INSERT INTO shields (defense_rating, material) VALUES (1, 'iron')":                 engine.ErrNotNull,
			"UPDATE armoury SET stock = stock - 4":                                              engine.ErrCheck,
		} {
			if err := tryExec(t, eng, text); !errors.Is(err, want) {
				t.Errorf("%s: got %v, want %v", text, err, want)
			}
		}
		down, err := fs.ReadFile(migrations.FS, "000001_armoury.down.sql")
		if err != nil {
			t.Fatal(err)
		}
		exec(t, eng, string(down), "CREATE TABLE shields (n integer)", "CREATE TABLE armoury (n integer)")
	})
}

func TestUpChoosesFolder(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, eng engine.Engine) {
		up(t, eng, map[string]string{
			"sqlite/1_a.up.sql":   "CREATE TABLE a (engine text); INSERT INTO a VALUES ('sqlite')",
			"postgres/1_a.up.sql": "CREATE TABLE a (engine text); INSERT INTO a VALUES ('postgres')",
		})
		wantValue(t, eng, "SELECT engine FROM a", eng.Name())
	})
}

// A migration that fails leaves what the ones before it did, and nothing of its
// own; put right, it runs.
func TestUpFails(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, eng engine.Engine) {
		files := map[string]string{
			"1_a.up.sql": "CREATE TABLE a (n integer)",
			"2_b.up.sql": "CREATE TABLE b (n integer); INSERT INTO a VALUES (2); INSERT INTO missing VALUES (1)",
			"3_c.up.sql": "INSERT INTO a VALUES (3)",
			"4_d.up.sql": "INSERT INTO a VALUES (4)",
		}
		for range 2 {
			err := upFails(t, eng, files, "apply 2_b.up.sql: ")
			if explained := (*engine.Error)(nil); !errors.As(err, &explained) {
				t.Errorf("Up: got %#v, want an *engine.Error in the chain", err)
			}
			wantVersion(t, eng, "1")
			wantValue(t, eng, "SELECT count(*) FROM a", "0")
		}
		files["2_b.up.sql"] = "CREATE TABLE b (n integer)"
		up(t, eng, files)
		wantVersion(t, eng, "4")
	})
}

// A constraint that is checked at COMMIT fails there.
func TestUpFailsAtCommit(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, eng engine.Engine) {
		files := map[string]string{
			"1_a.up.sql": "CREATE TABLE a (n integer PRIMARY KEY); CREATE TABLE b (n integer REFERENCES a (n) DEFERRABLE INITIALLY DEFERRED)",
			"2_b.up.sql": "INSERT INTO b VALUES (1)",
		}
		if err := upFails(t, eng, files, "apply 2_b.up.sql: commit: "); !errors.Is(err, engine.ErrForeignKey) {
			t.Errorf("Up: got %v, want %v", err, engine.ErrForeignKey)
		}
		wantVersion(t, eng, "1")
		wantValue(t, eng, "SELECT count(*) FROM b", "0")
	})
}

// What is wrong with the files is found before any of them runs.
func TestUpRefusesFiles(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, eng engine.Engine) {
		files := map[string]string{"1_a.up.sql": "CREATE TABLE a (n integer)"}
		for name, text := range map[string]string{"2-b.up.sql": "SELECT 1", "2_b.up.sql": "SELECT 1; COMMIT", "2_b.down.sql": "SELECT 1"} {
			files[name] = text
			upFails(t, eng, files, "read migrations: "+name)
			delete(files, name)
		}
		files["2_b.up.sql"] = strings.Repeat("SELECT 1;\n", 10)
		if err := Up(t.Context(), eng, faultyFS{memFS(files), "2_b.up.sql"}); !errors.Is(err, errFaulty) {
			t.Errorf("Up: got %v, want %v", err, errFaulty)
		}
		exec(t, eng, "CREATE TABLE a (n integer)", "CREATE TABLE schema_migrations (n integer)")
	})
}

func TestUpContextDone(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, eng engine.Engine) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := Up(ctx, eng, memFS(map[string]string{"1_a.up.sql": "CREATE TABLE a (n integer)"}))
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Up: got %v, want %v", err, context.Canceled)
		}
		exec(t, eng, "CREATE TABLE a (n integer)", "CREATE TABLE schema_migrations (n integer)")
	})
}

func TestUpContextEnds(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, eng engine.Engine) {
		files := map[string]string{
			"1_a.up.sql": "CREATE TABLE a (n integer)",
			"2_b.up.sql": "INSERT INTO a VALUES (2); " + endless,
			"3_c.up.sql": "INSERT INTO a VALUES (3)",
		}
		up(t, eng, map[string]string{"1_a.up.sql": files["1_a.up.sql"]})
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		err := Up(ctx, eng, memFS(files))
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "2_b.up.sql") {
			t.Errorf("Up: got %v, want %v of 2_b.up.sql", err, context.DeadlineExceeded)
		}
		if strings.Contains(err.Error(), "roll back") {
			t.Errorf("Up: got %v, want ROLLBACK to work when ctx is done", err)
		}
		wantVersion(t, eng, "1")
		wantValue(t, eng, "SELECT count(*) FROM a", "0")
	})
}

// While another process migrates, Up waits until its ctx is done.
func TestUpWaits(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, url string) {
		eng, other := openEngine(t, url), openEngine(t, url)
		files := map[string]string{"1_a.up.sql": "CREATE TABLE a (n integer)"}
		holder, err := other.BeginMigration(t.Context())
		if err != nil {
			t.Fatalf("begin migration: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if err := Up(ctx, eng, memFS(files)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Up beside another: got %v, want %v", err, context.DeadlineExceeded)
		}
		done := make(chan error)
		go func() { done <- Up(t.Context(), eng, memFS(files)) }()
		if _, err := holder.Rollback(t.Context(), nil); err != nil {
			t.Fatalf("rollback: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("Up after another: %v", err)
		}
		wantVersion(t, eng, "1")
	})
}

// The table is the one of golang-migrate's own tool, whose rows are understood.
func TestUpAfterGolangMigrate(t *testing.T) {
	t.Parallel()
	create := map[string][]string{
		"sqlite": {
			"CREATE TABLE schema_migrations (version uint64,dirty bool)",
			"CREATE UNIQUE INDEX version_unique ON schema_migrations (version)",
		},
		"postgres": {"CREATE TABLE schema_migrations (version bigint not null primary key, dirty boolean not null)"},
	}
	files := map[string]string{"1_a.up.sql": "CREATE TABLE a (n integer)", "2_b.up.sql": "CREATE TABLE b (n integer)"}
	tests := []struct {
		name, rows string
		want       error
	}{
		{"clean", "(1, false)", nil},
		{"dirty", "(1, true)", ErrDirty},
		{"dirty and unknown", "(3, true)", ErrDirty},
		{"dirty at none", "(-1, true)", ErrDirty},
		{"newer", "(3, false)", ErrUnknown},
		{"between", "(0, false)", ErrUnknown},
		{"no version", "(-1, false)", ErrUnknown},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			eachEngine(t, func(t *testing.T, eng engine.Engine) {
				exec(t, eng, create[eng.Name()]...)
				exec(t, eng, "INSERT INTO schema_migrations VALUES "+test.rows)
				before := query(t, eng, "SELECT * FROM schema_migrations")
				err := Up(t.Context(), eng, memFS(files))
				if !errors.Is(err, test.want) {
					t.Fatalf("Up: got %v, want %v", err, test.want)
				}
				if err == nil {
					wantVersion(t, eng, "2")
					exec(t, eng, "CREATE TABLE a (n integer)", "DROP TABLE b")
					return
				}
				if diff := cmp.Diff(before, query(t, eng, "SELECT * FROM schema_migrations")); diff != "" {
					t.Errorf("schema_migrations: (-before +after)\n%s", diff)
				}
				exec(t, eng, "CREATE TABLE a (n integer)", "CREATE TABLE b (n integer)")
			})
		})
	}
}

// A table that can't be understood is not taken for one without a version.
func TestUpRefusesTable(t *testing.T) {
	t.Parallel()
	files := map[string]string{"1_a.up.sql": "CREATE TABLE a (n integer)"}
	for name, text := range map[string]string{
		"two rows":        "CREATE TABLE schema_migrations (version bigint, dirty boolean); INSERT INTO schema_migrations VALUES (1, false), (2, false)",
		"null":            "CREATE TABLE schema_migrations (version bigint, dirty boolean); INSERT INTO schema_migrations VALUES (NULL, false)",
		"text":            "CREATE TABLE schema_migrations (version text, dirty boolean); INSERT INTO schema_migrations VALUES ('secret', false)",
		"another's table": "CREATE TABLE schema_migrations (version bigint, n integer)",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachEngine(t, func(t *testing.T, eng engine.Engine) {
				exec(t, eng, text)
				err := upFails(t, eng, files, "")
				if strings.Contains(err.Error(), "secret") {
					t.Errorf("Up: the error %q tells a value", err)
				}
				exec(t, eng, "CREATE TABLE a (n integer)")
			})
		})
	}
}

// pg_dump's output begins with this; nothing is found without a schema then.
func TestUpSearchPath(t *testing.T) {
	t.Parallel()
	eng := openEngine(t, testdb.Postgres(t))
	up(t, eng, map[string]string{
		"1_a.up.sql": "SELECT pg_catalog.set_config('search_path', '', false); CREATE TABLE public.a (n integer)",
		"2_b.up.sql": "CREATE FUNCTION f() RETURNS integer LANGUAGE plpgsql AS $$ BEGIN RETURN 2; END $$; INSERT INTO a VALUES (f())",
	})
	wantVersion(t, eng, "2")
	wantValue(t, eng, "SELECT n FROM a", "2")
}

func TestUpFromDirectory(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, eng engine.Engine) {
		dir := t.TempDir()
		if err := os.WriteFile(dir+"/1_a.up.sql", []byte("CREATE TABLE a (n integer)"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Up(t.Context(), eng, os.DirFS(dir)); err != nil {
			t.Fatalf("Up: %v", err)
		}
		wantVersion(t, eng, "1")
	})
}

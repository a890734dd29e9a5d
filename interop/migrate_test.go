package interop

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/testdb"
	"github.com/tholedb/thole/migrations"
)

// TestMigrateCommand runs the golang-migrate command on the folder that thole
// migrates by: either goes on where the other stopped.
func TestMigrateCommand(t *testing.T) {
	t.Parallel()
	command := filepath.Join(t.TempDir(), "migrate")
	build := exec.CommandContext(t.Context(), "go", "build", "-tags", "sqlite pgx5", "-o", command, "github.com/golang-migrate/migrate/v4/cmd/migrate")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	for name, c := range map[string]struct {
		url  func(tb testing.TB) string
		asks func(url string) string // how the command is given the database
	}{
		"sqlite": {testdb.SQLite, func(url string) string {
			return "sqlite://" + strings.ReplaceAll(strings.TrimPrefix(url, "sqlite:///"), "%2F", "/")
		}},
		"postgres": {testdb.Postgres, func(url string) string { return strings.Replace(url, "postgres://", "pgx5://", 1) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := c.url(t)
			migrate := func(args ...string) string {
				t.Helper()
				run := exec.CommandContext(t.Context(), command, append([]string{"-path", "../migrations", "-database", c.asks(url)}, args...)...)
				out, err := run.CombinedOutput()
				if err != nil {
					t.Errorf("migrate %s: %v\n%s", args, err, out)
				}
				return strings.TrimSpace(string(out))
			}
			migrate("up")
			applyAndCount(t, url)
			if got := migrate("version"); got != "1" {
				t.Errorf("version: got %q, want 1", got)
			}
			migrate("down", "-all")
			applyAndCount(t, url) // it applies them again
			if got := migrate("version"); got != "1" {
				t.Errorf("version: got %q, want 1", got)
			}
		})
	}
}

// applyAndCount has thole apply what is missing, and uses a table.
func applyAndCount(t *testing.T, url string) {
	t.Helper()
	db, err := thole.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if err := db.Migrate(t.Context(), migrations.FS); err != nil {
		t.Error(err)
	}
	if n, err := thole.One[int](t.Context(), db, "select count(*) from schema_migrations where version = 1"); err != nil || n != 1 {
		t.Errorf("got %d and error %v, want version 1", n, err)
	}
}

package thole_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestDependencies keeps test tools, and net/http, which is a third of a small
// binary, out of the programs that import the library.
func TestDependencies(t *testing.T) {
	t.Parallel()
	deps := strings.Fields(goTool(t, ".", "list", "-deps", "."))
	if !slices.Contains(deps, "github.com/tholedb/thole/internal/engine") {
		t.Fatalf("got %d packages without our own, want all that the library imports", len(deps))
	}
	for _, dep := range deps {
		for element := range strings.SplitSeq(dep, "/") {
			if slices.Contains([]string{"testing", "dockertest", "docker", "testdb", "conformance", "pgserver", "faults"}, element) {
				t.Errorf("the library depends on %s, which is for tests", dep)
			}
		}
		if dep == "net/http" {
			t.Error("the library depends on net/http")
		}
	}
}

// ofDocker matches the modules and packages that Docker brings.
var ofDocker = regexp.MustCompile(`(?i)[^\s"]*(docker|moby|containerd|opencontainers)[^\s"]*`)

// TestNoDocker looks for Docker in what a module gets that imports the library
// and tests with dbtest, and finds it in one that imports dockerpg.
func TestNoDocker(t *testing.T) {
	t.Parallel()
	const dbtest = "github.com/tholedb/thole/testing/dbtest"
	for _, tt := range []struct {
		tests string // what its tests import
		want  bool
	}{
		{tests: dbtest},
		{tests: dbtest + "/dockerpg", want: true},
	} {
		t.Run(tt.tests, func(t *testing.T) {
			t.Parallel()
			dir := scratchModule(t, tt.tests)
			deps := goTool(t, dir, "list", "-deps", "-test", "-f", "{{if not .Standard}}{{with .Module}}{{.Path}}{{end}}{{end}}", "./...")
			for what, text := range map[string]string{
				"go.mod":        goTool(t, dir, "mod", "edit", "-dropreplace=github.com/tholedb/thole", "-print"),
				"go.sum":        readFile(t, filepath.Join(dir, "go.sum")),
				"go list -deps": deps,
			} {
				found := ofDocker.FindAllString(text, -1)
				if got := len(found) > 0; got != tt.want {
					t.Errorf("%s has %q of Docker, want some: %v", what, found, tt.want)
				}
			}
		})
	}
}

// scratchModule makes a module outside this one, whose package imports the
// library and whose test imports another package.
func scratchModule(t *testing.T, tests string) string {
	t.Helper()
	here, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"scratch.go":      "package scratch\n\nimport _ \"github.com/tholedb/thole\"\n",
		"scratch_test.go": "package scratch\n\nimport _ \"" + tests + "\"\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	goTool(t, dir, "mod", "init", "example.com/scratch")
	goTool(t, dir, "mod", "edit", "-replace=github.com/tholedb/thole="+here)
	goTool(t, dir, "mod", "tidy")
	return dir
}

// goTool runs the go command in a folder and returns what it prints.
func goTool(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off")
	var failure strings.Builder
	cmd.Stderr = &failure
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, failure.String())
	}
	return string(out)
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

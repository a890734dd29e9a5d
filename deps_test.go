package thole_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestDependencies keeps test tools, and net/http, which is a third of a small
// binary, out of the programs that import the library.
func TestDependencies(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := strings.Fields(string(out))
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

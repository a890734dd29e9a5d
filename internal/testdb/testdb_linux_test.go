package testdb_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/tholedb/thole/internal/testdb"
)

const helper = "TESTDB_TEST_HELPER"

// TestHelper is the other process of TestB32NothingThere.
func TestHelper(t *testing.T) {
	t.Parallel()
	if os.Getenv(helper) == "" {
		t.Skip("run by another test in a process of its own")
	}
	testdb.Postgres(t)
}

// TestB32NothingThere runs a test where no PostgreSQL is to be found: it is
// skipped and says why, or fails where one is required.
func TestB32NothingThere(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to hide the programs of this machine")
	}
	sh, err := exec.LookPath("unshare")
	if err != nil {
		t.Skip(err)
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const hidden = `
		for dir in /usr/lib/postgresql /usr/pgsql-*; do
			[ ! -d "$dir" ] || mount -t tmpfs none "$dir" || exit
		done
		PATH= exec "$0" -test.v -test.run='^TestHelper$'`
	for _, tt := range []struct{ required, result, says string }{
		{"", "--- SKIP: TestHelper", "find a PostgreSQL server: DBTEST_URL: not set; PATH: no initdb"},
		{"postgres", "--- FAIL: TestHelper", "; Docker: not imported: import _ "},
		{"mysql", "--- FAIL: TestHelper", `DBTEST_REQUIRE is "mysql"`},
	} {
		t.Run("require "+tt.required, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), sh, "--mount", "sh", "-c", hidden, program)
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), helper + "=1", "DBTEST_REQUIRE=" + tt.required}
			out, err := cmd.CombinedOutput()
			if failed := err != nil; failed != (tt.required != "") {
				t.Errorf("the test has failed: %v", err)
			}
			if got := string(out); !strings.Contains(got, tt.result) || !strings.Contains(got, tt.says) {
				t.Errorf("the test said\n%swant %q and %q", got, tt.result, tt.says)
			}
		})
	}
}

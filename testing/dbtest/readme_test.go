package dbtest_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestReadme checks that the code of the page is that of examples/testing, whose
// tests run.
func TestReadme(t *testing.T) {
	t.Parallel()
	example := filesIn(t, filepath.Join("..", "..", "examples", "testing", "*"))
	blocks := regexp.MustCompile("(?s)\n```(?:go|sql)\n(.*?\n)```\n").FindAllStringSubmatch(readPage(t), -1)
	if len(blocks) == 0 {
		t.Fatal("no code in README.md")
	}
	for _, block := range blocks {
		if !strings.Contains(example, block[1]) {
			t.Errorf("examples/testing does not have this code of README.md:\n%s", block[1])
		}
	}
}

// TestReadmeVariables checks that the page has the variables that the code reads, but for
// those of this repository's own tests.
func TestReadmeVariables(t *testing.T) {
	t.Parallel()
	page := readPage(t)
	internal := filepath.Join("..", "..", "internal")
	code := filesIn(t, "*.go") + filesIn(t, filepath.Join(internal, "pgserver", "*.go")) +
		filesIn(t, filepath.Join(internal, "pgclone", "*.go")) + filesIn(t, filepath.Join(internal, "testdb", "*.go"))
	for _, name := range regexp.MustCompile(`\bDBTEST_[A-Z_]+\b`).FindAllString(code, -1) {
		ofTests := strings.HasPrefix(name, "DBTEST_TEST_")
		if !ofTests && !strings.Contains(page, "\n| `"+name) {
			t.Errorf("the table of README.md does not have %s", name)
		}
	}
}

func readPage(t *testing.T) string {
	t.Helper()
	return filesIn(t, "README.md")
}

// filesIn returns the text of all files that match a pattern.
func filesIn(t *testing.T, pattern string) string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		text.Write(content)
	}
	return text.String()
}

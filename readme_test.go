package thole_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestReadme runs the Go code of the README: its program, twice, its test, and
// what is no file of its own on a database of each engine.
func TestReadme(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	program := filepath.Join(dir, "main.go")
	files := []string{program}
	var fragments []string
	for _, block := range goBlocks(t, "README.md") {
		switch {
		case strings.HasPrefix(block, "package main") && strings.Contains(block, "func main()"):
			writeFile(t, program, block)
		case strings.HasPrefix(block, "package main"):
			files = append(files, filepath.Join(dir, "main_test.go"))
			writeFile(t, files[len(files)-1], block)
		case strings.HasPrefix(block, "package migrations"):
			vetMigrations(t, block)
		case strings.HasPrefix(block, "// postShield "):
			wantIn(t, filepath.Join("examples", "service", "shields.go"), block)
		default:
			fragments = append(fragments, block)
		}
	}
	files = append(files, filepath.Join(dir, "fragments_test.go"))
	writeFile(t, files[len(files)-1], fragmentsTest(fragments))
	command(t, ".", "go", slices.Concat([]string{"test"}, files)...)

	binary := filepath.Join(dir, "program.exe")
	command(t, ".", "go", "build", "-o", binary, program)
	for _, want := range []string{"forged Dragon Scale Shield", "there is such a shield"} {
		if out := command(t, dir, binary); !strings.Contains(out, want) {
			t.Errorf("output of the program: got %q, want %q in it", out, want)
		}
	}
}

// goBlocks returns the Go code of a Markdown file.
func goBlocks(t *testing.T, name string) []string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, found := range regexp.MustCompile("(?s)\n```go\n(.*?)\n```\n").FindAllSubmatch(text, -1) {
		blocks = append(blocks, string(found[1])+"\n")
	}
	if len(blocks) == 0 {
		t.Fatalf("no Go code in %s", name)
	}
	return blocks
}

// wantIn checks that the code stands in a file to the letter.
func wantIn(t *testing.T, name, code string) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), code) {
		t.Errorf("%s does not have this code of the README:\n%s", name, code)
	}
}

// vetMigrations compiles the package beside the migrations.
func vetMigrations(t *testing.T, source string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("migrations")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "migrations.go")
	writeFile(t, file, source)
	command(t, ".", "go", "vet", file)
}

// fragmentsTest is a test that stands beside the README's and runs each
// fragment with a ctx and a db.
func fragmentsTest(fragments []string) string {
	var b strings.Builder
	b.WriteString(`package main

import (
	"context"
	"fmt"
	"testing"

	"github.com/tholedb/thole"
)

func TestFragments(t *testing.T) {
	testdb.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		for i, fragment := range fragments {
			if err := fragment(t.Context(), db); err != nil {
				t.Errorf("fragment %d: %v", i, err)
			}
		}
	})
}

var fragments = []func(context.Context, *thole.DB) error{
`)
	for _, fragment := range fragments {
		fmt.Fprintf(&b, "func(ctx context.Context, db *thole.DB) error {\n%s},\n", fragment)
	}
	b.WriteString("}\n")
	return b.String()
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// command runs a program without DATABASE_URL and returns what it prints.
func command(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DATABASE_URL=")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out.String())
	}
	return out.String()
}

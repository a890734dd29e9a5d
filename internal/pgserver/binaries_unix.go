//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package pgserver

import (
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// binPatterns are where Debian, PostgreSQL's own RPMs, and Homebrew on Intel's
// and on Apple's processors put the programs of each version.
var binPatterns = []string{
	"/usr/lib/postgresql/*/bin",
	"/usr/pgsql-*/bin",
	"/usr/local/opt/postgresql*/bin",
	"/opt/homebrew/opt/postgresql*/bin",
}

// findBinaries returns the folder of initdb and postgres, and the places that
// were passed over; the folder is empty where no place has both.
func findBinaries() (string, []Passed) {
	var passed []Passed
	search := func(place string, dirs []string) string {
		if i := slices.IndexFunc(dirs, hasPrograms); i >= 0 {
			return dirs[i]
		}
		passed = append(passed, Passed{place, "no initdb with a postgres beside it"})
		return ""
	}
	dir := search("PATH", filepath.SplitList(os.Getenv("PATH")))
	for _, pattern := range binPatterns {
		if dir == "" {
			dir = search(pattern, newestFirst(pattern))
		}
	}
	if dir == "" {
		dir = search("pg_config --bindir", configured())
	}
	return dir, passed
}

// hasPrograms reports whether dir has what makes and runs a server.
func hasPrograms(dir string) bool {
	for _, name := range []string{"initdb", "postgres"} {
		if _, err := exec.LookPath(filepath.Join(dir, name)); err != nil {
			return false
		}
	}
	return filepath.IsAbs(dir) // the programs run in another folder than we
}

// newestFirst returns the folders that match pattern, highest version first.
func newestFirst(pattern string) []string {
	dirs, _ := filepath.Glob(pattern) // fails for a malformed pattern only
	slices.SortStableFunc(dirs, func(a, b string) int { return cmp.Compare(version(b), version(a)) })
	return dirs
}

var number = regexp.MustCompile(`\d+(\.\d+)?`)

// version is the last number in the path of a folder, as 16 in postgresql@16.
func version(dir string) float64 {
	numbers := number.FindAllString(dir, -1)
	if len(numbers) == 0 {
		return 0
	}
	v, _ := strconv.ParseFloat(numbers[len(numbers)-1], 64) // cannot fail
	return v
}

// configured is the folder that pg_config names.
func configured() []string {
	out, err := exec.Command("pg_config", "--bindir").Output()
	if err != nil {
		return nil
	}
	return []string{strings.TrimSpace(string(out))}
}

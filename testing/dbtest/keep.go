package dbtest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"
)

// This file is about keeping the database of a test for looking at it.

// keepVariable says which tests' databases are kept: those that failed, or all.
const (
	keepVariable = "DBTEST_KEEP"
	keepFailed   = "fail"
	keepAll      = "all"
)

// finish undoes what the test did, or keeps it and prints how to look at it.
func (r *rig) finish(ctx context.Context) error {
	r.tb.Helper()
	mode := os.Getenv(keepVariable)
	if mode != keepAll && (mode != keepFailed || !r.tb.Failed()) {
		return r.undo(ctx)
	}
	command, err := r.keep(ctx)
	if err != nil {
		r.tb.Logf("dbtest: the database is not kept: %v", err)
		return r.undo(ctx)
	}
	r.tb.Logf("dbtest: the database is kept: %s", command)
	return nil
}

// errors of what can't be kept.
var (
	errSandboxKept = errors.New("a sandbox is no database of its own; use dbtest.Database")
	errServerEnds  = errors.New("its server was started for these tests and ends with them; name one that stays in DBTEST_URL, " +
		"as DBTEST_URL=postgres://localhost/test")
)

func keepSandbox(context.Context) (string, error) { return "", errSandboxKept }

// keepFile copies the file of a database, which is closed, to where it stays.
func keepFile(test, path string) (command string, err error) {
	dir, err := os.MkdirTemp("", "dbtest-"+fileName(test)+"-")
	if err != nil {
		return "", err
	}
	kept := filepath.Join(dir, "test.db")
	if err := copyFile(path, kept); err != nil {
		return "", err
	}
	// What a database that was not closed properly has in its log.
	if err := copyFile(path+"-wal", kept+"-wal"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return "sqlite3 " + shellQuoted(kept), nil
}

func copyFile(from, to string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, 0o600)
}

var noFileName = regexp.MustCompile(`[^A-Za-z0-9_]+`)

// fileName is the name of a test as part of one of a file.
func fileName(test string) string {
	const most = 60
	name := noFileName.ReplaceAllString(test, "-")
	return name[:min(len(name), most)]
}

// psql is the command that connects to a database. It has no password in it.
func psql(cfg *pgx.ConnConfig) string {
	return fmt.Sprintf("psql -h %s -p %d -U %s %s", shellQuoted(cfg.Host), cfg.Port, shellQuoted(cfg.User), shellQuoted(cfg.Database))
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./:@-]+$`)

// shellQuoted is a word of a command.
func shellQuoted(word string) string {
	if plainWord.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

package migrate

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/golang-migrate/migrate/v4/source"

	"github.com/tholedb/thole/internal/sqltext"
)

// engineFolders are the folders of migrations that are not portable.
var engineFolders = []string{"postgres", "sqlite"}

// nameForm is golang-migrate's own, https://github.com/golang-migrate/migrate/blob/master/source/parse.go,
// for files of SQL.
var nameForm = regexp.MustCompile(`^([0-9]+)_(.*)\.(up|down)\.sql$`)

// sourceDriver is the migrations of one engine, read into memory: golang-migrate
// takes a file that it could read in part for a whole one.
type sourceDriver struct {
	index  *source.Migrations
	bodies map[string]string // by path
	last   int               // the highest version
}

// load reads the migrations for the engine of the name.
func load(files fs.FS, engine string, dialect sqltext.Dialect) (*sourceDriver, error) {
	dir, names, err := choose(files, engine)
	if err != nil {
		return nil, err
	}
	d := &sourceDriver{index: source.NewMigrations(), bodies: make(map[string]string)}
	for _, name := range names {
		if err := d.add(files, dir, name); err != nil {
			return nil, err
		}
	}
	return d, d.check(dialect)
}

// choose returns the folder that is meant for the engine, and its files.
func choose(files fs.FS, engine string) (dir string, names []string, err error) {
	found, err := layout(files)
	if err != nil {
		return "", nil, err
	}
	_, portable := found["."]
	switch {
	case len(found) == 0:
		return "", nil, nothing(files)
	case portable && len(found) > 1:
		return "", nil, errors.New("they stand in the root and in folders of engines: move those in the root into each folder, or all into the root")
	case portable:
		return ".", found["."], nil
	case len(found[engine]) == 0:
		return "", nil, fmt.Errorf("no folder %s, although there is one of another engine", engine)
	}
	return engine, found[engine], nil
}

// layout returns the files of SQL in the root, ".", and in the folders of
// engines, for each of these that has any.
func layout(files fs.FS) (map[string][]string, error) {
	found := make(map[string][]string)
	for _, dir := range append([]string{"."}, engineFolders...) {
		names, err := sqlFiles(files, dir)
		if err != nil {
			return nil, err
		}
		if len(names) > 0 {
			found[dir] = names
		}
	}
	return found, nil
}

// sqlFiles returns the names of the files of SQL in a folder, none if there is
// no such folder.
func sqlFiles(files fs.FS, dir string) ([]string, error) {
	info, err := fs.Stat(files, dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	entries, err := fs.ReadDir(files, dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() && strings.EqualFold(path.Ext(e.Name()), ".sql") {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// nothing is the error for files without a migration. An embedded folder keeps
// its name, so the migrations may stand one level below.
func nothing(files fs.FS) error {
	entries, err := fs.ReadDir(files, ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		sub, err := fs.Sub(files, e.Name())
		if err != nil || !e.IsDir() {
			continue
		}
		if found, err := layout(sub); err == nil && len(found) > 0 {
			return fmt.Errorf("none in the root, but in folder %s: pass fs.Sub(files, %q)", e.Name(), e.Name())
		}
	}
	return errors.New("there is none")
}

// add reads one file.
func (d *sourceDriver) add(files fs.FS, dir, name string) error {
	m, err := parseName(name)
	if err != nil {
		return fmt.Errorf("%s: %w", path.Join(dir, name), err)
	}
	m.Raw = path.Join(dir, name)
	if !d.index.Append(m) {
		return fmt.Errorf("%s: there is another %s file of version %d", m.Raw, m.Direction, m.Version)
	}
	body, err := fs.ReadFile(files, m.Raw)
	if err != nil {
		return err
	}
	d.bodies[m.Raw] = string(body)
	d.last = max(d.last, int(m.Version))
	return nil
}

// parseName reads VERSION_NAME.up.sql. The version fits an int, as which
// golang-migrate keeps it.
func parseName(name string) (*source.Migration, error) {
	parts := nameForm.FindStringSubmatch(name)
	if parts == nil {
		return nil, errors.New("not called VERSION_NAME.up.sql or VERSION_NAME.down.sql, with a version of digits")
	}
	version, err := strconv.ParseUint(parts[1], 10, strconv.IntSize-1)
	if err != nil || version == 0 {
		return nil, fmt.Errorf("version is not between 1 and %d", math.MaxInt)
	}
	return &source.Migration{Version: uint(version), Identifier: parts[2], Direction: source.Direction(parts[3])}, nil
}

// check reports what is wrong with the files, before any of them runs.
func (d *sourceDriver) check(dialect sqltext.Dialect) error {
	for version, err := d.First(); err == nil; version, err = d.Next(version) {
		up, ok := d.index.Up(version)
		if !ok {
			down, _ := d.index.Down(version)
			return fmt.Errorf("%s: there is no up file of version %d", down.Raw, version)
		}
		if strings.TrimSpace(d.bodies[up.Raw]) == "" {
			return fmt.Errorf("%s: empty; if that is meant, say so in a comment", up.Raw)
		}
	}
	for _, file := range slices.Sorted(maps.Keys(d.bodies)) {
		if err := checkBody(dialect, d.bodies[file]); err != nil {
			return fmt.Errorf("%s:%w", file, err)
		}
	}
	return nil
}

// checkBody refuses what would undo that a migration is one transaction.
func checkBody(dialect sqltext.Dialect, body string) error {
	for stmt := range sqltext.Statements(dialect, body) {
		line := 1 + strings.Count(body[:stmt.Pos], "\n")
		if stmt.Verb != 0 && !stmt.Verb.IsSavepoint() {
			return fmt.Errorf("%d: %v: a migration runs in a transaction of its own", line, stmt.Verb)
		}
		if setsForeignKeys(dialect, stmt.Text) {
			return fmt.Errorf("%d: PRAGMA foreign_keys: has no effect in the transaction of a migration", line)
		}
	}
	return nil
}

// setsForeignKeys reports whether stmt is a PRAGMA foreign_keys. SQLite ignores
// it inside a transaction, so that the DROP TABLE which it was to guard deletes
// the rows of the tables that refer to it:
// https://sqlite.org/pragma.html#pragma_foreign_keys.
func setsForeignKeys(dialect sqltext.Dialect, stmt string) bool {
	var words []string
	for tok := range dialect.Tokens(stmt) {
		if tok.Kind == sqltext.Word || tok.Kind == sqltext.QuotedName {
			words = append(words, strings.ToLower(strings.Trim(tok.Text, "\"`[]")))
		}
		if len(words) == 3 { // PRAGMA main.foreign_keys
			break
		}
	}
	return len(words) > 1 && words[0] == "pragma" && slices.Contains(words, "foreign_keys")
}

// has reports whether version is one of the files'. The number comes from a
// database, and may be any.
func (d *sourceDriver) has(version int64) bool {
	_, ok := d.index.Up(uint(version))
	return ok && version > 0 && uint64(uint(version)) == uint64(version)
}

// First returns the lowest version.
func (d *sourceDriver) First() (uint, error) {
	version, ok := d.index.First()
	return version, exists(ok)
}

// Prev returns the version before the given one.
func (d *sourceDriver) Prev(version uint) (uint, error) {
	prev, ok := d.index.Prev(version)
	return prev, exists(ok)
}

// Next returns the version after the given one.
func (d *sourceDriver) Next(version uint) (uint, error) {
	next, ok := d.index.Next(version)
	return next, exists(ok)
}

// ReadUp returns the body of the up file and the name in its file name.
func (d *sourceDriver) ReadUp(version uint) (io.ReadCloser, string, error) {
	return d.open(d.index.Up(version))
}

// ReadDown returns the body of the down file and the name in its file name.
func (d *sourceDriver) ReadDown(version uint) (io.ReadCloser, string, error) {
	return d.open(d.index.Down(version))
}

func (d *sourceDriver) open(m *source.Migration, ok bool) (io.ReadCloser, string, error) {
	if !ok {
		return nil, "", fs.ErrNotExist
	}
	return io.NopCloser(strings.NewReader(d.bodies[m.Raw])), m.Identifier, nil
}

// Open is not for this driver, which is made by load.
func (d *sourceDriver) Open(string) (source.Driver, error) { return nil, errors.ErrUnsupported }

// Close has nothing to close.
func (d *sourceDriver) Close() error { return nil }

// exists is golang-migrate's way to say that there is no such version.
func exists(ok bool) error {
	if !ok {
		return fs.ErrNotExist
	}
	return nil
}

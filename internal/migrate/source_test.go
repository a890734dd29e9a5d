package migrate

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/golang-migrate/migrate/v4/source"
	"github.com/google/go-cmp/cmp"

	"github.com/tholedb/thole/internal/sqltext"
)

// memFS makes a file system of paths and their texts.
func memFS(files map[string]string) fstest.MapFS {
	m := make(fstest.MapFS)
	for path, text := range files {
		m[path] = &fstest.MapFile{Data: []byte(text)}
	}
	return m
}

func TestLoad(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		files map[string]string
		want  []string // "version identifier: up body", in order
	}{
		{
			"root",
			map[string]string{"1_a.up.sql": "A", "1_a.down.sql": "-A", "2_b.up.sql": "B"},
			[]string{"1 a: A", "2 b: B"},
		},
		{
			"folder of the engine",
			map[string]string{"sqlite/1_a.up.sql": "S", "postgres/1_a.up.sql": "P", "postgres/2_b.up.sql": "P"},
			[]string{"1 a: S"},
		},
		{
			"versions are numbers",
			map[string]string{"10_c.up.sql": "C", "9_b.up.sql": "B", "0001_a.up.sql": "A", "1795000000_d.up.sql": "D"},
			[]string{"1 a: A", "9 b: B", "10 c: C", "1795000000 d: D"},
		},
		{
			"names as golang-migrate has them",
			map[string]string{"1_.up.sql": "A", "2_b c.d.up.sql": "B", "3_c_d.down.up.sql": "C"},
			[]string{"1 : A", "2 b c.d: B", "3 c_d.down: C"},
		},
		{
			"what is not SQL is ignored",
			map[string]string{
				"1_a.up.sql": "A", "migrations.go": "package migrations", "migrations.sum": "", "README.md": "",
				"old/2_b.up.sql": "B", "x.sql/README": "", "postgres/README": "", "sqlite": "a file",
			},
			[]string{"1 a: A"},
		},
		{
			"line ends and comments stay",
			map[string]string{"1_a.up.sql": "-- nothing\r\n"},
			[]string{"1 a: -- nothing\r\n"},
		},
		{
			"what looks like control of the transaction",
			map[string]string{"1_a.up.sql": "SAVEPOINT x; RELEASE x; -- COMMIT;\nSELECT 'COMMIT;', 'PRAGMA foreign_keys'; PRAGMA user_version; " +
				"CREATE TRIGGER t AFTER INSERT ON s BEGIN SELECT foreign_keys FROM pragma; END"},
			[]string{"1 a: SAVEPOINT x; RELEASE x; -- COMMIT;\nSELECT 'COMMIT;', 'PRAGMA foreign_keys'; PRAGMA user_version; " +
				"CREATE TRIGGER t AFTER INSERT ON s BEGIN SELECT foreign_keys FROM pragma; END"},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d, err := load(memFS(test.files), "sqlite", sqltext.SQLite)
			if err != nil {
				t.Fatalf("load: %v", err)
			}
			if diff := cmp.Diff(test.want, contents(t, d)); diff != "" {
				t.Errorf("load: (-want +got)\n%s", diff)
			}
		})
	}
}

// contents lists the migrations the way golang-migrate reads them.
func contents(t *testing.T, d *sourceDriver) (list []string) {
	t.Helper()
	version, err := d.First()
	for ; err == nil; version, err = d.Next(version) {
		r, name, err := d.ReadUp(version)
		if err != nil {
			t.Fatalf("ReadUp(%d): %v", version, err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatalf("read version %d: %v", version, err)
		}
		list = append(list, fmt.Sprintf("%d %s: %s", version, name, body))
	}
	if !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("after the last version: got %v, want os.ErrNotExist", err)
	}
	return list
}

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	const ok = "SELECT 1"
	tooLarge := strconv.FormatUint(1<<(strconv.IntSize-1), 10)
	tests := []struct {
		name  string
		files map[string]string
		want  []string // parts of the message
	}{
		{"nothing", nil, []string{"none"}},
		{"no SQL", map[string]string{"migrations.go": "package migrations"}, []string{"none"}},
		{"embedded folder", map[string]string{"migrations/1_a.up.sql": ok}, []string{`fs.Sub(files, "migrations")`}},
		{"embedded folder of folders", map[string]string{"db/sqlite/1_a.up.sql": ok, "go.mod": ""}, []string{`fs.Sub(files, "db")`}},
		{"root and folders", map[string]string{"1_a.up.sql": ok, "sqlite/2_b.up.sql": ok, "postgres/2_b.up.sql": ok}, []string{"root", "folders"}},
		{"other engine only", map[string]string{"postgres/1_a.up.sql": ok}, []string{"no folder sqlite"}},
		{"no version", map[string]string{"a.up.sql": ok}, []string{"a.up.sql", "VERSION_NAME.up.sql"}},
		{"letter before the version", map[string]string{"V4__d.up.sql": ok}, []string{"V4__d.up.sql"}},
		{"hyphen", map[string]string{"2-b.up.sql": ok}, []string{"2-b.up.sql"}},
		{"no direction", map[string]string{"3_c.sql": ok}, []string{"3_c.sql"}},
		{"direction in capitals", map[string]string{"3_c.UP.sql": ok}, []string{"3_c.UP.sql"}},
		{"extension in capitals", map[string]string{"3_c.up.SQL": ok}, []string{"3_c.up.SQL"}},
		{"misnamed in a folder", map[string]string{"sqlite/3_c.sql": ok}, []string{"sqlite/3_c.sql"}},
		{"version 0", map[string]string{"000_a.up.sql": ok}, []string{"000_a.up.sql", "version"}},
		{"version too large", map[string]string{tooLarge + "_a.up.sql": ok}, []string{tooLarge + "_a.up.sql", "version"}},
		{"version much too large", map[string]string{"99999999999999999999_a.up.sql": ok}, []string{"version"}},
		{"same version", map[string]string{"1_a.up.sql": ok, "01_b.up.sql": ok}, []string{"1_a.up.sql", "up file of version 1"}},
		{"same version down", map[string]string{"1_a.up.sql": ok, "1_a.down.sql": ok, "1_b.down.sql": ok}, []string{"1_b.down.sql", "down file of version 1"}},
		{"down only", map[string]string{"1_a.up.sql": ok, "2_b.down.sql": ok}, []string{"2_b.down.sql", "no up file"}},
		{"empty", map[string]string{"1_a.up.sql": " \r\n"}, []string{"1_a.up.sql", "empty"}},
		{"commit", map[string]string{"1_a.up.sql": "BEGIN;\n" + ok + ";\nCOMMIT;"}, []string{"1_a.up.sql:1: BEGIN"}},
		{"rollback behind a savepoint", map[string]string{"1_a.up.sql": "SAVEPOINT x;\n/* a\n */ ROLLBACK;"}, []string{"1_a.up.sql:2: ROLLBACK"}},
		{"commit in the down file", map[string]string{"1_a.up.sql": ok, "1_a.down.sql": ok + ";\ncommit"}, []string{"1_a.down.sql:2: COMMIT"}},
		{"foreign keys", map[string]string{"sqlite/1_a.up.sql": ok + ";\npragma foreign_keys=off"}, []string{"sqlite/1_a.up.sql:2: PRAGMA foreign_keys"}},
		{"foreign keys of a schema", map[string]string{"1_a.up.sql": `PRAGMA main."foreign_keys" (off)`}, []string{"1_a.up.sql:1: PRAGMA foreign_keys"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d, err := load(memFS(test.files), "sqlite", sqltext.SQLite)
			if err == nil {
				t.Fatalf("load: got %v, want an error", contents(t, d))
			}
			for _, part := range test.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("load: got %q, want %q in it", err, part)
				}
			}
		})
	}
}

// faultyFS breaks off in the middle of one of its files.
type faultyFS struct {
	fs.FS
	name string
}

var errFaulty = errors.New("device is gone")

func (f faultyFS) Open(name string) (fs.File, error) {
	file, err := f.FS.Open(name)
	if err == nil && name == f.name {
		return faultyFile{file, io.LimitReader(file, 26)}, nil
	}
	return file, err
}

type faultyFile struct {
	fs.File
	half io.Reader
}

func (f faultyFile) Read(p []byte) (int, error) {
	n, err := f.half.Read(p)
	if errors.Is(err, io.EOF) {
		err = errFaulty
	}
	return n, err
}

func TestLoadReportsReadError(t *testing.T) {
	t.Parallel()
	files := memFS(map[string]string{"1_a.up.sql": "SELECT 1", "2_b.up.sql": strings.Repeat("SELECT 1;\n", 10)})
	_, err := load(faultyFS{files, "2_b.up.sql"}, "sqlite", sqltext.SQLite)
	if !errors.Is(err, errFaulty) {
		t.Errorf("load: got %v, want %v", err, errFaulty)
	}
}

// hidingFS doesn't let its root be listed.
type hidingFS struct{ fs.FS }

func (f hidingFS) ReadDir(string) ([]fs.DirEntry, error) { return nil, errFaulty }

func TestLoadReportsListError(t *testing.T) {
	t.Parallel()
	_, err := load(hidingFS{memFS(map[string]string{"1_a.up.sql": "SELECT 1"})}, "sqlite", sqltext.SQLite)
	if !errors.Is(err, errFaulty) {
		t.Errorf("load: got %v, want %v", err, errFaulty)
	}
}

func TestLoadMissingFolder(t *testing.T) {
	t.Parallel()
	_, err := load(os.DirFS(t.TempDir()+"/nowhere"), "sqlite", sqltext.SQLite)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("load: got %v, want %v", err, fs.ErrNotExist)
	}
}

func TestHas(t *testing.T) {
	t.Parallel()
	d, err := load(memFS(map[string]string{"1_a.up.sql": "A", "3_b.up.sql": "B"}), "sqlite", sqltext.SQLite)
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	want := map[int64]bool{-1: false, 0: false, 1: true, 2: false, 3: true, 4: false, 1<<32 + 1: false, -1 << 63: false}
	got := make(map[int64]bool)
	for version := range maps.Keys(want) {
		got[version] = d.has(version)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("has: (-want +got)\n%s", diff)
	}
}

// FuzzParseName holds parseName against golang-migrate: what it takes is the same
// migration there, and what it refuses has another form, or a version that is 0
// or no int.
func FuzzParseName(f *testing.F) {
	for _, name := range []string{
		"1_a.up.sql", "000001_armoury.down.sql", "20261123003400_x.up.sql", "1_a.down.up.sql", "1_.up.sql", "0_a.up.sql",
		"1_a.up.sql.sql", "1_a.up.SQL", "9223372036854775808_a.up.sql", "١_a.up.sql", "1_a\n.up.sql", "-1_a.up.sql", "a.sql", "",
	} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		got, err := parseName(name)
		want, wantErr := source.Parse(name)
		switch {
		case err == nil && wantErr != nil:
			t.Errorf("parseName(%q): got %+v, but golang-migrate says %v", name, got, wantErr)
		case err == nil:
			want.Raw = ""
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("parseName(%q): (-golang-migrate +got)\n%s", name, diff)
			}
		case nameForm.MatchString(name):
			digits, _, _ := strings.Cut(name, "_")
			if version, err := strconv.Atoi(digits); err == nil && version > 0 {
				t.Errorf("parseName(%q): refused, want version %d", name, version)
			}
		}
	})
}

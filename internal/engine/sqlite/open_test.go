package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	osexec "os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"modernc.org/sqlite"

	"github.com/tholedb/thole/internal/engine"
)

var quiet = engine.Env{Log: slog.New(slog.DiscardHandler), Sessions: &engine.Registry{}}

func TestOpenNamesThePathLiterally(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{
		"a b%20c?d#e.db", "plain", "Grüße 世界.db", "%", "a&b=c+d;e'f\"g", ":memory:", "?mode=memory", "file:x", "tab\tnew\nline", "\xff\xfe",
	} {
		path := dir + "/./" + name
		e := open(t, Config{Path: path})
		run(t, e, "CREATE TABLE t (a)")
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
			t.Errorf("file %q: got %v, %v, want one with a table", name, info, err)
		}
		if err := e.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 10 {
		t.Errorf("files in the folder: got %d, %v, want 10", len(files), err)
	}
}

// run runs a statement outside a session.
func run(t *testing.T, e *Engine, query string, args ...any) driver.Result {
	t.Helper()
	return exec(t, auto(t, e), query, args...)
}

func TestOpenCreatesForTheOwner(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no such modes")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "a", "b", "app.db")
	e := open(t, Config{Path: path})
	run(t, e, "CREATE TABLE t (a)")
	modes := map[string]fs.FileMode{
		dir: 0o755, filepath.Join(dir, "a"): 0o700, filepath.Join(dir, "a", "b"): 0o700, path: 0o600, path + "-wal": 0o600, path + "-shm": 0o600,
	}
	for path, want := range modes {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("mode of %s: got %v, %v, want %v", path, info, err, want)
		}
	}
}

func TestOpenLeavesAFileAsItIs(t *testing.T) {
	t.Parallel()
	cfg := file(t)
	run(t, open(t, cfg), "CREATE TABLE t (a)")
	if err := os.Chmod(cfg.Path, 0o640); err != nil {
		t.Fatal(err)
	}
	same(t, "rows", rowsOf(t, auto(t, open(t, cfg)), "SELECT * FROM t"), [][]driver.Value(nil))
	if info, err := os.Stat(cfg.Path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode: got %v, %v, want 0640", info.Mode(), err)
	}
}

func TestOpenFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte(strings.Repeat("this is no database\n", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("no such collation")
	tests := map[string]struct {
		cfg  Config
		part string
		kind error
	}{
		"no database":         {Config{Path: text}, "file is not a database (SQLITE_NOTADB)", nil},
		"a folder":            {Config{Path: dir}, "unable to open database file", nil},
		"a file as a folder":  {Config{Path: text + "/app.db"}, "create folder", nil},
		"NUL":                 {Config{Path: "a\x00b"}, "NUL", engine.ErrURL},
		"synchronous=off":     {Config{Synchronous: "OFF"}, "synchronous=off is not supported", engine.ErrURL},
		"too many readers":    {Config{Readers: maxReaders + 1}, "readers is a number", engine.ErrURL},
		"short busy timeout":  {Config{BusyTimeout: 1}, "busy_timeout is", engine.ErrURL},
		"driver that refuses": {Config{Driver: func(*sqlite.Driver) error { return broken }}, "configure driver: no such collation", broken},
		"a hook that unsets a pragma": {
			Config{Driver: func(d *sqlite.Driver) error {
				d.RegisterConnectionHook(func(c sqlite.ExecQuerierContext, _ string) error {
					// foreign_keys can't be changed within a transaction
					_, err := c.ExecContext(context.Background(), "BEGIN", nil)
					return err
				})
				return nil
			}},
			"set PRAGMA foreign_keys: it is 0 instead of 1", nil,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Open(t.Context(), test.cfg, quiet)
			if err == nil {
				t.Fatal("Open: got no error, want one")
			}
			contains(t, err, test.part)
			if test.kind != nil {
				is(t, err, test.kind)
			}
		})
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	cfg := file(t)
	_, err := Open(cancelled, cfg, quiet)
	is(t, err, context.Canceled)
	if _, err := os.Stat(cfg.Path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("file after a cancelled Open: got %v, want none", err)
	}
}

// Every connection is set up, and says so itself.
func TestPragmas(t *testing.T) {
	t.Parallel()
	cfg := file(t)
	cfg.Synchronous, cfg.BusyTimeout, cfg.Readers = "Normal", 1234*time.Millisecond, 2
	e := open(t, cfg)
	reader, other := begin(t, e, engine.Options{ReadOnly: true}), begin(t, e, engine.Options{ReadOnly: true})
	defer rollback(t, reader)
	defer rollback(t, other)
	writer := begin(t, e, engine.Options{})
	defer rollback(t, writer)

	memory := begin(t, open(t, Config{}), engine.Options{})
	defer rollback(t, memory)
	reading := begin(t, open(t, Config{}), engine.Options{ReadOnly: true})
	defer rollback(t, reading)

	pragmas := []string{"journal_mode", "synchronous", "foreign_keys", "busy_timeout", "temp_store", "query_only"}
	tests := []struct {
		name string
		s    engine.Session
		want string
	}{
		{"writer", writer, "wal 1 1 0 2 0"},
		{"reader", reader, "wal 1 1 1234 2 1"},
		{"other reader", other, "wal 1 1 1234 2 1"},
		{"memory", memory, "memory 2 1 0 2 0"},
		{"memory, read-only", reading, "memory 2 1 0 2 1"},
	}
	for _, test := range tests {
		var got []string
		for _, pragma := range pragmas {
			got = append(got, fmt.Sprint(value(t, test.s, "PRAGMA "+pragma)))
		}
		same(t, test.name+": "+strings.Join(pragmas, " "), strings.Join(got, " "), test.want)
	}
}

func TestDriver(t *testing.T) {
	t.Parallel()
	calls, hooks := 0, 0
	var mu sync.Mutex
	cfg := file(t)
	cfg.Readers = 1
	cfg.Driver = func(d *sqlite.Driver) error {
		calls++
		d.RegisterConnectionHook(func(sqlite.ExecQuerierContext, string) error {
			mu.Lock()
			defer mu.Unlock()
			hooks++
			return nil
		})
		return d.RegisterScalarFunction("answer", 0, func(*sqlite.FunctionContext, []driver.Value) (driver.Value, error) {
			return int64(42), nil
		})
	}
	e := open(t, cfg)
	for _, opts := range []engine.Options{{}, {ReadOnly: true}, {ReadOnly: true}} {
		s := begin(t, e, opts)
		same(t, "answer()", value(t, s, "SELECT answer()"), driver.Value(int64(42)))
		commit(t, s)
	}
	same(t, "calls of Driver", calls, 1)
	same(t, "calls of the hook", hooks, 2) // the writer and a reader
}

// A reader is opened when it is first needed: in the folder that a relative path began in.
func TestRelativePath(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	t.Chdir(dir)
	e := open(t, Config{Path: "data/app.db"})
	same(t, "name", e.String(), "data/app.db")
	run(t, e, "CREATE TABLE t (a)")
	t.Chdir(elsewhere)
	same(t, "tables", value(t, auto(t, e), "SELECT count(*) FROM t"), driver.Value(int64(0)))
}

// A connection is made new when its state isn't known.
func TestBrokenConnectionIsReplaced(t *testing.T) {
	t.Parallel()
	e, log := openLogged(t, file(t))
	s := begin(t, e, engine.Options{})
	before := e.writer.slot.conn
	before.broken = true
	commit(t, s)
	run(t, e, "CREATE TABLE t (a)")
	if e.writer.slot.conn == before {
		t.Error("connection of the writer: got the broken one, want another")
	}
	if !strings.Contains(log.String(), "replacing a connection") {
		t.Errorf("log: got %q, want a word about it", log)
	}
}

func TestBrokenConnectionOfMemoryIsKept(t *testing.T) {
	t.Parallel()
	e, log := openLogged(t, Config{})
	run(t, e, "CREATE TABLE t (a)")
	s := begin(t, e, engine.Options{})
	e.writer.slot.conn.broken = true
	commit(t, s)
	run(t, e, "INSERT INTO t VALUES (1)")
	if !strings.Contains(log.String(), "unknown state") {
		t.Errorf("log: got %q, want a word about it", log)
	}
}

// openerVar makes the test binary open a database and write to it.
const openerVar = "THOLE_TEST_OPEN"

func openAndWrite(path string) int {
	ctx := context.Background()
	e, err := Open(ctx, Config{Path: path}, quiet)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	c, _ := e.Conn(ctx)
	if _, err := c.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS t (a); INSERT INTO t VALUES (1)", nil); err != nil {
		fmt.Println(err)
		return 1
	}
	if err := e.Close(ctx); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// Several processes open the same new file at once: each of them wants to switch it to WAL.
func TestOpenAtOnce(t *testing.T) {
	t.Parallel()
	const rounds, processes, goroutines = 3, 4, 4
	for range rounds {
		path := file(t).Path
		var wg sync.WaitGroup
		for range processes {
			wg.Go(func() {
				cmd := osexec.CommandContext(t.Context(), os.Args[0])
				cmd.Env = append(os.Environ(), openerVar+"="+path)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("process: got %v, %s", err, out)
				}
			})
		}
		for range goroutines {
			wg.Go(func() {
				e, err := Open(t.Context(), Config{Path: path}, quiet)
				if err != nil {
					t.Errorf("Open: got %v, want no error", err)
					return
				}
				if err := e.Close(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		same(t, "rows", value(t, auto(t, open(t, Config{Path: path})), "SELECT count(*) FROM t"), driver.Value(int64(processes)))
	}
}

// lockNewFile makes a file that isn't in WAL mode yet, with another's lock on it, and returns how to give that up.
func lockNewFile(t *testing.T, path string) (unlock func()) {
	t.Helper()
	raw, err := new(sqlite.Driver).Open(path)
	if err != nil {
		t.Fatal(err)
	}
	other := newConn(raw)
	t.Cleanup(func() { _ = other.raw.Close() })
	if err := other.settle(t.Context(), "CREATE TABLE t (a); BEGIN EXCLUSIVE"); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := other.commit(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

func TestOpenWaitsToSwitchToWAL(t *testing.T) {
	t.Parallel()
	cfg := file(t)
	cfg.BusyTimeout = time.Millisecond // not SQLite, but Open waits
	unlock := lockNewFile(t, cfg.Path)

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := Open(ctx, cfg, quiet)
	is(t, err, engine.ErrTimeout, context.DeadlineExceeded)

	var opening sync.WaitGroup
	opening.Add(1)
	cfg.Driver = func(d *sqlite.Driver) error {
		d.RegisterConnectionHook(func(sqlite.ExecQuerierContext, string) error {
			opening.Done()
			return nil
		})
		return nil
	}
	opened := make(chan error)
	go func() {
		e, err := Open(context.Background(), cfg, quiet)
		if err == nil {
			err = e.Close(context.Background())
		}
		opened <- err
	}()
	opening.Wait()
	time.Sleep(20 * time.Millisecond) // so that it has failed a few times
	unlock()
	if err := <-opened; err != nil {
		t.Errorf("Open: got %v, want no error", err)
	}
}

// TestOpenBehindLink makes the file that a link leads to, for its owner only.
func TestOpenBehindLink(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, link := filepath.Join(dir, "real.db"), filepath.Join(dir, "link.db")
	if err := os.Symlink(file, link); err != nil {
		t.Skip(err) // Windows asks for a privilege
	}
	e, err := Open(t.Context(), Config{Path: link}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close(t.Context())
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v and error %v, want 0600", info, err)
	}
}

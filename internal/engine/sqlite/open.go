package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tholedb/thole/internal/engine"
)

// walPatience bounds how long connect waits while other processes open the same new file.
const walPatience = 10 * time.Second

// Open opens the database, and creates it if it doesn't exist. Its errors are, or wrap, an [*engine.Error].
func Open(ctx context.Context, cfg Config, env engine.Env) (*Engine, error) {
	return openWith(ctx, cfg, nil, env)
}

func openWith(ctx context.Context, cfg Config, image []byte, env engine.Env) (*Engine, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	e := &Engine{name: cfg.String(), cfg: cfg, image: image, env: env, groupPatience: groupPatience}
	if err := e.open(ctx); err != nil {
		return nil, during(ctx, e.name, err)
	}
	return e, nil
}

// String says which database it is.
func (c Config) String() string {
	if c.inMemory() {
		return "in-memory"
	}
	return c.Path
}

func (e *Engine) open(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !e.cfg.inMemory() {
		path, err := filepath.Abs(e.cfg.Path) // connections are opened later too, in whatever folder
		if err != nil {
			return err
		}
		e.cfg.Path = path
		if err := create(path); err != nil {
			return err
		}
	}
	if e.cfg.Driver != nil {
		if err := e.cfg.Driver(&e.driver); err != nil {
			return fmt.Errorf("configure driver: %w", err)
		}
	}
	e.makePools()
	c, err := e.connect(ctx, false)
	if err != nil {
		return err
	}
	e.writer.slot.conn = c
	return nil
}

// creating keeps others in this process from having a lock on the new file that create closes: closing a file drops all
// locks that its process has on it,
// https://sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_.
var creating sync.Mutex

// create makes an empty file for its owner only, which SQLite's -wal and -shm follow, and the folders above it. It
// doesn't open a file that exists, also behind a link.
func create(path string) error {
	creating.Lock()
	defer creating.Unlock()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("create folder: %w", err)
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) // the link leads to no file yet
	}
	if err != nil {
		return fmt.Errorf("create file: %w", err)
	}
	return file.Close()
}

// dsn returns what the driver calls the database by. The path stands in it so that no byte has a meaning,
// https://sqlite.org/uri.html.
//
// The driver reads times as UTC; those that it is given CheckNamedValue has written. What functions of the caller's return
// it writes as "2006-01-02 15:04:05.999999999+00:00". _error_rc keeps it from adding the text of another error.
func dsn(cfg Config) string {
	const options = "?_time_format=sqlite&_timezone=UTC&_error_rc=1"
	if cfg.inMemory() {
		return "file::memory:" + options
	}
	path := filepath.ToSlash(cfg.Path)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // a drive of Windows
	}
	return "file://" + escape(path) + options
}

// escape writes every byte of a path as %XX that could mean something in a URL.
func escape(path string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/"
	var b strings.Builder
	for i := range len(path) {
		if strings.IndexByte(plain, path[i]) >= 0 {
			b.WriteByte(path[i])
		} else {
			fmt.Fprintf(&b, "%%%02X", path[i])
		}
	}
	return b.String()
}

// connect opens a connection and sets it up.
func (e *Engine) connect(ctx context.Context, queryOnly bool) (*conn, error) {
	raw, err := e.driver.Open(dsn(e.cfg))
	if err != nil {
		return nil, err
	}
	c := newConn(raw)
	err = c.load(e.image)
	if err == nil {
		err = e.setUp(ctx, c, queryOnly)
	}
	if err != nil {
		_ = c.close()
		return nil, err
	}
	return c, nil
}

// setUp sets each pragma that thole relies on, and reads the database, which may not be one.
func (e *Engine) setUp(ctx context.Context, c *conn, queryOnly bool) error {
	busy := strconv.FormatInt(e.cfg.BusyTimeout.Milliseconds(), 10)
	if err := c.set(ctx, setting{"busy_timeout", busy, busy}); err != nil {
		return err
	}
	if !e.cfg.inMemory() {
		if err := c.enterWAL(ctx); err != nil {
			return err
		}
	}
	settings := []setting{
		{"foreign_keys", "1", "1"},
		{"synchronous", e.cfg.Synchronous, synchronous[e.cfg.Synchronous]},
		{"temp_store", "MEMORY", "2"}, // a large savepoint would write a file else
		{"journal_size_limit", strconv.Itoa(walLimit), strconv.Itoa(walLimit)},
	}
	if queryOnly {
		settings = append(settings, setting{"query_only", "1", "1"})
		c.queryOnly = true
	}
	for _, s := range settings {
		if err := c.set(ctx, s); err != nil {
			return err
		}
	}
	if _, err := c.ask(ctx, "SELECT count(*) FROM sqlite_schema"); err != nil {
		return err
	}
	if queryOnly {
		return nil
	}
	return c.set(ctx, setting{"busy_timeout", "0", "0"}) // see beginImmediate
}

// enterWAL switches to a write-ahead log, which is a property of the file. The first to do so needs it for himself, and
// SQLite doesn't always wait for that.
func (c *conn) enterWAL(ctx context.Context) error {
	return untilFree(ctx, time.Now(), walPatience, func() error { return c.set(ctx, setting{"journal_mode", "WAL", "wal"}) })
}

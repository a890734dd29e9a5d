package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/tholedb/thole/internal/engine"
)

// SQLite writes the write-ahead log anew from its beginning when all of it is in the database and nobody reads from it.
// A reader that reads for long, or ever new ones that leave no gap, keep it from that, and it grows,
// https://sqlite.org/wal.html#avoiding_excessively_large_wal_files.

const (
	walLimit    = 64 << 20 // bytes that the log may have
	walInterval = time.Second
	walWarning  = time.Minute // between two warnings

	// walPause is how long the writer waits for those who read so that the log can begin anew, unless one of them
	// has been reading for as long as walLong.
	walPause = 250 * time.Millisecond
	walLong  = time.Second
)

// wal is what the writer knows of the write-ahead log.
type wal struct {
	path   string
	limit  int64
	looked time.Time
	warned time.Time
}

// locate finds the file, which is beside that which links lead to.
func (e *Engine) locate() {
	path, err := filepath.EvalSymlinks(e.cfg.Path)
	if err != nil {
		path = e.cfg.Path
	}
	e.writer.wal = wal{path: path + "-wal", limit: walLimit}
}

// tend looks after the log, between two transactions.
func (w *writer) tend(ctx context.Context, e *Engine, now time.Time) {
	if w.wal.path == "" || now.Sub(w.wal.looked) < walInterval {
		return
	}
	w.wal.looked = now
	file, err := os.Stat(w.wal.path)
	if err != nil || file.Size() <= w.wal.limit {
		return
	}
	reader := e.oldestReader()
	if w.empty(ctx, reader != nil && now.Sub(reader.Began) > walLong) || now.Sub(w.wal.warned) < walWarning {
		return
	}
	w.wal.warned = now
	name := "another process"
	if reader != nil {
		name = reader.String()
	}
	e.env.Log.WarnContext(ctx, "thole: the write-ahead log grows, for those who read need what is in it; for longest "+name,
		"database", e.name, "bytes", file.Size())
}

// empty copies the log into the database and truncates it, and reports whether that was possible. Somebody who reads
// for long is not waited for.
func (w *writer) empty(ctx context.Context, isHeld bool) bool {
	ctx = context.WithoutCancel(ctx)
	if isHeld {
		w.slot.conn.checkpoint(ctx, "PASSIVE") // what can be copied
		return false
	}
	for since := time.Now(); !w.slot.conn.checkpoint(ctx, "TRUNCATE"); time.Sleep(time.Millisecond) {
		if time.Since(since) > walPause {
			return false
		}
	}
	return true
}

// checkpoint reports whether all of the log is in the database, https://sqlite.org/pragma.html#pragma_wal_checkpoint.
func (c *conn) checkpoint(ctx context.Context, mode string) bool {
	s, err := c.own("PRAGMA wal_checkpoint(" + mode + ")")
	if err != nil {
		return false
	}
	rows, err := s.QueryContext(ctx, nil)
	if err != nil {
		return false
	}
	defer func() { _ = rows.Close() }()
	said := make([]driver.Value, 3) // whether it had to give up, frames in the log, frames that are in the database
	if err := rows.Next(said); err != nil && !errors.Is(err, io.EOF) {
		return false
	}
	return said[0] == int64(0) && said[1] == said[2]
}

// oldestReader returns who has been reading for longest, or nil.
func (e *Engine) oldestReader() (oldest *engine.Info) {
	for _, s := range e.reading {
		if info := s.holder.Load(); info != nil && (oldest == nil || info.Began.Before(oldest.Began)) {
			oldest = info
		}
	}
	return oldest
}

package sqlite

import (
	"context"
	"time"
)

// Another process that waits for SQLite's lock asks for it now and then, https://sqlite.org/c3ref/busy_timeout.html, up
// to a tenth of a second apart, and gets it if it happens to be free. Sessions that follow each other without a pause
// would hardly ever let it be.

const (
	othersInterval = 5 * time.Millisecond // of writing, between two pauses
	othersPause    = 2 * time.Millisecond
	othersMemory   = time.Second // how long one who has written is expected to write again
)

// others is what the writer knows of other processes that write.
type others struct {
	version string    // changes with what they commit
	looked  time.Time // at the version
	until   time.Time // they are expected to write
}

// makeRoom leaves the lock free for a while when other processes write, between two transactions.
func (w *writer) makeRoom(ctx context.Context, now time.Time) {
	if w.wal.path == "" || now.Sub(w.others.looked) < othersInterval {
		return
	}
	version, err := w.slot.conn.ask(ctx, "PRAGMA data_version") // https://sqlite.org/pragma.html#pragma_data_version
	if err != nil {
		return
	}
	if w.others.version != "" && version != w.others.version {
		w.others.until = now.Add(othersMemory)
	}
	w.others.version = version
	if now.Before(w.others.until) {
		time.Sleep(othersPause)
	}
	w.others.looked = time.Now()
}

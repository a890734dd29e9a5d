// Package disk stands between SQLite and the files in a folder, for tests of
// what goes wrong there: writes and syncs that fail, writes of which a part
// arrives, a disk that is full.
package disk

import (
	"path/filepath"
	"sync"
	"testing"

	sqlite3 "modernc.org/sqlite/lib"
)

// Op is what SQLite asks of a file.
type Op uint8

// The operations.
const (
	Read Op = iota
	Write
	Sync
	Truncate
	ops int = iota
)

// String is the operation's name.
func (o Op) String() string { return [...]string{"read", "write", "sync", "truncate"}[o] }

// Code is SQLite's result of an operation.
type Code int32

// The results.
const (
	OK          Code = sqlite3.SQLITE_OK
	Full        Code = sqlite3.SQLITE_FULL
	BadRead     Code = sqlite3.SQLITE_IOERR_READ
	BadWrite    Code = sqlite3.SQLITE_IOERR_WRITE
	BadSync     Code = sqlite3.SQLITE_IOERR_FSYNC
	BadTruncate Code = sqlite3.SQLITE_IOERR_TRUNCATE
)

// Fault is what goes wrong.
type Fault struct {
	Op      Op
	Code    Code // OK is a lie: the operation is not carried out
	At      int  // which operation, counted from 1 and from [Disk.Break]
	Lasting bool // so do those after it, until [Disk.Heal]
	Arrives Part // of a write
}

// Part is how much of a write arrives that fails.
type Part uint8

// The parts.
const (
	Nothing Part = iota
	Half
	All
)

// of is the part of n bytes.
func (p Part) of(n int32) int32 { return n * int32(p) / int32(All) }

// Disk is a folder whose files SQLite reads and writes through it.
type Disk struct {
	mu     sync.Mutex
	fault  *Fault
	counts [ops]int
	hits   int
	limit  int64 // of a file's size; zero is none
	lazy   bool
}

// New puts a disk under the databases of this process that are opened in the
// folder, until the test has ended.
func New(tb testing.TB, folder string) *Disk {
	tb.Helper()
	folder, err := filepath.Abs(folder)
	if err != nil {
		tb.Fatal(err)
	}
	d := new(Disk)
	mount(folder, d)
	tb.Cleanup(func() { unmount(folder) })
	return d
}

// Relax makes syncs do nothing and succeed. A process sees what was written
// without them; it is a power cut that does not forgive it.
func (d *Disk) Relax() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lazy = true
}

// Break counts operations from zero, and has f happen.
func (d *Disk) Break(f Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault, d.counts, d.hits = &f, [ops]int{}, 0
}

// Limit makes the disk full for what lies beyond a size, in every file.
func (d *Disk) Limit(size int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.limit, d.hits = size, 0
}

// Heal ends what [Disk.Break] and [Disk.Limit] began.
func (d *Disk) Heal() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault, d.limit = nil, 0
}

// Count is how many operations there were since [Disk.Break].
func (d *Disk) Count(op Op) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.counts[op]
}

// Hits is how many operations went wrong since [Disk.Break] or [Disk.Limit].
func (d *Disk) Hits() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.hits
}

// verdict is what becomes of an operation.
type verdict struct {
	instead bool // of being carried out
	code    Code
	arrives int32 // how much of a write
}

// judge counts an operation, and says what becomes of it.
func (d *Disk) judge(op Op, size int32, offset int64) verdict {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.counts[op]++
	var v verdict
	switch {
	case d.fault != nil && d.fault.hits(op, d.counts[op]):
		v = verdict{true, d.fault.Code, d.fault.Arrives.of(size)}
	case d.limit > 0 && op == Write && offset+int64(size) > d.limit:
		v = verdict{true, Full, int32(max(0, d.limit-offset))}
	case d.lazy && op == Sync:
		return verdict{instead: true, code: OK}
	}
	if v.instead {
		d.hits++
	}
	return v
}

// hits reports whether the n-th operation goes wrong.
func (f *Fault) hits(op Op, n int) bool {
	return op == f.Op && (n == f.At || f.Lasting && n > f.At)
}

package faults

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/faults/disk"
	"github.com/tholedb/thole/internal/faults/history"
)

const (
	diskWorkers  = 8
	diskSessions = 5 // of each worker
	diskFor      = 20 * time.Second
)

// kinds are the faults that happen once and lastingly, at each operation.
var kinds = []disk.Fault{
	{Op: disk.Write, Code: disk.BadWrite},
	{Op: disk.Write, Code: disk.BadWrite, Arrives: disk.Half},
	{Op: disk.Write, Code: disk.BadWrite, Arrives: disk.All},
	{Op: disk.Write, Code: disk.Full},
	{Op: disk.Write, Code: disk.Full, Arrives: disk.Half},
	{Op: disk.Sync, Code: disk.BadSync},
	{Op: disk.Truncate, Code: disk.BadTruncate},
	{Op: disk.Read, Code: disk.BadRead},
}

// faulty is a load on a disk that fails.
type faulty struct {
	t      *testing.T
	disk   *disk.Disk
	folder string
	copies string // a folder on another disk
	random *rand.Rand
	early  bool

	rounds, hits, committed, failed int
	ghosts                          int // came back when the process was killed
}

func newFaulty(t *testing.T) *faulty {
	t.Helper()
	f := &faulty{t: t, folder: t.TempDir(), copies: t.TempDir(), random: newRandom(t)}
	f.disk = disk.New(t, f.folder)
	f.disk.Relax() // nothing here looks at a disk without its cache
	disk.New(t, f.copies).Relax()
	return f
}

// A disk fails at any operation, in any way, once or from then on.
func TestDiskFaults(t *testing.T) {
	t.Parallel()
	f := newFaulty(t)
	until, points := patience(diskFor), f.points()
	for i := 0; time.Now().Before(until) && !t.Failed(); i++ {
		if i > 0 && i%len(points) == 0 {
			f.shuffle(points)
		}
		f.round(i, points[i%len(points)])
	}
	t.Logf("%d rounds at %d points, %d faults, %d sessions committed, %d failed, of which %d would come back after a kill",
		f.rounds, len(points), f.hits, f.committed, f.failed, f.ghosts)
}

// A disk fails while the database is made: there is none, or it works.
func TestDiskFaultsAtOpen(t *testing.T) {
	t.Parallel()
	f := newFaulty(t)
	for i, fault := range kinds {
		for fault.At, fault.Lasting = 1, true; f.openRound(i, fault); fault.At++ {
			f.rounds++
		}
	}
	t.Logf("%d rounds", f.rounds)
}

// openRound reports whether anything went wrong.
func (f *faulty) openRound(kind int, fault disk.Fault) bool {
	path := filepath.Join(f.folder, fmt.Sprintf("%d-%d.db", kind, fault.At))
	defer remove(f.t, path)
	f.disk.Break(fault)
	db, err := Open(f.t.Context(), path)
	if err == nil {
		err = errors.Join(Create(f.t.Context(), db), db.Close())
	}
	hits := f.disk.Hits()
	if err != nil && hits == 0 {
		f.t.Errorf("%+v: without a fault: %v", fault, err)
	}
	f.disk.Heal()
	db = open(f.t, path)
	f.wantServing(fmt.Sprintf("%+v", fault), db, newRecord())
	if err := db.Close(); err != nil {
		f.t.Errorf("%+v: close: %v", fault, err)
	}
	return hits > 0
}

// points are all the faults, in disorder: up to somewhat more operations than a
// load needs, as it doesn't always need the same.
func (f *faulty) points() []disk.Fault {
	f.round(-1, disk.Fault{})
	var points []disk.Fault
	for _, kind := range kinds {
		most := f.disk.Count(kind.Op)
		for at := range most + most/10 + 1 {
			kind.At = at + 1
			for _, kind.Lasting = range []bool{false, true} {
				points = append(points, kind)
			}
		}
	}
	f.shuffle(points)
	return points
}

func (f *faulty) shuffle(points []disk.Fault) {
	f.random.Shuffle(len(points), func(i, j int) { points[i], points[j] = points[j], points[i] })
}

// round runs a load on a disk with one fault.
func (f *faulty) round(i int, fault disk.Fault) {
	f.t.Helper()
	path := filepath.Join(f.folder, fmt.Sprintf("%d.db", i))
	defer remove(f.t, path)
	db := open(f.t, path)
	f.disk.Break(fault)
	told := f.load(db)
	when := fmt.Sprintf("%+v", fault)
	f.checkTold(when, fault, told)
	f.checkKilled(when, path, told)
	if f.random.IntN(3) == 0 { // the program ends before the fault does
		_ = db.Close() // can't write the log back
		f.disk.Heal()
		db, told = open(f.t, path), told.doubting()
	}
	f.disk.Heal()
	wantSound(f.t, when+", open", told.anomalies(f.t.Context(), path, false))
	f.wantServing(when, db, told)
	if err := db.Close(); err != nil {
		f.t.Errorf("%s: close: %v", when, err)
	}
	wantSound(f.t, when+", closed", told.anomalies(f.t.Context(), path, false))
}

// checkTold looks at what sessions were told, without a look at what is there.
func (f *faulty) checkTold(when string, fault disk.Fault, told *record) {
	f.t.Helper()
	hits := f.disk.Hits()
	f.hits += hits
	if len(told.strange) > 0 && hits == 0 {
		f.t.Errorf("%s: without a fault: %v", when, told.strange[0])
	}
	wantCertain(f.t, told)
	if unknown := told.count(thole.Unknown); !fault.Lasting && unknown > 0 {
		f.t.Errorf("%s: %d outcomes are unknown, though the disk failed once", when, unknown)
	}
}

func (f *faulty) load(db *thole.DB) *record {
	told := newRecord()
	f.loadAs(db, "w", told)
	f.rounds++
	f.committed += told.count(thole.Committed)
	f.failed += told.count(thole.RolledBack)
	return told
}

// loadAs runs a load whose sessions have names of their own.
func (f *faulty) loadAs(db *thole.DB, name string, told *record) {
	load := &Load{DB: db, Name: name, Seed: f.random.Uint64(), Told: told.told, Early: f.early}
	load.Run(f.t.Context(), diskWorkers, diskSessions)
}

// wantServing runs a session that reads and one that writes.
func (f *faulty) wantServing(when string, db *thole.DB, told *record) {
	f.t.Helper()
	after := &running{load: &Load{DB: db, Told: told.told}, lists: []int{0}, seen: history.Session{ID: "after"}}
	before := &running{load: after.load, seen: history.Session{ID: "before"}}
	for _, r := range []*running{before, after} {
		err := r.run(f.t.Context())
		r.load.tell(&r.seen, err)
		if err != nil {
			f.t.Errorf("%s: a session when the disk is healed: %v", when, err)
		}
	}
}

// checkKilled looks at the database as a process leaves it that is killed now.
// What a failed COMMIT has written of its session is in the log until something
// is written over it, and if it is whole SQLite takes it for committed when it
// recovers the log.
func (f *faulty) checkKilled(when, path string, told *record) {
	f.t.Helper()
	copied := filepath.Join(f.copies, filepath.Base(path))
	defer remove(f.t, copied)
	copyDatabase(f.t, path, copied)
	doubtful := told.doubting()
	wantSound(f.t, when+", killed", doubtful.anomalies(f.t.Context(), copied, false))
	f.ghosts += beginning("false failure: ", told.anomalies(f.t.Context(), copied, false))
}

// copyDatabase copies a database with its log, if it has one. That its files are closed here
// ends the locks of this process on them, which is nothing to a process that is
// alone with them.
func copyDatabase(t *testing.T, from, to string) {
	t.Helper()
	for _, suffix := range []string{"", "-wal"} {
		content, err := os.ReadFile(from + suffix)
		if errors.Is(err, fs.ErrNotExist) && suffix != "" {
			continue // the last connection has closed
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to+suffix, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

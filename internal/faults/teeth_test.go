package faults

import (
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/tholedb/thole/internal/faults/disk"
)

// Sessions that are told before their COMMIT that they have committed: a kill
// shows it.
func TestKillHasTeeth(t *testing.T) {
	t.Parallel()
	random, folder := newRandom(t), t.TempDir()
	for file := range toothRounds {
		path := filepath.Join(folder, strconv.Itoa(file)+".db")
		p := live(t, random, orders{Path: path, Name: "w", Seed: random.Uint64(), Early: true})
		if found := p.told.anomalies(t.Context(), path, true); beginning("lost: ", found) > 0 {
			t.Logf("found in round %d: %s", file+1, found[0])
			return
		}
	}
	t.Errorf("nothing was found in %d rounds", toothRounds)
}

// So does a disk that fails.
func TestDiskHasTeeth(t *testing.T) {
	t.Parallel()
	f := newFaulty(t)
	f.early = true
	path := filepath.Join(f.folder, "test.db")
	db := open(t, path)
	f.disk.Break(disk.Fault{Op: disk.Sync, At: 5, Code: disk.BadSync, Lasting: true})
	told := f.load(db)
	f.disk.Heal()
	if found := told.anomalies(t.Context(), path, false); beginning("lost: ", found) == 0 {
		t.Errorf("sessions that were told too early: got %q, want some that are lost", found)
	}
}

// A disk that forgets what it was given is no fault of the library's, and is
// found all the same: by one write in many, as others are written over.
func TestLyingDiskHasTeeth(t *testing.T) {
	t.Parallel()
	f := newFaulty(t)
	for round := range toothRounds {
		path := filepath.Join(f.folder, strconv.Itoa(round)+".db")
		db := open(t, path)
		f.disk.Break(disk.Fault{Op: disk.Write, At: 1 + f.random.IntN(50), Code: disk.OK})
		told := f.load(db)
		f.disk.Heal()
		_ = db.Close() // may fail, on what is there
		if found := told.anomalies(t.Context(), path, false); len(found) > 0 {
			t.Logf("found in round %d: %s", round+1, found[0])
			return
		}
	}
	t.Errorf("nothing was found in %d rounds", toothRounds)
}

// beginning is how many of the texts begin so.
func beginning(prefix string, texts []string) int {
	n := 0
	for _, text := range texts {
		if strings.HasPrefix(text, prefix) {
			n++
		}
	}
	return n
}

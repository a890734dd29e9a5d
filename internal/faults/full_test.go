package faults

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/tholedb/thole"
)

const (
	fullRounds = 3
	fullLoads  = 100      // until the disk is full, at most
	fullRoom   = 64 << 10 // in each file, from the size that it has
)

// A disk gets full, and gets room again, several times.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	f := newFaulty(t)
	path := filepath.Join(f.folder, "test.db")
	db := open(t, path)
	told := newRecord()
	for round := range fullRounds {
		f.fill(db, path, strconv.Itoa(round), told)
		wantSound(t, "full", told.anomalies(t.Context(), path, false))
		f.disk.Heal()
		strange := len(told.strange)
		f.loadAs(db, strconv.Itoa(round)+"r", told)
		if len(told.strange) > strange {
			t.Errorf("with room again: %v", told.strange[strange])
		}
		wantSound(t, "with room again", told.anomalies(t.Context(), path, false))
	}
	if err := db.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	wantSound(t, "closed", told.anomalies(t.Context(), path, false))
	wantCertain(t, told)
	t.Logf("%d sessions committed, %d failed, %d of them for want of room",
		told.count(thole.Committed), told.count(thole.RolledBack), len(told.full))
}

// fill runs loads until the disk is full and sessions have failed of it.
func (f *faulty) fill(db *thole.DB, path, name string, told *record) {
	f.t.Helper()
	file, err := os.Stat(path)
	if err != nil {
		f.t.Fatal(err)
	}
	f.disk.Limit(file.Size() + fullRoom)
	before := len(told.full)
	for load := range fullLoads {
		f.loadAs(db, name+"f"+strconv.Itoa(load)+"w", told)
		if len(told.full) > before+diskWorkers {
			return
		}
	}
	f.t.Errorf("no session has failed on a full disk, in %d loads", fullLoads)
}

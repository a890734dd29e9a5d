package disk_test

import (
	"database/sql"
	"errors"
	"path/filepath"
	"testing"

	"modernc.org/sqlite"

	"github.com/tholedb/thole/internal/faults/disk"
)

func TestDisk(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		fault disk.Fault
		want  disk.Code
	}{
		{"write", disk.Fault{Op: disk.Write, At: 1, Code: disk.BadWrite}, disk.BadWrite},
		{"half a write", disk.Fault{Op: disk.Write, At: 2, Code: disk.Full, Arrives: disk.Half}, disk.Full},
		{"sync", disk.Fault{Op: disk.Sync, At: 1, Code: disk.BadSync}, disk.BadSync},
		{"lasting", disk.Fault{Op: disk.Write, At: 1, Code: disk.BadWrite, Lasting: true}, disk.BadWrite},
		{"later", disk.Fault{Op: disk.Write, At: 1000, Code: disk.BadWrite}, disk.OK},
		{"lie", disk.Fault{Op: disk.Sync, At: 1}, disk.OK},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			d, conn := open(t)
			d.Break(tc.fault)
			if got := insert(t, conn); got != tc.want {
				t.Errorf("INSERT: got code %d, want %d", got, tc.want)
			}
			if wrong := tc.fault.At < 1000; (d.Hits() > 0) != wrong {
				t.Errorf("Hits: got %d, want any: %t", d.Hits(), wrong)
			}
			d.Heal()
			if got := insert(t, conn); got != disk.OK {
				t.Errorf("INSERT when the disk is healed: got code %d", got)
			}
		})
	}
}

func TestDiskLimit(t *testing.T) {
	t.Parallel()
	d, conn := open(t)
	d.Limit(1)
	if got := insert(t, conn); got != disk.Full {
		t.Errorf("INSERT on a full disk: got code %d, want %d", got, disk.Full)
	}
	d.Heal()
	if got := insert(t, conn); got != disk.OK {
		t.Errorf("INSERT when there is room again: got code %d", got)
	}
}

// Other folders are none of the disk's business.
func TestDiskElsewhere(t *testing.T) {
	t.Parallel()
	d, _ := open(t)
	d.Break(disk.Fault{Op: disk.Write, At: 1, Code: disk.BadWrite, Lasting: true})
	_, other := open(t)
	if got := insert(t, other); got != disk.OK || d.Count(disk.Write) > 0 {
		t.Errorf("INSERT elsewhere: got code %d and %d writes, want neither", got, d.Count(disk.Write))
	}
}

func open(t *testing.T) (*disk.Disk, *sql.Conn) {
	t.Helper()
	folder := t.TempDir()
	d := disk.New(t, folder)
	db, err := sql.Open("sqlite", filepath.Join(folder, "test.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := conn.ExecContext(t.Context(), "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE t (n)"); err != nil {
		t.Fatal(err)
	}
	return d, conn
}

// insert returns the code that SQLite failed with.
func insert(t *testing.T, conn *sql.Conn) disk.Code {
	t.Helper()
	_, err := conn.ExecContext(t.Context(), "INSERT INTO t VALUES (1)")
	var failed *sqlite.Error
	if err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	if failed == nil {
		return disk.OK
	}
	return disk.Code(failed.Code())
}

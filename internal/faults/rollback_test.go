package faults

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/faults/disk"
)

// A COMMIT whose sync fails leaves the whole session in the log, where the next
// connection would find it: of the same DB, when the one that failed was its only
// one. A session that was told that it is rolled back has been written over; when
// that fails too it is told that nobody knows.
func TestRolledBackStaysSo(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		lasting bool
		want    thole.Outcome
	}{
		"once":   {false, thole.RolledBack},
		"always": {true, thole.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFaulty(t)
			db := open(t, filepath.Join(f.folder, "test.db"))
			f.disk.Break(disk.Fault{Op: disk.Sync, At: 1, Code: disk.BadSync, Lasting: test.lasting})
			err := db.WithSession(t.Context(), func(tx *thole.Tx) error {
				_, err := tx.ExecContext(tx.Context(), "UPDATE lists SET tokens = 'written'")
				return err
			})
			if err == nil || thole.OutcomeOf(err) != test.want {
				t.Errorf("got %v (%v), want an error and %v", err, thole.OutcomeOf(err), test.want)
			}
			f.disk.Heal()
			var tokens []string
			if err := db.SelectContext(t.Context(), &tokens, "SELECT tokens FROM lists"); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(tokens, ""); got != "" && test.want == thole.RolledBack {
				t.Errorf("a session that was rolled back has written %q", got)
			}
		})
	}
}

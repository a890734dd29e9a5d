package theatre

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/testing/dbtest"
)

// Sessions run side by side in a Database, and in a sandbox one after the other.
// The first is slow between its SELECT and its INSERT, so that the others pass it.
func TestReserveAtOnce(t *testing.T) {
	t.Parallel()
	testdb.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		office, _ := open(db)
		dbtest.Faults(t, db).At("INSERT INTO").SlowQuery(100 * time.Millisecond)
		seats := []string{"A1", "A2", "A3", "A4"}
		errs := make([]error, len(seats))
		var all sync.WaitGroup
		for i, seat := range seats {
			all.Go(func() { errs[i] = office.Reserve(t.Context(), Booking{"Hamlet", seat, "Ann"}) })
		}
		all.Wait()
		refused := 0
		for _, err := range errs {
			switch {
			case errors.Is(err, ErrEnough):
				refused++
			case err != nil:
				t.Error(err)
			}
		}
		if refused != 2 {
			t.Errorf("got %d of 4 refused, want 2", refused)
		}
	})
}

// A single database is on the engine of DBTEST_URL, or on SQLite.
func TestProgrammeInDatabase(t *testing.T) {
	t.Parallel()
	db := testdb.Database(t)
	office, _ := open(db)
	if err := Book(t.Context(), db, Booking{"Hamlet", "A1", "Ann"}); err != nil {
		t.Fatal(err)
	}
	got, err := office.Programme(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Free{{"Hamlet", 99}, {"Macbeth", 80}}, got); diff != "" {
		t.Errorf("programme (-want +got):\n%s", diff)
	}
}

package theatre

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/testing/dbtest"
)

func TestReserveTriesAgain(t *testing.T) {
	t.Parallel()
	testdb.Each(t, func(t *testing.T, db *thole.DB) {
		office, _ := open(db)
		dbtest.Faults(t, db).SerializationFailures(2)
		dbtest.Sessions(t, db, func() {
			if err := office.Reserve(t.Context(), Booking{"Hamlet", "J1", "Ann"}); err != nil {
				t.Error(err)
			}
		}).Attempts(3)
		wantBooked(t, db, "J1")
	})
}

// The seats are sold, but the answer to COMMIT is lost. The key of the request
// tells what became of it.
func TestSellLosesReply(t *testing.T) {
	t.Parallel()
	testdb.Each(t, func(t *testing.T, db *thole.DB) {
		office, events := open(db)
		dbtest.Faults(t, db).LoseCommitReply()
		if err := office.Sell(t.Context(), "loses reply", Booking{"Hamlet", "K1", "Ann"}); err != nil {
			t.Fatal(err)
		}
		wantBooked(t, db, "K1")
		if diff := cmp.Diff([]string{"sold K1"}, *events); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
}

// Book has no key, so that its caller can't know.
func TestBookLosesReply(t *testing.T) {
	t.Parallel()
	testdb.Each(t, func(t *testing.T, db *thole.DB) {
		dbtest.Faults(t, db).LoseCommitReply()
		err := Book(t.Context(), db, Booking{"Hamlet", "L1", "Ann"})
		if !errors.Is(err, thole.ErrCommitUnknown) {
			t.Errorf("got %v, want ErrCommitUnknown", err)
		}
		wantBooked(t, db, "L1")
	})
}

func TestSellOnFullDisk(t *testing.T) {
	t.Parallel()
	testdb.Each(t, func(t *testing.T, db *thole.DB) {
		office, events := open(db)
		dbtest.Faults(t, db).At(`INSERT INTO "bookings"`).Nth(2).DiskFull()
		err := office.Sell(t.Context(), "full disk", Booking{"Hamlet", "M1", "Ann"}, Booking{"Hamlet", "M2", "Ann"})
		if err == nil {
			t.Error("got no error")
		}
		wantBooked(t, db)
		if len(*events) > 0 {
			t.Errorf("got events %q, want none", *events)
		}
	})
}

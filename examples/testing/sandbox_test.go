package theatre

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/testing/dbtest"
)

// Sell opens a session of its own, which commits and runs its hooks.
func TestSellPublishes(t *testing.T) {
	t.Parallel()
	office, events := open(testdb.Sandbox(t))
	err := office.Sell(t.Context(), "publishes", Booking{"Hamlet", "D1", "Ann"}, Booking{"Hamlet", "D2", "Ann"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"sold D1", "sold D2"}, *events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestSellAllOrNone(t *testing.T) {
	t.Parallel()
	testdb.Each(t, func(t *testing.T, db *thole.DB) {
		office, events := open(db)
		err := office.Sell(t.Context(), "all or none", Booking{"Hamlet", "E1", "Ann"}, Booking{"Hamlet", "E1", "Bob"})
		if !errors.Is(err, ErrTaken) {
			t.Errorf("got %v, want ErrTaken", err)
		}
		wantBooked(t, db)
		if len(*events) > 0 {
			t.Errorf("got events %q, want none", *events)
		}
	})
}

func TestSellOnce(t *testing.T) {
	t.Parallel()
	testdb.Each(t, func(t *testing.T, db *thole.DB) {
		office, _ := open(db)
		for range 2 {
			if err := office.Sell(t.Context(), "once", Booking{"Hamlet", "F1", "Ann"}); err != nil {
				t.Fatal(err)
			}
		}
		wantBooked(t, db, "F1")
		if hooks := dbtest.Hooks(t, db); len(hooks) != 1 || hooks[0].Session != "sell" {
			t.Errorf("got the commit hooks %v, want one of sell", hooks)
		}
	})
}

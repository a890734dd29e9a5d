package theatre

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tholedb/thole"
)

// With Rerun each session runs twice. An event that is published in fn, rather
// than by OnCommit, would be there twice.
func TestSellRunsAgain(t *testing.T) {
	t.Parallel()
	config := testdb
	config.Rerun = true
	config.Each(t, func(t *testing.T, db *thole.DB) {
		office, events := open(db)
		if err := office.Sell(t.Context(), "runs again", Booking{"Hamlet", "N1", "Ann"}); err != nil {
			t.Fatal(err)
		}
		wantBooked(t, db, "N1")
		if diff := cmp.Diff([]string{"sold N1"}, *events); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
}

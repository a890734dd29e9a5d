package theatre

import (
	"testing"

	"github.com/tholedb/thole/testing/dbtest"
)

// Book takes a Querier, so that a transaction is enough.
func TestBookInSession(t *testing.T) {
	t.Parallel()
	tx := testdb.Session(t)
	if err := Book(t.Context(), tx, Booking{"Hamlet", "B1", "Ann"}); err != nil {
		t.Fatal(err)
	}
	wantBooked(t, tx, "B1")
}

// Each subtest begins with what stands before it, and undoes what it adds.
//
//nolint:paralleltest,tparallel // the subtests share tx
func TestBookBeside(t *testing.T) {
	t.Parallel()
	tx := testdb.Session(t)
	if err := Book(t.Context(), tx, Booking{"Hamlet", "C1", "Ann"}); err != nil {
		t.Fatal(err)
	}
	for _, seat := range []string{"C2", "C3"} {
		t.Run(seat, func(t *testing.T) {
			tx := dbtest.Sub(t, tx)
			if err := Book(t.Context(), tx, Booking{"Hamlet", seat, "Ann"}); err != nil {
				t.Fatal(err)
			}
			wantBooked(t, tx, "C1", seat)
		})
	}
	wantBooked(t, tx, "C1")
}

package theatre

import (
	"context"
	"errors"
	"testing"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/testing/dbtest"
)

var testdb = dbtest.Config{Migrations: Migrations, Fixtures: shows}

// shows is what each test finds in its database.
func shows(ctx context.Context, db *thole.DB) error {
	_, err := db.ExecContext(ctx, "INSERT INTO shows (title, seats) VALUES ('Hamlet', 100), ('Macbeth', 80)")
	return err
}

func TestBook(t *testing.T) {
	t.Parallel()
	testdb.Each(t, func(t *testing.T, db *thole.DB) { // subtests sqlite and postgres
		if err := Book(t.Context(), db, Booking{"Hamlet", "A1", "Ann"}); err != nil {
			t.Fatal(err)
		}
		if err := Book(t.Context(), db, Booking{"Hamlet", "A1", "Bob"}); !errors.Is(err, ErrTaken) {
			t.Errorf("book it again: got %v, want ErrTaken", err)
		}
		guest, err := thole.One[string](t.Context(), db, "SELECT guest FROM bookings WHERE seat = ?", "A1")
		if err != nil || guest != "Ann" {
			t.Errorf("guest in A1: got %q, %v, want Ann", guest, err)
		}
	})
}

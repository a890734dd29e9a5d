// Package theatre books seats.
package theatre

import (
	"context"
	"embed"
	"errors"
	"fmt"

	"github.com/tholedb/thole"
)

// Migrations are for the Migrate method of a DB.
//
//go:embed *.sql
var Migrations embed.FS

// ErrTaken says that somebody else has the seat.
var ErrTaken = errors.New("the seat is taken")

// Booking is a row of the table bookings.
type Booking struct {
	Title string // of the show
	Seat  string
	Guest string
}

// Book gives a guest a seat. Given a DB it is a session of its own, given a Tx a
// session nested in that.
func Book(ctx context.Context, q thole.Querier, b Booking) error {
	err := q.WithSession(ctx, func(tx *thole.Tx) error {
		_, err := thole.Insert(ctx, tx, b)
		return err
	})
	if errors.Is(err, thole.ErrUnique) {
		return fmt.Errorf("book %s: %w", b.Seat, ErrTaken)
	}
	return err
}

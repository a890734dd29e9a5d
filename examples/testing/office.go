package theatre

import (
	"context"
	"database/sql"
	"errors"

	"github.com/tholedb/thole"
)

// Office sells seats.
type Office struct {
	DB      *thole.DB
	Publish func(ctx context.Context, event string) // tells others what has happened
}

// Sell books seats, all or none, and publishes that when it is committed. The
// request is the client's: sent again it has no further effect.
func (o *Office) Sell(ctx context.Context, request string, bookings ...Booking) error {
	opts := thole.SessionOptions{Label: "sell", IdempotencyKey: request}
	err := o.DB.WithSessionOptions(ctx, opts, func(tx *thole.Tx) error {
		for _, b := range bookings {
			if err := Book(ctx, tx, b); err != nil {
				return err
			}
			tx.OnCommit(func(ctx context.Context) { o.Publish(ctx, "sold "+b.Seat) })
		}
		return nil
	})
	if errors.Is(err, thole.ErrAlreadyCommitted) {
		return nil
	}
	return err
}

// ErrEnough says that a guest has as many seats as one may reserve.
var ErrEnough = errors.New("a guest may reserve two seats")

// Reserve books a seat for a guest who has less than two of the show. That rule is
// about several rows, and no constraint holds it: two sessions could each see one
// seat. So it is serializable, and runs again where PostgreSQL finds a conflict.
func (o *Office) Reserve(ctx context.Context, b Booking) error {
	opts := thole.SessionOptions{Label: "reserve", Isolation: sql.LevelSerializable, MaxAttempts: 10}
	return o.DB.WithSessionOptions(ctx, opts, func(tx *thole.Tx) error {
		has, err := thole.One[int](ctx, tx,
			"SELECT count(*) FROM bookings WHERE title = :title AND guest = :guest", b)
		if err != nil {
			return err
		}
		if has >= 2 {
			return ErrEnough
		}
		return Book(ctx, tx, b)
	})
}

// Free is how many seats of a show are free.
type Free struct {
	Title string
	Seats int
}

// Programme lists the shows by their titles. It is one statement however many they
// are.
func (o *Office) Programme(ctx context.Context) ([]Free, error) {
	opts := thole.SessionOptions{Label: "programme", ReadOnly: true}
	return thole.WithSessionOptions(ctx, o.DB, opts, func(tx *thole.Tx) ([]Free, error) {
		return thole.All[Free](ctx, tx, `
			SELECT title, seats - (SELECT count(*) FROM bookings b WHERE b.title = s.title) AS seats
			FROM shows s ORDER BY title`)
	})
}

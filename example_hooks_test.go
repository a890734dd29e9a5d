package thole_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/tholedb/thole"
)

// What must not happen unless the session is committed waits for that.
func ExampleTx_OnCommit() {
	ctx := context.Background()
	db, err := thole.Open(ctx, "sqlite://")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	order := func(name string, paid bool) error {
		return db.WithSession(ctx, func(tx *thole.Tx) error {
			tx.OnCommit(func(context.Context) { fmt.Println("send the", name) })
			tx.OnRollback(func(_ context.Context, cause error) { fmt.Printf("keep the %s: %v\n", name, cause) })
			if !paid {
				return errors.New("not paid")
			}
			fmt.Println("write the bill")
			return nil
		})
	}
	fmt.Println(order("Tower Shield", true))
	fmt.Println(order("Oak Buckler", false))
	// Output:
	// write the bill
	// send the Tower Shield
	// <nil>
	// keep the Oak Buckler: not paid
	// not paid
}

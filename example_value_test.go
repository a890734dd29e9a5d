package thole_test

import (
	"context"
	"fmt"
	"log"

	"github.com/tholedb/thole"
)

// A session can make a value. It is returned when the session has committed.
func ExampleWithSession() {
	ctx := context.Background()
	db, err := thole.Open(ctx, "sqlite://")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	stock, err := thole.WithSession(ctx, db, func(tx *thole.Tx) (stock int, err error) {
		_, err = tx.ExecContext(ctx, "CREATE TABLE armoury (material text PRIMARY KEY, stock integer)")
		if err != nil {
			return 0, err
		}
		err = tx.GetContext(ctx, &stock, "INSERT INTO armoury VALUES (?, ?) RETURNING stock", "iron", 7)
		return stock, err
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(stock)
	// Output: 7
}

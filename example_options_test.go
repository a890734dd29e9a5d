package thole_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/migrations"
)

// The engine itself refuses to write in a read-only session.
func ExampleDB_WithSessionOptions() {
	ctx := context.Background()
	db, err := thole.Open(ctx, "sqlite://")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	if err := db.Migrate(ctx, migrations.FS); err != nil {
		log.Fatal(err)
	}

	report := thole.SessionOptions{ReadOnly: true, Timeout: time.Minute, Label: "report"}
	err = db.WithSessionOptions(ctx, report, func(tx *thole.Tx) error {
		_, err := tx.ExecContext(ctx, "DELETE FROM armoury")
		return err
	})
	fmt.Println(errors.Is(err, thole.ErrReadOnly))
	// Output: true
}

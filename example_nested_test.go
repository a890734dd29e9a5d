package thole_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/migrations"
)

// A session inside a session is a savepoint: what fails is undone, and the one
// outside goes on.
func ExampleTx_WithSession() {
	ctx := context.Background()
	db, err := thole.Open(ctx, "sqlite://")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	if err := db.Migrate(ctx, migrations.FS); err != nil {
		log.Fatal(err)
	}

	err = db.WithSession(ctx, func(tx *thole.Tx) error {
		for _, material := range []string{"iron", "oak", "iron"} {
			err := tx.WithSession(ctx, func(tx *thole.Tx) error {
				_, err := tx.ExecContext(ctx, "INSERT INTO armoury (material, stock) VALUES (?, 1)", material)
				return err
			})
			if errors.Is(err, thole.ErrUnique) {
				fmt.Println(material, "is there already")
			} else if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}

	var materials []string
	if err := db.SelectContext(ctx, &materials, "SELECT material FROM armoury ORDER BY material"); err != nil {
		log.Fatal(err)
	}
	fmt.Println(materials)
	// Output:
	// iron is there already
	// [iron oak]
}

package thole_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/migrations"
)

func Example() {
	ctx := context.Background()
	db, err := thole.Open(ctx, "sqlite://") // in memory; sqlite:///data/app.db is a file
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	if err := db.Migrate(ctx, migrations.FS); err != nil {
		log.Fatal(err)
	}

	forge := func(name, material string) error {
		return db.WithSession(ctx, func(tx *thole.Tx) error {
			_, err := tx.ExecContext(ctx, "INSERT INTO shields (name, defense_rating, material) VALUES (?, 60, ?)", name, material)
			if err != nil {
				return err
			}
			_, err = tx.ExecContext(ctx, "INSERT INTO armoury (material, stock) VALUES (?, 1)", material)
			return err
		})
	}
	fmt.Println("first:", forge("Tower Shield", "iron"))
	err = forge("Tower Shield", "bronze")
	fmt.Println("again:", thole.OutcomeOf(err), errors.Is(err, thole.ErrUnique))
	// Output:
	// first: <nil>
	// again: rolled back true
}

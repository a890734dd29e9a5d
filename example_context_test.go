package thole_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/migrations"
)

// Armoury holds a DB, as code does that knows nothing of its callers' sessions.
type Armoury struct{ db *thole.DB }

// Put joins the session that ctx carries, if there is one.
func (a Armoury) Put(ctx context.Context, material string) error {
	_, err := a.db.ExecContext(ctx, "INSERT INTO armoury (material, stock) VALUES (?, 1)", material)
	return err
}

// Code that holds a *DB and is given a session's ctx works inside that session:
// with the error, what it did is undone.
func ExampleTx_Context() {
	ctx := context.Background()
	db, err := thole.Open(ctx, "sqlite://")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	if err := db.Migrate(ctx, migrations.FS); err != nil {
		log.Fatal(err)
	}

	armoury := Armoury{db}
	err = db.WithSession(ctx, func(tx *thole.Tx) error {
		if err := armoury.Put(tx.Context(), "iron"); err != nil {
			return err
		}
		return errors.New("on second thoughts, no")
	})
	fmt.Println(err)

	var count int
	if err := db.GetContext(ctx, &count, "SELECT count(*) FROM armoury"); err != nil {
		log.Fatal(err)
	}
	fmt.Println(count, "materials")
	// Output:
	// on second thoughts, no
	// 0 materials
}

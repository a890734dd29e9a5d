package thole_test

import (
	"context"
	"log"
	"os"

	"github.com/jackc/pgx/v5"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/migrations"
)

// deliver adds what came to what there is, all of it or nothing. COPY takes a
// million rows as well.
func deliver(ctx context.Context, db *thole.DB, rows [][]any) error {
	return db.WithSession(ctx, func(tx *thole.Tx) error {
		if _, err := tx.ExecContext(ctx, "CREATE TEMPORARY TABLE delivered (LIKE armoury) ON COMMIT DROP"); err != nil {
			return err
		}
		columns := []string{"material", "stock"}
		if _, err := tx.Pgx().CopyFrom(ctx, pgx.Identifier{"delivered"}, columns, pgx.CopyFromRows(rows)); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO armoury SELECT * FROM delivered
			ON CONFLICT (material) DO UPDATE SET stock = armoury.stock + excluded.stock`)
		return err
	})
}

// What PostgreSQL has of its own, by pgx, beside the methods of the session. Code
// that sqlc generates for pgx/v5 takes tx.Pgx() too, as New(tx.Pgx()), and so does
// River's InsertTx.
func ExampleTx_Pgx() {
	ctx := context.Background()
	db, err := thole.Open(ctx, os.Getenv("DATABASE_URL")) // postgres://…
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	if err := db.Migrate(ctx, migrations.FS); err != nil {
		log.Fatal(err)
	}
	if err := deliver(ctx, db, [][]any{{"iron", 7}, {"oak", 12}}); err != nil {
		log.Print(err)
	}
}

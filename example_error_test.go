package thole_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/migrations"
)

// The sentinels say what kind of failure it is, [thole.Error] what is known of
// it.
func ExampleError() {
	ctx := context.Background()
	db, err := thole.Open(ctx, "sqlite://")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	if err := db.Migrate(ctx, migrations.FS); err != nil {
		log.Fatal(err)
	}

	_, err = db.ExecContext(ctx, "INSERT INTO armoury (material, stock) VALUES (?, ?)", "iron", -1)
	if failed, ok := errors.AsType[*thole.Error](err); ok && errors.Is(err, thole.ErrCheck) {
		fmt.Println(failed.Engine, failed.Code, failed.Constraint)
	}
	// Output: sqlite SQLITE_CONSTRAINT_CHECK armoury_stock_check
}

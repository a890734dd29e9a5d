package thole_test

import (
	"context"
	"fmt"
	"log"
	"testing/fstest"

	"github.com/tholedb/thole"
)

// The files are those of a folder, embedded as the package migrations of this
// module does it. Here they stand in the program.
func ExampleDB_Migrate() {
	ctx := context.Background()
	db, err := thole.Open(ctx, "sqlite://")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	files := fstest.MapFS{
		"1_smiths.up.sql":   {Data: []byte("CREATE TABLE smiths (name text PRIMARY KEY)")},
		"1_smiths.down.sql": {Data: []byte("DROP TABLE smiths")},
	}
	for range 2 { // the second time nothing is left to do
		if err := db.Migrate(ctx, files); err != nil {
			log.Fatal(err)
		}
	}
	var smiths []string
	fmt.Println(db.SelectContext(ctx, &smiths, "SELECT name FROM smiths"), len(smiths))
	// Output: <nil> 0
}

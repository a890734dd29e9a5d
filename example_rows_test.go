package thole_test

import (
	"context"
	"fmt"
	"log"

	"github.com/tholedb/thole"
)

// A Blade is a model: its table is blades.
type Blade struct {
	ID       int64 `schema:"primary key, generated"`
	Name     string
	Material string `schema:"default 'iron'"`
	Runes    thole.JSON[[]string]
}

// Rows go in and come out as structs, by the same SQL on both engines.
func Example_rows() {
	ctx := context.Background()
	db, err := thole.Open(ctx, "sqlite://")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(ctx, `CREATE TABLE blades (id integer PRIMARY KEY, name text, material text DEFAULT 'iron', runes text)`); err != nil {
		log.Fatal(err)
	}

	first, err := thole.Insert(ctx, db, Blade{Name: "Sting", Runes: thole.JSON[[]string]{V: []string{"glow"}}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(first.ID, first.Material)

	err = thole.InsertAll(ctx, db, []Blade{{Name: "Glamdring", Material: "mithril"}, {Name: "Orcrist", Material: "mithril"}})
	if err != nil {
		log.Fatal(err)
	}

	blades, err := thole.All[Blade](ctx, db, "SELECT * FROM blades WHERE name IN (?) ORDER BY name", []string{"Sting", "Orcrist"})
	if err != nil {
		log.Fatal(err)
	}
	for _, b := range blades {
		fmt.Println(b.Name, b.Runes.V)
	}

	others, err := thole.One[int](ctx, db, "SELECT count(*) FROM blades WHERE material <> :material", first)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(others)
	// Output:
	// 1 iron
	// Orcrist []
	// Sting [glow]
	// 2
}

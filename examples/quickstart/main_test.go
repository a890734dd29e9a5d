package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tholedb/thole/internal/testdb"
)

const want = `committed: forged 4 shields
rolled back: all sold, but the buyer has not paid, so there are still 4 shields
rolled back: there is a Dragon Scale Shield already
committed: of an order of 2 shields forged ["Kite Shield"], the other was there already
  Dragon Scale Shield  defense 95  dragon scale  fire ward
  Mirror of Dawn       defense 70  silver        blinding light
  Tower Shield         defense 60  iron          no enchantment
  Kite Shield          defense 55  iron          no enchantment
  Oak Buckler          defense 20  oak           no enchantment
`

func TestRun(t *testing.T) {
	t.Parallel()
	for engine, url := range map[string]func(testing.TB) string{
		"sqlite":   testdb.SQLite,
		"postgres": testdb.Postgres,
	} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			databaseURL := url(t)
			for range 2 {
				var out strings.Builder
				if err := run(t.Context(), &out, databaseURL); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff("opened and migrated: "+engine+"\n"+want, out.String()); diff != "" {
					t.Errorf("output (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func TestRunFails(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	if err := run(t.Context(), &out, "sqlite://data/app.db"); err == nil {
		t.Error("got no error for a URL with two slashes")
	}
}

package thole_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/testdb"
	"github.com/tholedb/thole/migrations"
)

// TestDeliver runs what ExampleTx_Pgx shows, which needs PostgreSQL: two
// deliveries, and one that is refused.
func TestDeliver(t *testing.T) {
	t.Parallel()
	db := onPostgres(t, testdb.Postgres(t), func(*thole.Config) {})
	ctx := t.Context()
	if err := db.Migrate(ctx, migrations.FS); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := deliver(ctx, db, [][]any{{"iron", 7}, {"oak", 12}}); err != nil {
			t.Error(err)
		}
	}
	if err := deliver(ctx, db, [][]any{{"iron", 1}, {"oak", -25}}); !errors.Is(err, thole.ErrCheck) {
		t.Errorf("more than there is: got error %v, want ErrCheck", err)
	}
	type stock struct {
		Material string
		Stock    int
	}
	got, err := thole.All[stock](ctx, db, "select * from armoury order by material")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]stock{{"iron", 14}, {"oak", 24}}, got); diff != "" {
		t.Errorf("armoury (-want +got):\n%s", diff)
	}
}

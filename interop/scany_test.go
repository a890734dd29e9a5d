package interop

import (
	"context"
	"fmt"
	"testing"

	"github.com/georgysavva/scany/v2/pgxscan"
	"github.com/georgysavva/scany/v2/sqlscan"

	"github.com/tholedb/thole"
)

// TestScany scans by scany's sqlscan, on a Tx and on a DB.
func TestScany(t *testing.T) {
	t.Parallel()
	const insert = "insert into items (id, name) values (" + next + ", ?) returning id, name"
	neighbour{
		add: func(ctx context.Context, tx *thole.Tx, name string) (int, error) {
			var one item
			if err := sqlscan.Get(ctx, tx, &one, insert, name); err != nil {
				return 0, err
			}
			var all []*item
			err := sqlscan.Select(ctx, tx, &all, "select * from items where id in (?)", []int64{1, 2, 3, 4})
			return len(all), err
		},
		alone: func(ctx context.Context, db *thole.DB, name string) error {
			return sqlscan.Get(ctx, db, new(item), insert, name)
		},
	}.hold(t)
}

// TestScanyForPgx scans by scany's pgxscan, on the views for pgx.
func TestScanyForPgx(t *testing.T) {
	t.Parallel()
	const insert = "insert into items (id, name) values (" + next + ", $1) returning id, name"
	neighbour{
		on: postgres,
		add: func(ctx context.Context, tx *thole.Tx, name string) (int, error) {
			var one item
			if err := pgxscan.Get(ctx, tx.Pgx(), &one, insert, name); err != nil {
				return 0, err
			}
			err := pgxscan.Get(ctx, tx.Pgx(), &one, "select * from items where id = -1")
			if !pgxscan.NotFound(err) {
				return 0, fmt.Errorf("no row: got error %w", err)
			}
			var all []*item
			err = pgxscan.Select(ctx, tx.Pgx(), &all, "select * from items where id = any($1)", []int64{1, 2, 3, 4})
			return len(all), err
		},
		alone: func(ctx context.Context, db *thole.DB, name string) error {
			return pgxscan.Get(ctx, db.Pgx(), new(item), insert, name)
		},
	}.hold(t)
}

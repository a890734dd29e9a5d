package interop

import (
	"context"
	"testing"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/interop/sqlc/litesqlc"
	"github.com/tholedb/thole/interop/sqlc/pgsqlc"
)

// TestSqlcForPostgres runs what sqlc generates for PostgreSQL, with $1, on both
// engines.
func TestSqlcForPostgres(t *testing.T) {
	t.Parallel()
	neighbour{
		add: func(ctx context.Context, tx *thole.Tx, name string) (int, error) {
			q := pgsqlc.New(tx)
			if _, err := q.Add(ctx, name); err != nil {
				return 0, err
			}
			all, err := pgsqlc.New(tx.Sqlx()).Items(ctx, pgsqlc.ItemsParams{First: 1, Last: 9})
			return len(all), err
		},
		alone: func(ctx context.Context, db *thole.DB, name string) error {
			_, err := pgsqlc.New(db).Add(ctx, name)
			return err
		},
	}.hold(t)
}

// TestSqlcForSQLite runs what sqlc generates for SQLite, with ? and ?1, on both
// engines.
func TestSqlcForSQLite(t *testing.T) {
	t.Parallel()
	neighbour{
		add: func(ctx context.Context, tx *thole.Tx, name string) (int, error) {
			q := litesqlc.New(tx)
			if _, err := q.Add(ctx, name); err != nil {
				return 0, err
			}
			all, err := q.Items(ctx, litesqlc.ItemsParams{First: 1, Last: 9})
			return len(all), err
		},
		alone: func(ctx context.Context, db *thole.DB, name string) error {
			_, err := litesqlc.New(db).Add(ctx, name)
			return err
		},
	}.hold(t)
}

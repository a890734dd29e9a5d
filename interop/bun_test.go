package interop

import (
	"context"
	"testing"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
	"github.com/uptrace/bun/dialect/sqlitedialect"
	"github.com/uptrace/bun/schema"

	"github.com/tholedb/thole"
)

type bunItem struct {
	bun.BaseModel `bun:"table:items"`
	ID            int64 `bun:",pk"`
	Name          string
}

// bunOn is bun over the views of a DB.
func bunOn(db *thole.DB) *bun.DB {
	d := map[thole.Engine]schema.Dialect{thole.SQLite: sqlitedialect.New(), thole.Postgres: pgdialect.New()}[db.Engine()]
	return bun.NewDB(db.Sqlx().DB, d)
}

// TestBun runs bun's queries, which take the session's transaction by Conn.
func TestBun(t *testing.T) {
	t.Parallel()
	neighbour{
		add: func(ctx context.Context, tx *thole.Tx, name string) (int, error) {
			on := bunOnTx(tx)
			row := &bunItem{Name: name}
			if err := on.NewSelect().ColumnExpr(next).Conn(tx.Sqlx().Tx).Scan(ctx, &row.ID); err != nil {
				return 0, err
			}
			if _, err := on.NewInsert().Model(row).Conn(tx.Sqlx().Tx).Exec(ctx); err != nil {
				return 0, err
			}
			seen, err := on.NewSelect().Model((*bunItem)(nil)).Where("id IN (?)", bun.List([]int64{1, 2, 3, 4})).Conn(tx.Sqlx().Tx).Count(ctx)
			return int(seen), err
		},
		alone: func(ctx context.Context, db *thole.DB, name string) error {
			_, err := bunOn(db).NewInsert().Model(&bunItem{ID: 100, Name: name}).Exec(ctx)
			return err
		},
	}.hold(t)
}

// bunOnTx is bun with nothing but a dialect: each query is given its connection.
func bunOnTx(tx *thole.Tx) *bun.DB {
	d := map[thole.Engine]schema.Dialect{thole.SQLite: sqlitedialect.New(), thole.Postgres: pgdialect.New()}[tx.Engine()]
	return bun.NewDB(nil, d)
}

package interop

import (
	"context"
	"testing"

	"github.com/Masterminds/squirrel"
	"github.com/doug-martin/goqu/v9"
	_ "github.com/doug-martin/goqu/v9/dialect/postgres"
	_ "github.com/doug-martin/goqu/v9/dialect/sqlite3"

	"github.com/tholedb/thole"
)

// TestSquirrel runs what squirrel builds, with its own ? on both engines.
func TestSquirrel(t *testing.T) {
	t.Parallel()
	insert := func(name string) squirrel.InsertBuilder {
		return squirrel.Insert("items").Columns("id", "name").Values(squirrel.Expr(next), name)
	}
	neighbour{
		add: func(ctx context.Context, tx *thole.Tx, name string) (int, error) {
			if _, err := squirrel.ExecContextWith(ctx, tx, insert(name)); err != nil {
				return 0, err
			}
			query, args := squirrel.Select("count(*)").From("items").Where(squirrel.Eq{"id": []int{1, 2, 3, 4}}).MustSql()
			return thole.One[int](ctx, tx, query, args...)
		},
		alone: func(ctx context.Context, db *thole.DB, name string) error {
			_, err := insert(name).RunWith(db.Sqlx().DB).ExecContext(ctx)
			return err
		},
	}.hold(t)
}

// dialect is how goqu calls the engine.
func dialect(e thole.Engine) string {
	return map[thole.Engine]string{thole.SQLite: "sqlite3", thole.Postgres: "postgres"}[e]
}

// TestGoqu runs goqu's executor on the view, and what it builds on the Tx.
func TestGoqu(t *testing.T) {
	t.Parallel()
	record := func(name string) goqu.Record { return goqu.Record{"id": goqu.L(next), "name": name} }
	neighbour{
		add: func(ctx context.Context, tx *thole.Tx, name string) (int, error) {
			on := goqu.NewTx(dialect(tx.Engine()), tx.Sqlx().Tx)
			if _, err := on.Insert("items").Prepared(true).Rows(record(name)).Executor().ExecContext(ctx); err != nil {
				return 0, err
			}
			query, args, err := on.From("items").Prepared(true).Select("id", "name").Where(goqu.C("id").In(1, 2, 3, 4)).ToSQL()
			if err != nil {
				return 0, err
			}
			all, err := thole.All[item](ctx, tx, query, args...)
			return len(all), err
		},
		alone: func(ctx context.Context, db *thole.DB, name string) error {
			_, err := goqu.New(dialect(db.Engine()), db.Sqlx().DB).Insert("items").Rows(record(name)).Executor().ExecContext(ctx)
			return err
		},
	}.hold(t)
}

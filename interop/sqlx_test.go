package interop

import (
	"context"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/tholedb/thole"
)

// TestSqlx runs sqlx's own functions on a Tx.
func TestSqlx(t *testing.T) {
	t.Parallel()
	neighbour{
		add: func(ctx context.Context, tx *thole.Tx, name string) (int, error) {
			if _, err := sqlx.NamedExecContext(ctx, tx, "insert into items (id, name) values ("+next+", :name)", map[string]any{"name": name}); err != nil {
				return 0, err
			}
			var one item
			if err := sqlx.GetContext(ctx, tx, &one, tx.Rebind("select * from items where name = ?"), name); err != nil {
				return 0, err
			}
			query, args, err := sqlx.In("select * from items where id in (?) or id > ?", []int64{1, 2, 3}, 3)
			if err != nil {
				return 0, err
			}
			var all []item
			err = sqlx.SelectContext(ctx, tx, &all, tx.Rebind(query), args...)
			return len(all), err
		},
		alone: func(ctx context.Context, db *thole.DB, name string) error {
			_, err := sqlx.NamedExecContext(ctx, db, "insert into items (id, name) values ("+next+", :name)", item{Name: name})
			return err
		},
	}.hold(t)
}

// TestSqlxView runs code that takes a *sqlx.Tx or a *sqlx.DB.
func TestSqlxView(t *testing.T) {
	t.Parallel()
	neighbour{
		add: func(ctx context.Context, tx *thole.Tx, name string) (int, error) {
			view := tx.Sqlx()
			stmt, err := view.PrepareNamedContext(ctx, "insert into items (id, name) values ("+next+", :name)")
			if err != nil {
				return 0, err
			}
			defer func() { _ = stmt.Close() }()
			if _, err := stmt.ExecContext(ctx, item{Name: name}); err != nil {
				return 0, err
			}
			rows, err := view.QueryxContext(ctx, "select * from items")
			if err != nil {
				return 0, err
			}
			defer func() { _ = rows.Close() }()
			seen := 0
			for ; rows.Next(); seen++ {
				if err := rows.StructScan(new(item)); err != nil {
					return 0, err
				}
				if err := rows.MapScan(map[string]any{}); err != nil {
					return 0, err
				}
			}
			return seen, rows.Err()
		},
		alone: func(ctx context.Context, db *thole.DB, name string) error {
			tx, err := db.Sqlx().BeginTxx(ctx, nil)
			if err != nil {
				return err
			}
			defer func() { _ = tx.Rollback() }()
			if _, err := tx.NamedExecContext(ctx, "insert into items (id, name) values ("+next+", :name)", item{Name: name}); err != nil {
				return err
			}
			return tx.Commit()
		},
	}.hold(t)
}

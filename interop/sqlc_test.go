package interop

import (
	"context"
	"errors"
	"testing"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/interop/sqlc/litesqlc"
	"github.com/tholedb/thole/interop/sqlc/pgsqlc"
	"github.com/tholedb/thole/interop/sqlc/pgxsqlc"
	"github.com/tholedb/thole/testing/dbtest"
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

// TestSqlcForPgx runs what sqlc generates for pgx/v5, on the views for pgx.
func TestSqlcForPgx(t *testing.T) {
	t.Parallel()
	neighbour{
		on: postgres,
		add: func(ctx context.Context, tx *thole.Tx, name string) (int, error) {
			q := pgxsqlc.New(tx.Pgx())
			if _, err := q.Add(ctx, name); err != nil {
				return 0, err
			}
			all, err := q.Items(ctx, pgxsqlc.ItemsParams{First: 1, Last: 9})
			return len(all), err
		},
		alone: func(ctx context.Context, db *thole.DB, name string) error {
			_, err := pgxsqlc.New(db.Pgx()).Add(ctx, name)
			return err
		},
	}.hold(t)
}

// TestSqlcKinds runs each kind of query that sqlc has for pgx/v5: of a session
// that is undone nothing is left, of one that ends well all of it, and so of what
// ran outside sessions.
func TestSqlcKinds(t *testing.T) {
	t.Parallel()
	db := dbtest.Config{Engines: postgres}.Database(t)
	ctx := t.Context()
	if _, err := db.ExecContext(ctx, "create table items (id integer primary key, name text not null unique)"); err != nil {
		t.Fatal(err)
	}
	q := pgxsqlc.New(db.Pgx())
	for kept, end := range []error{errUndo, nil} {
		err := db.WithSession(ctx, func(tx *thole.Tx) error {
			useKinds(t, ctx, q.WithTx(tx.Pgx()))
			return end
		})
		if !errors.Is(err, end) {
			t.Errorf("got error %v, want %v", err, end)
		}
		wantItems(t, db, 4*kept)
	}
	if err := q.Clear(ctx); err != nil {
		t.Errorf("exec: %v", err)
	}
	wantItems(t, db, 0)
	useKinds(t, ctx, q)
	wantItems(t, db, 4)
}

// useKinds adds items, and leaves four of them.
func useKinds(t *testing.T, ctx context.Context, q *pgxsqlc.Queries) {
	t.Helper()
	failed := func(kind string) func(int, error) {
		return func(i int, err error) {
			if err != nil {
				t.Errorf("%s %d: %v", kind, i, err)
			}
		}
	}
	if n, err := q.AddCopies(ctx, []pgxsqlc.AddCopiesParams{{ID: 1, Name: "a"}, {ID: 2, Name: "b"}}); n != 2 || err != nil {
		t.Errorf("copyfrom: got %d rows and error %v, want 2", n, err)
	}
	q.AddBatch(ctx, []pgxsqlc.AddBatchParams{{ID: 3, Name: "c"}, {ID: 4, Name: "d"}}).Exec(failed("batchexec"))
	q.AddBatchOne(ctx, []pgxsqlc.AddBatchOneParams{{ID: 5, Name: "e"}, {ID: 6, Name: "f"}}).
		QueryRow(func(i int, got pgxsqlc.Item, err error) {
			failed("batchone")(i, err)
			if want := int32(5 + i); got.ID != want {
				t.Errorf("batchone: got item %d, want %d", got.ID, want)
			}
		})
	if n, err := q.Rename(ctx, pgxsqlc.RenameParams{NewName: "A", Name: "a"}); n != 1 || err != nil {
		t.Errorf("execrows: got %d rows and error %v, want 1", n, err)
	}
	if tag, err := q.Remove(ctx, pgxsqlc.RemoveParams{First: 5, Last: 9}); tag.String() != "DELETE 2" || err != nil {
		t.Errorf("execresult: got %q and error %v, want DELETE 2", tag, err)
	}
	if items, err := q.Named(ctx, []string{"A", "a", "d"}); len(items) != 2 || err != nil {
		t.Errorf("many: got %v and error %v, want two items", items, err)
	}
	q.ItemsBatch(ctx, []pgxsqlc.ItemsBatchParams{{First: 1, Last: 2}, {First: 1, Last: 3}}).
		Query(func(i int, got []pgxsqlc.Item, err error) {
			failed("batchmany")(i, err)
			if len(got) != 2+i {
				t.Errorf("batchmany: got %v, want %d items", got, 2+i)
			}
		})
}

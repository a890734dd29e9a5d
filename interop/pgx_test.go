package interop

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/testing/dbtest"
)

// TestPgx reads with pgx's own functions, and begins as its BeginFunc does.
func TestPgx(t *testing.T) {
	t.Parallel()
	add := func(ctx context.Context, on thole.Pgx, name string) error {
		return pgx.BeginFunc(ctx, on, func(tx pgx.Tx) error {
			rows, _ := tx.Query(ctx, "insert into items (id, name) values ("+next+", @name) returning *", pgx.NamedArgs{"name": name})
			_, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[item])
			return err
		})
	}
	neighbour{
		on: postgres,
		add: func(ctx context.Context, tx *thole.Tx, name string) (int, error) {
			if err := add(ctx, tx.Pgx(), name); err != nil {
				return 0, err
			}
			rows, _ := tx.Pgx().Query(ctx, "select * from items")
			all, err := pgx.CollectRows(rows, pgx.RowToAddrOfStructByPos[item])
			return len(all), err
		},
		alone: func(ctx context.Context, db *thole.DB, name string) error { return add(ctx, db.Pgx(), name) },
	}.hold(t)
}

// shelf is code that was given a pool, and asks no more of it than it needs.
type shelf struct {
	pool interface {
		SendBatch(ctx context.Context, batch *pgx.Batch) pgx.BatchResults
	}
}

// put adds an item and says how many there are then, in one round trip.
func (s shelf) put(ctx context.Context, name string) (seen int, err error) {
	batch := new(pgx.Batch)
	batch.Queue("insert into items (id, name) values ("+next+", $1)", name)
	batch.Queue("select * from items").Query(func(rows pgx.Rows) error {
		all, err := pgx.CollectRows(rows, pgx.RowToStructByName[item])
		seen = len(all)
		return err
	})
	return seen, s.pool.SendBatch(ctx, batch).Close()
}

// TestPgxBatch sends batches.
func TestPgxBatch(t *testing.T) {
	t.Parallel()
	neighbour{
		on: postgres,
		add: func(ctx context.Context, tx *thole.Tx, name string) (int, error) {
			return shelf{tx.Pgx()}.put(ctx, name)
		},
		alone: func(ctx context.Context, db *thole.DB, name string) error {
			_, err := shelf{db.Pgx()}.put(ctx, name)
			return err
		},
	}.hold(t)
}

// TestPgxPool has code that was given a pool: over the database it joins the
// session of its ctx, and on the pool itself it works beside that.
func TestPgxPool(t *testing.T) {
	t.Parallel()
	db := dbtest.Config{Engines: postgres}.Database(t)
	ctx := t.Context()
	if _, err := db.Pool().Exec(ctx, "create table items (id integer primary key, name text not null unique)"); err != nil {
		t.Fatal(err)
	}
	for committed, end := range []error{errUndo, nil} {
		err := db.WithSession(ctx, func(tx *thole.Tx) error {
			n, err := shelf{db.Pgx()}.put(tx.Context(), "a")
			if n != 1 || err != nil {
				t.Errorf("in the session: got %d items and error %v, want 1", n, err)
			}
			wantCommitted(t, db.Pool(), 0)
			return end
		})
		if !errors.Is(err, end) {
			t.Errorf("got error %v, want %v", err, end)
		}
		wantCommitted(t, db.Pool(), committed)
	}
}

// wantCommitted looks on a connection of its own.
func wantCommitted(t *testing.T, pool *pgxpool.Pool, want int) {
	t.Helper()
	var got int
	err := pool.AcquireFunc(t.Context(), func(conn *pgxpool.Conn) error {
		return conn.QueryRow(t.Context(), "select count(*) from items").Scan(&got)
	})
	if err != nil || got != want {
		t.Errorf("the pool sees %d items, error %v, want %d", got, err, want)
	}
}

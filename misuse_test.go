package thole_test

import (
	"database/sql"
	"errors"
	"testing"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/testing/dbtest"
)

// These are mistakes, and habits from database/sql, that a review found to
// break a promise.

// TestViewPoolSettings sets what every database/sql program sets: no connection
// of a session may come to anybody else.
func TestViewPoolSettings(t *testing.T) {
	t.Parallel()
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		openForErrors(t, db)
		db.Sqlx().SetMaxIdleConns(2)
		db.Sqlx().SetMaxOpenConns(1)
		for range 3 {
			err := db.WithSession(t.Context(), func(tx *thole.Tx) error {
				_, err := db.Sqlx().ExecContext(tx.Context(), "insert into parent values (2, 'bronze', 1)")
				return errors.Join(err, errUndo)
			})
			if !errors.Is(err, errUndo) || errors.Is(err, thole.ErrTxDone) {
				t.Errorf("got error %v, want fn's own", err)
			}
		}
		var rows int
		if err := db.Sqlx().GetContext(t.Context(), &rows, "select count(*) from parent"); err != nil || rows != 1 {
			t.Errorf("got %d rows, error %v, want 1: each session was rolled back", rows, err)
		}
	})
}

var errUndo = errors.New("undo")

// TestRowsAfterEnd asks rows about their columns when their connection is
// somebody else's: on SQLite the driver would read freed memory.
func TestRowsAfterEnd(t *testing.T) {
	t.Parallel()
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		var rows *sql.Rows
		err := db.WithSession(t.Context(), func(tx *thole.Tx) (err error) {
			rows, err = tx.QueryContext(t.Context(), "select 1 as one, 'x' as two") //nolint:sqlclosecheck,rowserrcheck // left open
			return err
		})
		if !errors.Is(err, thole.ErrRowsOpen) {
			t.Errorf("got error %v, want ErrRowsOpen", err)
		}
		if _, err := rows.ColumnTypes(); err != nil {
			t.Error(err)
		}
		if rows.Next() || !errors.Is(rows.Err(), thole.ErrTxDone) {
			t.Errorf("got error %v, want ErrTxDone", rows.Err())
		}
	})
}

// TestNilContext is an error, and leaves the DB as it was.
func TestNilContext(t *testing.T) {
	t.Parallel()
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		if _, err := db.ExecContext(nil, "select 1"); err == nil { //nolint:staticcheck // what is tested
			t.Error("got no error for a nil ctx")
		}
		if err := db.GetContext(t.Context(), new(int), "select 1"); err != nil {
			t.Error(err)
		}
	})
}

func TestEmptyText(t *testing.T) {
	t.Parallel()
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		result, err := db.ExecContext(t.Context(), "-- nothing")
		if err != nil {
			t.Fatal(err)
		}
		if n, err := result.RowsAffected(); n != 0 || err != nil {
			t.Errorf("got %d rows affected, error %v, want 0", n, err)
		}
	})
}

// TestIsolationTwoLevelsDown asks for the level that the outermost session has.
func TestIsolationTwoLevelsDown(t *testing.T) {
	t.Parallel()
	serializable := thole.SessionOptions{Isolation: sql.LevelSerializable}
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		err := db.WithSessionOptions(t.Context(), serializable, func(tx *thole.Tx) error {
			return tx.WithSession(t.Context(), func(tx *thole.Tx) error {
				return tx.WithSessionOptions(t.Context(), serializable, func(*thole.Tx) error { return nil })
			})
		})
		if err != nil {
			t.Errorf("got error %v, want nil", err)
		}
	})
}

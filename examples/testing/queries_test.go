package theatre

import (
	"database/sql"
	"testing"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/testing/dbtest"
)

// A loop around a query would be one statement for each show.
func TestProgrammeQueries(t *testing.T) {
	t.Parallel()
	testdb.Each(t, func(t *testing.T, db *thole.DB) {
		office, _ := open(db)
		dbtest.Queries(t, db, func() {
			if _, err := office.Programme(t.Context()); err != nil {
				t.Error(err)
			}
		}).Max(1)
	})
}

func TestReserveQueries(t *testing.T) {
	t.Parallel()
	testdb.Each(t, func(t *testing.T, db *thole.DB) {
		office, _ := open(db)
		queries := dbtest.Queries(t, db, func() {
			if err := office.Reserve(t.Context(), Booking{"Hamlet", "G1", "Ann"}); err != nil {
				t.Error(err)
			}
		})
		queries.Match("SELECT count(*)", "INSERT INTO")
		queries.None("DELETE")
	})
}

func TestSessions(t *testing.T) {
	t.Parallel()
	testdb.Each(t, func(t *testing.T, db *thole.DB) {
		office, _ := open(db)
		sessions := dbtest.Sessions(t, db, func() {
			if err := office.Reserve(t.Context(), Booking{"Hamlet", "H1", "Ann"}); err != nil {
				t.Error(err)
			}
			if _, err := office.Programme(t.Context()); err != nil {
				t.Error(err)
			}
		})
		sessions.Committed(2)
		sessions.Labelled("reserve").Isolation(sql.LevelSerializable)
		sessions.Labelled("programme").ReadOnly()
	})
}

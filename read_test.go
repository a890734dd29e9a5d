package thole_test

import (
	"context"
	"database/sql"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/testing/dbtest"
)

type address struct {
	City string
	Zip  *string `db:"zip_code"`
}

type stamps struct {
	CreatedAt time.Time
}

type person struct {
	ID   int
	Name string `db:"full_name"`
	stamps
	Home   address
	Work   *address `db:"office"`
	Ignore string   `db:"-"`
}

const people = `select 1 as id, 'a' as full_name, cast('2026-11-27 12:00:00' as timestamp) as created_at, 'b' as "home.city", 'c' as "office.zip_code"`

// peopleOn is the query as the engine writes it: SQLite has no timestamps.
func peopleOn(db *thole.DB) string {
	if db.Engine() == thole.SQLite {
		return strings.Replace(people, "cast('2026-11-27 12:00:00' as timestamp)", "'2026-11-27 12:00:00'", 1)
	}
	return people
}

func TestReadStructs(t *testing.T) {
	t.Parallel()
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		want := person{ID: 1, Name: "a", stamps: stamps{CreatedAt: noon}, Home: address{City: "b"}, Work: &address{Zip: new("c")}}
		same := cmp.AllowUnexported(person{})
		one, err := thole.One[person](t.Context(), db, peopleOn(db))
		if diff := cmp.Diff(want, one, same); err != nil || diff != "" {
			t.Errorf("One: error %v (-want +got):\n%s", err, diff)
		}
		pointer, err := thole.One[*person](t.Context(), db, peopleOn(db))
		if diff := cmp.Diff(&want, pointer, same); err != nil || diff != "" {
			t.Errorf("One of pointers: error %v (-want +got):\n%s", err, diff)
		}
		all, err := thole.All[*person](t.Context(), db, peopleOn(db)+" union all "+peopleOn(db))
		if diff := cmp.Diff([]*person{&want, &want}, all, same); err != nil || diff != "" {
			t.Errorf("All: error %v (-want +got):\n%s", err, diff)
		}
		if len(all) == 2 && all[0] == all[1] {
			t.Error("All: got the same pointer twice")
		}
		kept := person{Ignore: "kept", Home: address{Zip: new("kept")}}
		if err := db.GetContext(t.Context(), &kept, peopleOn(db)); err != nil || kept.Ignore != "kept" || kept.Home.Zip == nil {
			t.Errorf("GetContext: got %+v and error %v, want fields without a column as they were", kept, err)
		}
		list := []person{{ID: 9}}
		if err := db.SelectContext(t.Context(), &list, peopleOn(db)); err != nil || len(list) != 2 || list[0].ID != 9 {
			t.Errorf("SelectContext: got %+v and error %v, want the row behind what was there", list, err)
		}
		spelled, err := thole.One[person](t.Context(), db, strings.Replace(peopleOn(db), "created_at", "createdat", 1))
		if diff := cmp.Diff(want, spelled, same); err != nil || diff != "" {
			t.Errorf("as sqlx spells it: error %v (-want +got):\n%s", err, diff)
		}
	})
}

func TestReadOthers(t *testing.T) {
	t.Parallel()
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		m, err := thole.One[map[string]any](t.Context(), db, "select 1 as a, cast(null as text) as b, 'c' as c")
		if diff := cmp.Diff(map[string]any{"a": int64(1), "b": nil, "c": "c"}, m); err != nil || diff != "" {
			t.Errorf("map: error %v (-want +got):\n%s", err, diff)
		}
		all, err := thole.All[int](t.Context(), db, "select 1 where false")
		if err != nil || all == nil || len(all) != 0 {
			t.Errorf("All: got %#v and error %v, want an empty slice that is not nil", all, err)
		}
		if _, err := thole.One[int](t.Context(), db, "select 1 where false"); err != sql.ErrNoRows {
			t.Errorf("One: got error %v, want %v itself", err, sql.ErrNoRows)
		}
		if err := db.GetContext(t.Context(), new(int), "select 1 where false"); err != sql.ErrNoRows {
			t.Errorf("GetContext: got error %v, want %v itself", err, sql.ErrNoRows)
		}
		if got, err := thole.One[int](t.Context(), db, "select 1 union all select 2"); err == nil || errors.Is(err, sql.ErrNoRows) || got != 0 {
			t.Errorf("One of two rows: got %d and error %v, want an error", got, err)
		}
		var first int
		if err := db.GetContext(t.Context(), &first, "select 1 union all select 2 order by 1"); err != nil || first != 1 {
			t.Errorf("GetContext: got %d and error %v, want the first row", first, err)
		}
		none, err := thole.One[*int](t.Context(), db, "select cast(null as int)")
		if err != nil || none != nil {
			t.Errorf("NULL: got %v and error %v, want nil", none, err)
		}
		anything, err := thole.One[any](t.Context(), db, "select 1")
		if err != nil || anything != int64(1) {
			t.Errorf("any: got %v and error %v, want 1", anything, err)
		}
	})
}

func TestReadNowhere(t *testing.T) {
	t.Parallel()
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		var number int
		for name, err := range map[string]error{
			"no pointer":     db.GetContext(t.Context(), number, "select 1"),
			"nil":            db.GetContext(t.Context(), nil, "select 1"),
			"nil pointer":    db.GetContext(t.Context(), (*int)(nil), "select 1"),
			"no slice":       db.SelectContext(t.Context(), &number, "select 1"),
			"nil Querier":    func() error { _, err := thole.All[int](t.Context(), nil, "select 1"); return err }(),
			"nil of a model": func() error { _, err := thole.Insert(t.Context(), db, (*person)(nil)); return err }(),
		} {
			if _, ok := errors.AsType[*thole.Error](err); !ok {
				t.Errorf("%s: got error %v, want a typed one", name, err)
			}
		}
	})
}

// TestEach leaves the loop in each way, in a session that must be able to go on.
func TestEach(t *testing.T) {
	t.Parallel()
	const numbers = "with recursive n (i) as (select 1 union all select i + 1 from n where i < 1000) select i from n"
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		err := db.WithSession(t.Context(), func(tx *thole.Tx) error {
			each := thole.Each[int](t.Context(), tx, numbers)
			for range 2 { // it sends the query again
				sum := 0
				for i, err := range each {
					if err != nil {
						t.Fatal(err)
					}
					if sum == 0 {
						if _, err := tx.ExecContext(t.Context(), "select 1"); !errors.Is(err, thole.ErrBusy) {
							t.Errorf("in the loop: got error %v, want %v", err, thole.ErrBusy)
						}
					}
					if sum += i; i == 3 {
						break
					}
				}
				if sum != 6 {
					t.Errorf("got the sum %d, want 6", sum)
				}
			}
			func() {
				defer func() { _ = recover() }()
				for range each {
					panic("in the loop")
				}
			}()
			for name, query := range map[string]string{"at once": "select nonsense", "type": "select 'x' as a"} {
				failures := 0
				_ = tx.WithSession(t.Context(), func(inner *thole.Tx) error {
					for i, err := range thole.Each[int](t.Context(), inner, query) {
						if failures++; err == nil || i != 0 {
							t.Errorf("%s: got %d and error %v, want an error", name, i, err)
						}
					}
					return errUndo
				})
				if failures != 1 {
					t.Errorf("%s: got %d errors, want one", name, failures)
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var last error
			_ = tx.WithSession(t.Context(), func(inner *thole.Tx) error {
				for _, err := range thole.Each[int](ctx, inner, numbers) {
					cancel()
					last = err
				}
				return errUndo
			})
			if !errors.Is(last, context.Canceled) {
				t.Errorf("cancelled: the loop ended with error %v, want %v", last, context.Canceled)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// TestEachStreams reads a million rows and looks at the heap meanwhile.
func TestEachStreams(t *testing.T) { //nolint:paralleltest // it measures the heap of the process
	if testing.Short() {
		t.Skip("reads a million rows")
	}
	const (
		rows = 1_000_000
		most = 30 << 20
	)
	query := "with recursive n (i) as (select 1 union all select i + 1 from n where i < 1000000) select i as id, 'a name of some length' as name from n"
	type row struct {
		ID   int
		Name string
	}
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		query := query
		if db.Engine() == thole.Postgres {
			query = "select i as id, 'a name of some length' as name from generate_series(1, 1000000) i"
		}
		runtime.GC()
		var before, now runtime.MemStats
		runtime.ReadMemStats(&before)
		read, peak := 0, uint64(0)
		for r, err := range thole.Each[row](t.Context(), db, query) {
			if err != nil {
				t.Fatal(err)
			}
			if read++; r.ID != read {
				t.Fatalf("got row %d, want %d", r.ID, read)
			}
			if read%50_000 == 0 {
				runtime.ReadMemStats(&now)
				peak = max(peak, now.HeapAlloc)
			}
		}
		if read != rows {
			t.Errorf("got %d rows, want %d", read, rows)
		}
		if peak > before.HeapAlloc+most {
			t.Errorf("the heap had %d MB at its highest, and %d MB before, want no more than %d MB on top", peak>>20, before.HeapAlloc>>20, most>>20)
		}
		t.Logf("heap: %d MB at its highest, %d MB before", peak>>20, before.HeapAlloc>>20)
	})
}

package thole_test

import (
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/testing/dbtest"
)

// cell is a model with one column of any type.
type cell[T any] struct {
	ID int64 `schema:"primary key, generated"`
	V  T
}

func (cell[T]) TableName() string { return "cell" }

// typeCase is a type of columns with values that go in and should come out.
type typeCase struct {
	name     string
	postgres string
	sqlite   string
	test     func(t *testing.T, db *thole.DB)
}

// column is a case for values of a Go type.
func column[T any](name, postgres, sqlite string, values ...T) typeCase {
	return typeCase{name, postgres, sqlite, func(t *testing.T, db *thole.DB) {
		t.Helper()
		for _, value := range values {
			comesOut(t, db, value)
		}
		comeOut(t, db, values)
	}}
}

// comesOut puts a value in by each way, and takes it out by each.
func comesOut[T any](t *testing.T, db *thole.DB, value T) {
	t.Helper()
	same := func(how string, got T, err error) {
		t.Helper()
		if diff := cmp.Diff(value, got, cmp.Comparer(sameInstant)); err != nil || diff != "" {
			t.Errorf("%s: error %v (-want +got):\n%s", how, err, diff)
		}
		if at, ok := any(got).(time.Time); ok && at.Location() != time.UTC {
			t.Errorf("%s: got a time in %s, want it in UTC", how, at.Location())
		}
	}
	stored, err := thole.Insert(t.Context(), db, cell[T]{V: value})
	same("Insert", stored.V, err)
	got, err := thole.One[T](t.Context(), db, "select v from cell where id = ?", stored.ID)
	same("One", got, err)
	row, err := thole.One[cell[T]](t.Context(), db, "select * from cell where id = ?", stored.ID)
	same("One of structs", row.V, err)
	var field struct{ V T }
	err = db.GetContext(t.Context(), &field, "select v from cell where id = ?", stored.ID)
	same("GetContext", field.V, err)
	if _, err := db.NamedExecContext(t.Context(), "update cell set v = :v where id = :id", row); err != nil {
		t.Errorf("update: %v", err)
	}
	err = db.QueryRowContext(t.Context(), "select v from cell where id = ?", stored.ID).Scan(&got)
	same("Scan", got, err)
	var viewed T
	if err := db.Sqlx().GetContext(t.Context(), &viewed, db.Rebind("select v from cell where id = ?"), stored.ID); err == nil {
		same("sqlx", viewed, nil)
	}
}

// comeOut puts many values in, by the ways that InsertAll has.
func comeOut[T any](t *testing.T, db *thole.DB, values []T) {
	t.Helper()
	for _, rows := range []int{len(values), 1100} {
		if _, err := db.ExecContext(t.Context(), "delete from cell"); err != nil {
			t.Fatal(err)
		}
		var all []cell[T]
		for i := range rows {
			all = append(all, cell[T]{int64(i + 1), values[i%len(values)]})
		}
		if err := thole.InsertAll(t.Context(), db, all); err != nil {
			t.Errorf("InsertAll of %d: %v", rows, err)
			continue
		}
		got, err := thole.All[cell[T]](t.Context(), db, "select * from cell order by id")
		if diff := cmp.Diff(all, got, cmp.Comparer(sameInstant)); err != nil || diff != "" {
			t.Errorf("InsertAll of %d: error %v (-want +got):\n%s", rows, err, diff)
		}
	}
}

func sameInstant(a, b time.Time) bool { return a.Equal(b) }

// decimal is what a decimal type does: it is a text to the database.
type decimal struct{ text string }

func (d decimal) Value() (driver.Value, error) { return d.text, nil }

func (d *decimal) Scan(value any) error {
	switch value := value.(type) {
	case string:
		d.text = value
	case []byte:
		d.text = string(value)
	default:
		return fmt.Errorf("%T is no decimal", value)
	}
	return nil
}

func (d decimal) Equal(other decimal) bool { return d == other }

// identifier is what a UUID type does.
type identifier [16]byte

func (u identifier) Value() (driver.Value, error) {
	h := hex.EncodeToString(u[:])
	return strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-"), nil
}

func (u *identifier) Scan(value any) error {
	text, ok := value.(string)
	if !ok {
		return fmt.Errorf("%T is no identifier", value)
	}
	_, err := hex.Decode(u[:], []byte(strings.ReplaceAll(text, "-", "")))
	return err
}

// mood is an enum on PostgreSQL, whose type no driver knows.
type mood string

type document struct {
	Name string   `json:"name"`
	Tags []string `json:"tags"`
}

var (
	noon      = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	precise   = time.Date(2026, 11, 27, 23, 59, 59, 123456000, time.UTC)
	elsewhere = time.Date(2026, 1, 1, 0, 0, 0, 500000000, time.FixedZone("", 5*3600+1800))
	texts     = []string{"", "a", "Größe 名", `quote ' " \ {},:?`, "line\n\tbreak\r", "NULL", `\N`, "  "}
)

var typeCases = []typeCase{
	column("bool", "boolean", "boolean", true, false),
	column("int", "bigint", "integer", 0, 1, -1, math.MaxInt64, math.MinInt64),
	column("int16", "smallint", "integer", int16(math.MaxInt16), int16(-1)),
	column("uint8", "integer", "integer", uint8(255)),
	column("float64", "double precision", "real", 0.0, 1.5, -math.Pi, math.MaxFloat64, math.SmallestNonzeroFloat64),
	column("float32", "real", "real", float32(1.25)),
	column("string", "text", "text", texts...),
	column("varchar", "varchar(40)", "varchar(40)", "a", ""),
	column("enum", "mood", "text", mood("happy"), mood("not so")),
	column("bytes", "bytea", "blob", []byte("a\x00\xff\\"), []byte{}),
	column("time", "timestamptz", "timestamp", noon, precise, elsewhere, time.Unix(0, 0).UTC(), time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)),
	column("date", "date", "date", time.Date(2026, 11, 27, 0, 0, 0, 0, time.UTC)),
	column("decimal", "numeric", "text", decimal{"0"}, decimal{"1.50"}, decimal{"-123456789012345678901234567890.123"}),
	column("UUID", "uuid", "text", identifier{1, 2, 3, 15: 255}),
	column("JSON struct", "jsonb", "json", thole.JSON[document]{V: document{"a", []string{"b", `"`}}}),
	column("JSON map", "json", "text", thole.JSON[map[string]any]{V: map[string]any{"a": 1.5, "b": nil}}),
	column("JSON number", "jsonb", "jsonb", thole.JSON[float64]{V: 5}, thole.JSON[float64]{V: 1.5}),
	column("JSON string", "jsonb", "text", thole.JSON[string]{V: "\x00 5"[1:]}, thole.JSON[string]{V: "5"}),
	column("JSON null", "jsonb", "text", thole.JSON[*int]{}),
	column("array of strings", "text[]", "text[]", thole.Array[string](texts), thole.Array[string]{}),
	column("array of ints", "bigint[]", "integer[]", thole.Array[int64]{1, -2}, thole.Array[int64]{}, thole.Array[int64](nil)),
	column("array of floats", "double precision[]", "text", thole.Array[float64]{1.5, -2}),
	column("array of bools", "boolean[]", "text", thole.Array[bool]{true, false}),
	column("array of times", "timestamptz[]", "text", thole.Array[time.Time]{noon, precise}),
	column("array of bytes", "bytea[]", "text", thole.Array[[]byte]{[]byte("a\x00\xff"), {}}),
	column("array of pointers to bytes", "bytea[]", "text", thole.Array[*[]byte]{new([]byte("a\x00\xff")), nil}),
	column("array of enums", "mood[]", "text", thole.Array[mood]{"happy", "not so"}),
	column("array of pointers", "text[]", "text", thole.Array[*string]{new("a"), nil, new("NULL")}),
	column("array of decimals", "numeric[]", "text", thole.Array[string]{"1.50"}),
	column("pointer to string", "text", "text", new("a"), nil),
	column("pointer to int", "integer", "integer", new(1), nil),
	column("pointer to bool", "boolean", "boolean", new(true), nil),
	column("pointer to time", "timestamptz", "timestamp", new(precise), nil),
	column("pointer to decimal", "numeric", "text", new(decimal{"1.5"}), nil),
	column("pointer to UUID", "uuid", "text", new(identifier{1}), nil),
	column("pointer to JSON", "jsonb", "text", new(thole.JSON[document]{V: document{Name: "a"}}), nil),
	column("pointer to array", "text[]", "text", new(thole.Array[string]{"a"}), nil),
	column("nullable string", "text", "text", sql.NullString{String: "a", Valid: true}, sql.NullString{}),
	column("nullable time", "timestamptz", "timestamp", sql.NullTime{Time: precise, Valid: true}, sql.NullTime{}),
	column("sql.Null of int", "bigint", "integer", sql.Null[int64]{V: 1, Valid: true}, sql.Null[int64]{}),
	column("sql.Null of time", "timestamptz", "timestamp", sql.Null[time.Time]{V: noon, Valid: true}, sql.Null[time.Time]{}),
	column("sql.Null of JSON", "jsonb", "text", sql.Null[thole.JSON[document]]{V: thole.JSON[document]{V: document{Name: "a"}}, Valid: true}, sql.Null[thole.JSON[document]]{}),
	column("sql.Null of array", "text[]", "text", sql.Null[thole.Array[string]]{V: thole.Array[string]{"a"}, Valid: true}, sql.Null[thole.Array[string]]{}),
	column("raw JSON", "json", "text", json.RawMessage(`{"a": 1}`)),
	column("bytes of a text", "text", "text", []byte("a")),
}

// TestTypes is the table of what goes in and comes out, on both engines.
func TestTypes(t *testing.T) {
	t.Parallel()
	for _, c := range typeCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
				if db.Engine() == thole.Postgres {
					run(t, db, "create type mood as enum ('happy', 'not so')")
					run(t, db, "create table cell (id bigint generated by default as identity primary key, v "+c.postgres+")")
				} else {
					run(t, db, "create table cell (id integer primary key, v "+c.sqlite+")")
				}
				c.test(t, db)
			})
		})
	}
}

func run(t *testing.T, q thole.Querier, query string, args ...any) {
	t.Helper()
	if _, err := q.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// TestScansLikeSqlx scans every type into every destination, by thole and by
// sqlx on the same session: what sqlx scans is the same.
func TestScansLikeSqlx(t *testing.T) {
	t.Parallel()
	values := map[thole.Engine][]string{
		thole.Postgres: {
			"1", "1.5::float8", "1.5::numeric", "'a'::text", "'5'::text", "true", "null::text", `'\x6162'::bytea`, "timestamptz '2026-11-27 12:00:00.5+02'",
			"timestamp '2026-11-27 12:00:00'", "date '2026-11-27'", "time '12:00'", "interval '1 day'", "inet '1.2.3.4'", "uuid '00000000-0000-0000-0000-000000000001'",
			`'{"a": 1}'::jsonb`, `'{"a": 1}'::json`, "array[1, 2]", "array['a', null]", "int4range(1, 2)", "'a'::\"char\"", "point '(1,2)'", "null::timestamptz",
		},
		thole.SQLite: {
			"1", "1.5", "'a'", "'5'", "true", "null", "x'6162'", "'2026-11-27 12:00:00.5'", "at", "day", "flag", "note",
		},
	}
	destinations := []any{
		new(string), new([]byte), new(any), new(sql.NullString), new(*string), new(int), new(int64), new(*int), new(float64), new(bool), new(*bool),
		new(time.Time), new(*time.Time), new(sql.NullTime), new(sql.NullInt64), new(json.RawMessage), new(sql.RawBytes), new(sql.Null[string]),
	}
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		run(t, db, "create table typed (at timestamp, day date, flag boolean, note text)")
		run(t, db, "insert into typed values ('2026-11-27 12:00:00', '2026-11-27', true, 'x')")
		pairs, more := 0, 0
		err := db.WithSession(t.Context(), func(tx *thole.Tx) error {
			for _, value := range values[db.Engine()] {
				for _, dest := range destinations {
					pairs++
					query := "select " + value + " as v from typed"
					ours, theirs := reflect.New(reflect.TypeOf(dest).Elem()), reflect.New(reflect.TypeOf(dest).Elem())
					failed := tx.Sqlx().GetContext(t.Context(), theirs.Interface(), query)
					err := tx.GetContext(t.Context(), ours.Interface(), query)
					if failed != nil && err == nil {
						more++
					}
					if failed == nil && (err != nil || !reflect.DeepEqual(ours.Interface(), theirs.Interface())) {
						t.Errorf("%s into %T: got %v and error %v, want %v as sqlx has it", value, dest, ours.Elem(), err, theirs.Elem())
					}
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		t.Logf("%d pairs, of which thole alone scans %d", pairs, more)
	})
}

// TestTimesInSQL compares and sorts times where they are, with the database's
// own among them.
func TestTimesInSQL(t *testing.T) {
	t.Parallel()
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		zone := map[thole.Engine]string{thole.Postgres: "timestamptz", thole.SQLite: "timestamp"}[db.Engine()]
		run(t, db, "create table event (id integer primary key, at "+zone+" not null default current_timestamp)")
		times := []time.Time{
			noon.Add(time.Microsecond), noon, noon.Add(-time.Nanosecond * 1000), noon.Add(time.Second), noon.Add(500 * time.Millisecond),
			noon.Add(510 * time.Millisecond), noon.In(elsewhere.Location()).Add(time.Minute), time.Unix(0, 0),
		}
		for i, at := range times {
			run(t, db, "insert into event (id, at) values (?, ?)", i, at)
		}
		sorted, err := thole.All[int](t.Context(), db, "select id from event order by at")
		if diff := cmp.Diff([]int{7, 2, 1, 0, 4, 5, 3, 6}, sorted); err != nil || diff != "" {
			t.Errorf("sorted: error %v (-want +got):\n%s", err, diff)
		}
		later, err := thole.All[int](t.Context(), db, "select id from event where at > ? order by id", noon)
		if diff := cmp.Diff([]int{0, 3, 4, 5, 6}, later); err != nil || diff != "" {
			t.Errorf("later: error %v (-want +got):\n%s", err, diff)
		}
		equal, err := thole.All[int](t.Context(), db, "select id from event where at in (?) order by id", []time.Time{noon, times[6].UTC()})
		if diff := cmp.Diff([]int{1, 6}, equal); err != nil || diff != "" {
			t.Errorf("equal: error %v (-want +got):\n%s", err, diff)
		}
		last, err := thole.One[time.Time](t.Context(), db, "select max(at) from event")
		if err != nil || !last.Equal(times[6]) || last.Location() != time.UTC {
			t.Errorf("max: got %v and error %v, want %v", last, err, times[6])
		}
		before := time.Now().Add(-2 * time.Second) // whole seconds on SQLite
		run(t, db, "insert into event (id) values (100)")
		own, err := thole.One[time.Time](t.Context(), db, "select at from event where id = 100 and at > ?", before)
		if err != nil || own.Before(before) || own.After(time.Now().Add(2*time.Second)) {
			t.Errorf("the database's own: got %v and error %v, want one about now", own, err)
		}
		if none, err := thole.One[*time.Time](t.Context(), db, "select max(at) from event where id < 0"); err != nil || none != nil {
			t.Errorf("got %v and error %v, want nil for NULL", none, err)
		}
	})
}

// TestJSONInSQL looks into JSON and arrays where they are, with the same SQL on
// both engines.
func TestJSONInSQL(t *testing.T) {
	t.Parallel()
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		kind := map[thole.Engine]string{thole.Postgres: "jsonb", thole.SQLite: "json"}[db.Engine()]
		run(t, db, "create table doc (id integer primary key, data "+kind+")")
		run(t, db, "insert into doc values (?, ?)", 1, thole.JSON[document]{V: document{"a", []string{"x", "y"}}})
		id, err := thole.One[int](t.Context(), db, "select id from doc where data ->> 'name' = ? and data -> 'tags' ->> 1 = ?", "a", "y")
		if err != nil || id != 1 {
			t.Errorf("got %d and error %v, want the document", id, err)
		}
		tags, err := thole.One[thole.JSON[[]string]](t.Context(), db, "select data -> 'tags' from doc")
		if diff := cmp.Diff([]string{"x", "y"}, tags.V); err != nil || diff != "" {
			t.Errorf("error %v (-want +got):\n%s", err, diff)
		}
	})
}

// TestArraysInSQL looks into arrays where they are, as each engine does it.
func TestArraysInSQL(t *testing.T) {
	t.Parallel()
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		kind, has := "text", "? in (select value from json_each(tags))"
		if db.Engine() == thole.Postgres {
			kind, has = "text[]", "? = any (tags)"
		}
		run(t, db, "create table doc (id integer primary key, tags "+kind+")")
		run(t, db, "insert into doc values (?, ?), (?, ?)", 1, thole.Array[string]{"x", "y"}, 2, thole.Array[string]{"z"})
		ids, err := thole.All[int](t.Context(), db, "select id from doc where "+has, "y")
		if diff := cmp.Diff([]int{1}, ids); err != nil || diff != "" {
			t.Errorf("error %v (-want +got):\n%s", err, diff)
		}
	})
}

// TestNoValue reads NULL into what can't hold it, and texts that are none.
func TestNoValue(t *testing.T) {
	t.Parallel()
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		for name, err := range map[string]error{
			"NULL into string":        read[string](t, db, "select cast(null as text) as v"),
			"NULL into time":          read[time.Time](t, db, "select cast(null as text) as v"),
			"NULL into JSON":          read[thole.JSON[int]](t, db, "select cast(null as text) as v"),
			"text into int":           read[int](t, db, "select cast('s3cr3t' as text) as v"),
			"text into time":          read[time.Time](t, db, "select cast('s3cr3t' as text) as v"),
			"text into JSON":          read[thole.JSON[int]](t, db, "select cast('s3cr3t' as text) as v"),
			"text into array":         read[thole.Array[int]](t, db, "select cast('s3cr3t' as text) as v"),
			"elements into array":     read[thole.Array[int]](t, db, "select cast('{s3cr3t}' as text) as v"),
			"dimensions into array":   read[thole.Array[int]](t, db, "select cast('{{1}}' as text) as v"),
			"unclosed array":          read[thole.Array[string]](t, db, `select cast('{"a}' as text) as v`),
			"text behind an array":    read[thole.Array[int]](t, db, "select cast('{1,}' as text) as v"),
			"NULL into element":       read[thole.Array[int]](t, db, "select cast('{NULL}' as text) as v"),
			"null into element":       read[thole.Array[int]](t, db, "select cast('[1, null]' as text) as v"),
			"two columns into one":    read[int](t, db, "select 1 as a, 2 as b"),
			"into a struct of no use": read[struct{ A chan int }](t, db, "select 1 as a"),
		} {
			var told *thole.Error
			if !errors.As(err, &told) || strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("%s: got error %v, want a typed one without the value", name, err)
			}
			if strings.HasPrefix(name, "NULL") && name != "NULL into element" && (err == nil || !strings.Contains(err.Error(), "is NULL")) {
				t.Errorf("%s: got error %v, want it to say so", name, err)
			}
		}
	})
}

func read[T any](t *testing.T, db *thole.DB, query string) error {
	t.Helper()
	_, err := thole.One[T](t.Context(), db, query)
	return err
}

package conformance

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tholedb/thole"
)

// binding is section K: what becomes of a query's text and its arguments. The
// same text runs on both engines, but for what only one of them can parse.
var binding = []sentence{
	{"K1", castsAreNoNames},
	{"K2", literalsAreUntouched},
	{"K3", questionMarks},
	{"K4", namesEndWhereWordsDo},
	{"K5", rowsOfValues},
	{"K6", clauses(
		sentence{"lists", listsInParentheses},
		sentence{"values", slicesThatAreValues},
		sentence{"limits", tooManyParameters},
	)},
	{"K7", clauses(
		sentence{"nothing", nothingToBind},
		sentence{"secrets", valuesAreNotTold},
	)},
	{"K8", sameTextOnBoth},
	{"K9", clauses(
		sentence{"names", namesThatAreNotClear},
		sentence{"columns", columnsWithoutField},
	)},
	{"K10", textsAreReadOnce},
}

type named = map[string]any

// echo runs a query on the DB and in a session, by each method that takes names,
// and checks the texts in its first row.
func (w *world) echo(t *testing.T, query string, arg any, want ...string) {
	t.Helper()
	check := func(how string, got []any, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s of %q: %v", how, query, err)
			return
		}
		var told []string
		for _, v := range got {
			if data, ok := v.([]byte); ok {
				v = string(data)
			}
			told = append(told, fmt.Sprint(v))
		}
		if diff := cmp.Diff(want, told); diff != "" {
			t.Errorf("%s of %q (-want +got):\n%s", how, query, diff)
		}
	}
	both := func(ctx context.Context, q thole.Querier) {
		got, err := func() ([]any, error) {
			rows, err := q.NamedQueryContext(ctx, query, arg)
			if err != nil {
				return nil, err
			}
			defer func() { _ = rows.Close() }()
			rows.Next()
			got, err := rows.SliceScan()
			return got, errors.Join(err, rows.Err(), rows.Close())
		}()
		check("NamedQueryContext", got, err)
		got, err = q.QueryRowxContext(ctx, query, arg).SliceScan()
		check("QueryRowxContext", got, err)
	}
	both(t.Context(), w)
	err := w.WithSession(t.Context(), func(tx *thole.Tx) error {
		both(t.Context(), tx)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func castsAreNoNames(t *testing.T, w *world) {
	if w.Engine() == thole.Postgres {
		w.echo(t, "select '1'::int + :id::int, (:id::text || 'a')::text", named{"id": "2"}, "3", "2a")
		return
	}
	_, err := w.NamedExecContext(t.Context(), "select :id::int", named{"id": 1})
	if err == nil || !strings.Contains(err.Error(), `":"`) {
		t.Errorf("got error %v, want SQLite's own, which has no casts of this form", err)
	}
	w.echo(t, "select cast('1' as int) + cast(:id as int)", named{"id": "2"}, "3")
}

func literalsAreUntouched(t *testing.T, w *world) {
	arg := named{"a": "x"}
	w.echo(t, `select '12:30:00', 'http://x', '{"k": 1}', 1 as ":a", -- note: fix :b
		/* a:b */ cast(:a as text)`, arg, "12:30:00", "http://x", `{"k": 1}`, "1", "x")
	if w.Engine() == thole.Postgres {
		w.echo(t, `select $$ :b $$, E'\':b', (array[1,2,3])[1:2]::text, (array[1,2,3])[:a::int]::text`, named{"a": "2"}, " :b ", "':b", "{1,2}", "2")
	}
}

func questionMarks(t *testing.T, w *world) {
	one := func(want string, query string, args ...any) {
		t.Helper()
		got, err := thole.One[string](t.Context(), w, query, args...)
		if err != nil || got != want {
			t.Errorf("%q: got %q and error %v, want %q", query, got, err, want)
		}
	}
	one("?1", `select '?' || cast(? as text) -- ?
		/* ? */`, "1")
	if w.Engine() != thole.Postgres {
		return
	}
	one("true", `select (a ?? 'k' and a ?| array[?] and a ?& array[?] and a @? '$.k' and $$?$$ = '?')::text from (select '{"k": 1}'::jsonb as a) as b`, "k", "k")
	one("true", `select ('{"k": 1}'::jsonb ? $1)::text`, "k")
	w.echo(t, `select ('{"k": 1}'::jsonb ? :k)::text, ('{"k": 1}'::jsonb ?? :k)::text`, named{"k": "k"}, "true", "true")
}

func namesEndWhereWordsDo(t *testing.T, w *world) {
	w.echo(t, "select cast(:größe as text), cast(:a as text), cast(:名 as text), cast(:a_ as text)", named{"a": "1", "a_": "2", "größe": "3", "名": "4"}, "3", "1", "4", "2")
	w.echo(t, "select 1 where 'x' = :a_", named{"a": 1, "a_": "x"}, "1")
	type inner struct{ City string }
	w.echo(t, "select cast(:home.city as text), cast(:m.a as text)", named{"home": inner{"x"}, "m": named{"a": "y"}}, "x", "y")
	type outer struct {
		Home  *inner
		Other *inner
		inner
	}
	w.echo(t, "select cast(:home.city as text), coalesce(cast(:other.city as text), 'none'), cast(:city as text)", &outer{Home: &inner{"x"}, inner: inner{"z"}}, "x", "none", "z")
	w.echo(t, "select cast(:a as text), cast(:b as text)", outerNames{A: "1"}, "1", "2")
	got, err := thole.One[string](t.Context(), w, "select cast(:a as text) || cast(:b as text)", sql.Named("b", "2"), sql.Named("a", "1"))
	if err != nil || got != "12" {
		t.Errorf("sql.Named: got %q and error %v, want 12", got, err)
	}
}

// outerNames has a field that is not a column by its tag, and one with a value
// of its own.
type outerNames struct {
	A string `db:"a"`
	B two
	C string `db:"-"`
}

type two struct{}

func (two) Value() (driver.Value, error) { return "2", nil }

func rowsOfValues(t *testing.T, w *world) {
	type item struct {
		ID   int
		Name string
	}
	add := func(query string, arg any) error {
		_, err := w.NamedExecContext(t.Context(), query, arg)
		return err
	}
	for name, run := range map[string]error{
		"structs":  add("insert into item (id, name) values (:id, :name)", []item{{1, "a"}, {2, "b"}}),
		"pointers": add("insert into item (id, name) values\n(:id, ')' || :name) on conflict do nothing", []*item{{3, "c"}, {4, "d"}}),
		"maps":     add("insert into item values (:id, :name, null)", []named{{"id": 5, "name": "e"}}),
	} {
		if run != nil {
			t.Errorf("%s: %v", name, run)
		}
	}
	w.wantItems(t, 1, 2, 3, 4, 5)
	for query, want := range map[string]string{
		"insert into item (id, name) values (:id, :name) on conflict (id) do update set name = :name": ":name stands outside",
		"insert into item (id, name) values (:id, :name), (9, 'x')":                                   "one row in it",
		"update item set name = :name":                                                                "VALUES",
	} {
		err := add(query, []item{{6, "f"}, {7, "g"}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got error %v, want %q", query, err, want)
		}
	}
	if err := add("insert into item (id, name) values (:id, :name)", []item{}); err == nil || !strings.Contains(err.Error(), "no elements") {
		t.Errorf("got error %v for no elements, want one", err)
	}
	w.wantItems(t, 1, 2, 3, 4, 5)
	if err := add("insert into item (id, name) values (:id, :name) on conflict (id) do update set name = :name", item{1, "z"}); err != nil {
		t.Errorf("got error %v, want one row to be updated", err)
	}
	if got := w.value(t, "select name from item where id = 1"); got != "z" {
		t.Errorf("got %q, want what the row was updated to", got)
	}
}

func listsInParentheses(t *testing.T, w *world) {
	for id := range 5 {
		if err := insert(t.Context(), w, id); err != nil {
			t.Fatal(err)
		}
	}
	type kind string
	pointer := &[]int{1, 2}
	for _, c := range []struct {
		query string
		args  []any
		want  []int
	}{
		{"select id from item where id in (?) order by id", []any{[]int{1, 3, 9}}, []int{1, 3}},
		{"select id from item where id not in (?) order by id", []any{[]int64{1, 3}}, []int{0, 2, 4}},
		{"select id from item where id > ? and id IN ( ? ) and name <> ? order by id", []any{1, []int{1, 2, 3}, "item d"}, []int{2}},
		{"select id from item where id in ($2) and id <> $1 order by id", []any{3, []int{1, 3}}, []int{1}},
		{"select id from item where id in (:ids) and id <> :id order by id", []any{named{"ids": []int{1, 3}, "id": 3}}, []int{1}},
		{"select id from item where name in (?) order by id", []any{[]string{"item a", `item b`, `"},{\`}}, []int{0, 1}},
		{"select id from item where name in (?) order by id", []any{[]kind{"item a"}}, []int{0}},
		{"select id from item where name not in (?) order by id", []any{[]any{"item a", "item b"}}, []int{2, 3, 4}},
		{"select id from item where id in (?) order by id", []any{pointer}, []int{1, 2}},
		{"select id from item where id in (?) order by id", []any{[]int{}}, []int{}},
		{"select id from item where id not in (?) order by id", []any{[]int{}}, []int{0, 1, 2, 3, 4}},
		{"select id from item where name in (?) order by id", []any{[]string{}}, []int{}},
		{"select id from item where id in (?) order by id", []any{2}, []int{2}},
		{"select id from item where name = '?' or id in (?) order by id", []any{[]int{2}}, []int{2}},
		{"select id from item where id in (?, ?) order by id", []any{1, 2}, []int{1, 2}},
	} {
		got, err := thole.All[int](t.Context(), w, c.query, c.args...)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%q with %T: got %v and error %v, want %v", c.query, c.args[len(c.args)-1], got, err, c.want)
		}
	}
}

func slicesThatAreValues(t *testing.T, w *world) {
	as := func(t string) string {
		if w.Engine() == thole.Postgres {
			return "::" + t
		}
		return ""
	}
	for _, value := range []any{json.RawMessage(`{"a":1}`), net.IPv4(1, 2, 3, 4), []byte("ab"), thole.JSON[[]int]{V: []int{1}}, thole.Array[int]{1, 2}} {
		query, text := "select count(*) from (select 1) as a where ?"+as("bytea")+" in (?)", value
		switch value.(type) {
		case json.RawMessage, thole.JSON[[]int]:
			query = "select count(*) from (select 1) as a where ?" + as("jsonb") + " in (?)"
		case thole.Array[int]:
			query = "select count(*) from (select 1) as a where ?" + as("int[]") + " in (?)"
		case net.IP:
			query = "select count(*) from (select 1) as a where ?" + as("inet") + " in (?)"
		}
		got, err := thole.One[int](t.Context(), w, query, text, value)
		if err != nil || got != 1 {
			t.Errorf("%T: got %d and error %v, want one value that is equal to itself", value, got, err)
		}
	}
	// Anywhere else a slice is one value, which SQLite has not.
	_, err := thole.One[int](t.Context(), w, "select count(*) from item where ?"+as("int[]")+" is null", []int{1})
	if (err == nil) != (w.Engine() == thole.Postgres) || err != nil && !strings.Contains(err.Error(), "thole.Array") {
		t.Errorf("got error %v for a slice as a value; SQLite's says what to use", err)
	}
}

func tooManyParameters(t *testing.T, w *world) {
	most := map[thole.Engine]int{thole.Postgres: 65535, thole.SQLite: 32766}[w.Engine()]
	marks := strings.Repeat("?, ", most)
	for name, run := range map[string]func() error{
		"marks": func() error {
			_, err := w.ExecContext(t.Context(), "select "+marks+"?", make([]any, most+1)...)
			return err
		},
		"rows": func() error {
			_, err := w.NamedExecContext(t.Context(), "insert into item (id, name) values (:id, :name)", make([]struct {
				ID   int
				Name string
			}, most/2+1))
			return err
		},
	} {
		var told *thole.Error
		if err := run(); !errors.As(err, &told) || told.Code != "" || !strings.Contains(err.Error(), fmt.Sprint(most)) {
			t.Errorf("%s: got error %v, want one before anything is sent", name, err)
		}
	}
	_, err := thole.All[int](t.Context(), w, "select id from item where id in (?)", make([]int, most+1))
	if (err == nil) != (w.Engine() == thole.Postgres) { // to which the list is one
		t.Errorf("a list of %d: got error %v", most+1, err)
	}
}

func nothingToBind(t *testing.T, w *world) {
	type holder struct{ A int }
	for name, arg := range map[string]any{
		"nil": nil, "nil pointer": (*holder)(nil), "nil map": named(nil), "number": 1, "missing": named{"b": 1}, "struct": struct{ B int }{},
		"element": []*holder{nil}, "elements": []int{1},
	} {
		var told *thole.Error
		if _, err := w.NamedExecContext(t.Context(), "insert into item (id) values (:a)", arg); !errors.As(err, &told) {
			t.Errorf("%s: got error %v, want a typed one", name, err)
		}
		if _, err := w.NamedQueryContext(t.Context(), "select :a", arg); !errors.As(err, &told) { //nolint:sqlclosecheck,rowserrcheck // there are none
			t.Errorf("%s: got error %v, want a typed one", name, err)
		}
	}
	for name, args := range map[string][]any{"none": nil, "two": {1, 2}, "nil pointer": {(*holder)(nil), 1}} {
		var told *thole.Error
		if _, err := w.ExecContext(t.Context(), "select ?", args...); !errors.As(err, &told) || !strings.Contains(err.Error(), "1 arguments") {
			t.Errorf("%s: got error %v, want one that counts the arguments", name, err)
		}
		if err := w.QueryRowContext(t.Context(), "select ?", args...).Scan(new(any)); !errors.As(err, &told) {
			t.Errorf("%s: got error %v of the row, want the same", name, err)
		}
	}
	var got *string
	if err := w.GetContext(t.Context(), &got, "select cast(? as text)", nil); err != nil || got != nil {
		t.Errorf("got %v and error %v for nil, want NULL", got, err)
	}
	if err := w.GetContext(t.Context(), &got, "select cast(? as text)", (*string)(nil)); err != nil || got != nil {
		t.Errorf("got %v and error %v for a nil pointer, want NULL", got, err)
	}
}

func valuesAreNotTold(t *testing.T, w *world) {
	const secret = "s3cr3t"
	w.exec(t, "insert into item (id, name) values (1, '"+secret+"')")
	var row struct {
		Name int `db:"name"`
	}
	for name, err := range map[string]error{
		"missing":  errOf(w.NamedExecContext(t.Context(), "select :a", named{"b": secret})),
		"count":    errOf(w.ExecContext(t.Context(), "select ?", secret, secret)),
		"type":     errOf(w.ExecContext(t.Context(), "select ?", struct{ a string }{secret})),
		"unique":   errOf(w.NamedExecContext(t.Context(), "insert into item (id, name) values (:a, :b)", named{"a": 2, "b": secret})),
		"element":  errOf(w.NamedExecContext(t.Context(), "insert into item (id, name) values (:a, :b)", []any{named{"a": 2, "b": secret}, secret})),
		"list":     errOf(w.ExecContext(t.Context(), "select 1 where 1 in (?)", []any{struct{ a string }{secret}})),
		"read":     w.GetContext(t.Context(), &row, "select name from item"),
		"read one": w.GetContext(t.Context(), new(int), "select name from item"),
	} {
		if err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: got error %v, want one that doesn't tell a value", name, err)
		}
	}
	casts := []string{"select json_extract('{}', ?)", "select '{}' -> cast(? as text) ->> json(?)"}
	if w.Engine() == thole.Postgres {
		casts = casts[:0]
		for _, name := range []string{
			"regoper", "regproc", "regclass", "regtype", "regrole", "int", "date", "interval", "inet", "uuid", "jsonb", "jsonpath", "tsquery", "int[]", "point", "oid",
		} {
			casts = append(casts, "select ?::text::"+name)
		}
	}
	for _, query := range casts {
		for _, secret := range []string{"(" + secret, secret + ".x", "{" + secret} {
			err := w.QueryRowContext(t.Context(), query, slices.Repeat([]any{secret}, strings.Count(query, "?"))...).Scan(new(any))
			if err != nil && strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("%q: got error %v, want one that doesn't tell the argument", query, err)
			}
		}
	}
}

func errOf[T any](_ T, err error) error { return err }

func sameTextOnBoth(t *testing.T, w *world) {
	for _, query := range []string{"select cast(? as text), cast(? as text)", "select cast($1 as text), cast($2 as text)", "select cast(?1 as text), cast(?2 as text)"} {
		got, err := thole.One[map[string]any](t.Context(), w, strings.Replace(query, "text),", "text) as a,", 1)+" as b", "x", "y")
		if diff := cmp.Diff(map[string]any{"a": "x", "b": "y"}, got); err != nil || diff != "" {
			t.Errorf("%q: error %v (-want +got):\n%s", query, err, diff)
		}
	}
	w.echo(t, "select cast(:a as text), cast(:b as text)", named{"a": "x", "b": "y"}, "x", "y")
	for _, mixed := range []string{"select $1, :id", "select :id, ?1"} {
		if _, err := w.ExecContext(t.Context(), mixed, named{"id": 1}); err == nil || !strings.Contains(err.Error(), "name all of them, or none") {
			t.Errorf("%q: got error %v, want one about mixed placeholders", mixed, err)
		}
	}
}

func namesThatAreNotClear(t *testing.T, w *world) {
	type left struct{ Same int }
	type right struct{ Same int }
	type both struct {
		left
		right
	}
	_, err := w.NamedExecContext(t.Context(), "select :same", both{})
	if err == nil || !strings.Contains(err.Error(), "more than one field") {
		t.Errorf("got error %v, want one for a name that two fields have", err)
	}
	if err := w.GetContext(t.Context(), new(both), "select 1 as same"); err == nil || !strings.Contains(err.Error(), "more than one field") {
		t.Errorf("got error %v, want one for a column that two fields have", err)
	}
	w.echo(t, "select cast(:a as text), cast(:a as text)", named{"a": "x"}, "x", "x")
}

func columnsWithoutField(t *testing.T, w *world) {
	type item struct {
		ID    int
		Other string
	}
	w.exec(t, "insert into item (id, name) values (1, 'a')")
	_, err := thole.All[item](t.Context(), w, "select id, name from item")
	if err == nil || !strings.Contains(err.Error(), `"name"`) || !strings.Contains(err.Error(), "item") {
		t.Errorf("got error %v, want one that names the column and the type", err)
	}
	got := item{Other: "kept"}
	if err := w.GetContext(t.Context(), &got, "select id from item"); err != nil || got != (item{1, "kept"}) {
		t.Errorf("got %v and error %v, want a field without a column as it was", got, err)
	}
}

// textsAreReadOnce runs many texts, of which not all can be kept, and one that
// is long. That reading takes linear time is sqltext's to test.
func textsAreReadOnce(t *testing.T, w *world) {
	for i := range 1100 {
		got, err := thole.One[int](t.Context(), w, fmt.Sprintf("select %d + cast(:a as int)", i), named{"a": 1})
		if err != nil || got != i+1 {
			t.Fatalf("got %d and error %v, want %d", got, err, i+1)
		}
	}
	long := "select 1 /*" + strings.Repeat(" :a ", 10000) + "*/ + cast(? as int)"
	if got, err := thole.One[int](t.Context(), w, long, 1); err != nil || got != 2 {
		t.Errorf("got %d and error %v, want 2", got, err)
	}
}

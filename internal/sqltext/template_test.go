package sqltext

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestNames has what sqlx gets wrong: a colon that begins no name, and a name
// that ends where a word does.
func TestNames(t *testing.T) {
	t.Parallel()
	both := []Dialect{SQLite, Postgres}
	for _, test := range []struct {
		name     string
		dialects []Dialect
		query    string
		want     string // with $ for the mark of either engine
		names    string
	}{
		{"one", both, "a = :a", "a = $1", "a"},
		{"again", both, ":b, :a, :b", "$1, $2, $1", "b a"},
		{"cast before", []Dialect{Postgres}, "x::int = :id", "x::int = $1", "id"},
		{"cast behind", both, ":id::int", "$1::int", "id"},
		{"underscore at the end", both, "a = :a_", "a = $1", "a_"},
		{"Unicode", both, ":größe, :名", "$1, $2", "größe 名"},
		{"outer and inner", both, ":a.b.c, :a . b", "$1, $2 . b", "a.b.c a"},
		{"behind a name", both, ":a.5", "$1.5", "a"},
		{"strings", both, `'12:30:00', 'http://x', '{"k": 1}', ":a", :b`, `'12:30:00', 'http://x', '{"k": 1}', ":a", $1`, "b"},
		{"comments", both, "-- note: fix :a\n /* a:b */ :c", "-- note: fix :a\n /* a:b */ $1", "c"},
		{"dollar quotes", []Dialect{Postgres}, "$$ :a $$, $t$:b$t$, :c", "$$ :a $$, $t$:b$t$, $1", "c"},
		{"escapes", []Dialect{Postgres}, `E'\':a', :b`, `E'\':a', $1`, "b"},
		{"slices", []Dialect{Postgres}, "arr[1:2], arr[:a::b], arr[1: n]", "arr[1:2], arr[$1::b], arr[1: n]", "a"},
		{"operators", []Dialect{Postgres}, "a ? :k and b ?| :l and c ?& :m and d @? :n and e ?? :o", "a ? $1 and b ?| $2 and c ?& $3 and d @? $4 and e ? $5", "k l m n o"},
		{"assignment", []Dialect{Postgres}, "f(a := :b)", "f(a := $1)", "b"},
		{"word in front", []Dialect{Postgres}, "limit:n", "limit $1", "n"},
		{"none", both, "a = ?", "", ""},
		{"in a list that isn't one", both, "a in (:a, :b) and b in (select :c)", "a in ($1, $2) and b in (select $3)", "a b c"},
	} {
		for _, d := range test.dialects {
			got, err := Parse(d, test.query, true)
			if err != nil {
				t.Errorf("%s: Parse(%q): %v", test.name, test.query, err)
				continue
			}
			if diff := cmp.Diff(strings.Fields(test.names), got.Names, cmp.Transformer("", func(s []string) string { return strings.Join(s, " ") })); diff != "" {
				t.Errorf("%s: names of %q (-want +got):\n%s", test.name, test.query, diff)
			}
			if want := inDialect(d, test.want); test.names != "" && got.Text != want {
				t.Errorf("%s: dialect %d: Parse(%q) = %q, want %q", test.name, d, test.query, got.Text, want)
			}
		}
	}
}

// inDialect writes $1 as the dialect does. Of the texts here, other dollars
// stand in PostgreSQL's alone.
func inDialect(d Dialect, text string) string {
	if d == SQLite {
		return strings.ReplaceAll(text, "$", "?")
	}
	return text
}

func TestNamesMixed(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		dialect Dialect
		query   string
	}{
		{SQLite, ":a, ?"},
		{SQLite, ":a, ?1"},
		{SQLite, ":a, $1"},
		{SQLite, ":a, @b"},
		{SQLite, ":a, $b"},
		{Postgres, ":a, $1"},
		{Postgres, ":a = ?1"},
	} {
		if got, err := Parse(test.dialect, test.query, true); err == nil {
			t.Errorf("dialect %d: Parse(%q) = %q, want an error", test.dialect, test.query, got.Text)
		}
	}
}

func TestLists(t *testing.T) {
	t.Parallel()
	list := map[int]int{1: 3}
	for _, test := range []struct {
		dialect Dialect
		query   string
		lists   map[int]int
		want    string
		args    string
	}{
		{SQLite, "a = ? and b in (?) and c = ?", list, "a = ? and b in (?, ?, ?) and c = ?", "0 1.0 1.1 1.2 2"},
		{SQLite, "a = :a and b not in ( :b /* - */ ) and c = :a", list, "a = ?1 and b not in ( ?2, ?3, ?4 /* - */ ) and c = ?1", "0 1.0 1.1 1.2"},
		{SQLite, "b in ($2) and a = $1 and c = $2", list, "b in (?1, ?2, ?3) and a = ?4 and c = ?5", "1.0 1.1 1.2 0 1"},
		{SQLite, "a = ?1 or b in (?2) or c in (?2)", list, "a = ?1 or b in (?2, ?3, ?4) or c in (?5, ?6, ?7)", "0 1.0 1.1 1.2 1.0 1.1 1.2"},
		{SQLite, "a = ? and b in (?)", map[int]int{1: 0}, "a = ? and b in ()", "0"},
		{SQLite, "a = ? and b in (?)", nil, "a = ? and b in (?)", "0 1"},
		{Postgres, "a = ? and b in (?) and c = ?", list, "a = $1 and b = ANY ($2) and c = $3", "0 1 2"},
		{Postgres, "a = ? and b Not\n--x\nIN\t(?)", list, "a = $1 and b <> ALL ($2)", "0 1"},
		{Postgres, "a = :a and b in (:b) and c = :a", list, "a = $1 and b = ANY ($2) and c = $1", "0 1"},
		{Postgres, "a = $1 and b in ($2)", list, "a = $1 and b = ANY ($2)", "0 1"},
		{Postgres, "a = ? and b in (?)", map[int]int{1: 0}, "a = $1 and b = ANY ($2)", "0 1"},
		{Postgres, "a = ? and b in (?)", nil, "a = $1 and b in ($2)", "0 1"},
		{Postgres, "a = ? and b in(?)", nil, "a = $1 and b in($2)", "0 1"},
	} {
		tmpl, err := Parse(test.dialect, test.query, strings.Contains(test.query, ":"))
		if err != nil {
			t.Errorf("Parse(%q): %v", test.query, err)
			continue
		}
		if _, _, err := tmpl.With(map[int]int{1: 40000}); test.dialect == SQLite && err == nil {
			t.Errorf("%q with 40,000 elements: got no error", test.query)
		}
		if !slices.Contains(tmpl.Lists(), 1) || slices.Contains(tmpl.Lists(), 0) {
			t.Errorf("lists of %q: got %v, want parameter 1 among them", test.query, tmpl.Lists())
		}
		text, args, err := tmpl.With(test.lists)
		if err != nil {
			t.Errorf("%q with %v: %v", test.query, test.lists, err)
		}
		var told []string
		for _, arg := range args {
			name := string(rune('0' + arg.Param))
			if !arg.IsWhole() {
				name += "." + string(rune('0'+arg.Element))
			}
			told = append(told, name)
		}
		if text != test.want || strings.Join(told, " ") != test.args {
			t.Errorf("dialect %d: %q with %v: got %q and arguments %v, want %q and %v", test.dialect, test.query, test.lists, text, told, test.want, test.args)
		}
	}
}

func TestNoLists(t *testing.T) {
	t.Parallel()
	for _, query := range []string{
		"a = ?", "a in (?, ?)", "a in ((?))", "a in (?) + 1 in (?, 2)", "'in' (?)", `"in" (?)`, "a in (lower(?))", "f(?)", "a like ?", "in (",
	} {
		for _, d := range []Dialect{SQLite, Postgres} {
			tmpl, err := Parse(d, query, false)
			if err != nil {
				t.Errorf("Parse(%q): %v", query, err)
				continue
			}
			if want := strings.Count(query, " in (?)"); len(tmpl.Lists()) != want {
				t.Errorf("lists of %q: got %v, want %d", query, tmpl.Lists(), want)
			}
		}
	}
}

func TestRows(t *testing.T) {
	t.Parallel()
	const limit = 40000
	for _, test := range []struct {
		query string
		want  string // of two rows
		fails string
	}{
		{"insert into t (a, b) values (:a, :b)", "insert into t (a, b) values ($1, $2), ($3, $4)", ""},
		{"insert into t VALUES\n(:id, ')') on conflict do nothing", "insert into t VALUES\n($1, ')'), ($2, ')') on conflict do nothing", ""},
		{"insert into t values (:a, f(:b, (:a))) returning (a)", "insert into t values ($1, f($2, ($1))), ($3, f($4, ($3))) returning (a)", ""},
		{"insert into t (values) values (:a)", "insert into t (values) values ($1), ($2)", ""},
		{"insert into t values (:a in (:b))", "insert into t values ($1 in ($2)), ($3 in ($4))", ""},
		{"with x (c) as (values (1)) insert into t values (:a)", "with x (c) as (values (1)) insert into t values ($1), ($2)", ""},
		{"insert into t values (:id) on conflict (id) do update set a = :id", "", ":id stands outside"},
		{"update t set a = :a", "", "need a VALUES"},
		{"insert into t values (:a), (9)", "", "one row in it"},
		{"insert into t values (:a), (:b)", "", "one row in it"},
		{"insert into t select :a", "", "need a VALUES"},
		{"insert into t values :a", "", "need a VALUES"},
	} {
		for _, d := range []Dialect{SQLite, Postgres} {
			tmpl, err := Parse(d, test.query, true)
			if err != nil {
				t.Errorf("Parse(%q): %v", test.query, err)
				continue
			}
			got, err := tmpl.WithRows(2)
			if test.fails != "" {
				if err == nil || !strings.Contains(err.Error(), test.fails) {
					t.Errorf("rows of %q: got %q and error %v, want %q", test.query, got, err, test.fails)
				}
				continue
			}
			if want := inDialect(d, test.want); err != nil || got != want {
				t.Errorf("dialect %d: rows of %q: got %q and error %v, want %q", d, test.query, got, err, want)
			}
			if _, err := tmpl.WithRows(limit); len(tmpl.Names) > 1 && err == nil {
				t.Errorf("dialect %d: %d rows of %q: got no error", d, limit, test.query)
			}
		}
	}
}

// TestLongName reads a name that quadratic time would be too much for.
func TestLongName(t *testing.T) {
	t.Parallel()
	tmpl, err := Parse(SQLite, "select :a"+strings.Repeat(".a", 250_000), true)
	if err != nil || len(tmpl.Names) != 1 {
		t.Errorf("got %d names and error %v, want one", len(tmpl.Names), err)
	}
}

// FuzzTemplate looks at what stands in the text but for the parameters: it is
// what stood in the query.
func FuzzTemplate(f *testing.F) {
	f.Fuzz(func(t *testing.T, query string, elements uint8) {
		for _, d := range []Dialect{SQLite, Postgres} {
			tmpl, err := Parse(d, query, true)
			if err != nil || d == Postgres && escapedNumber.MatchString(query) {
				continue
			}
			if d == SQLite && strings.Contains(query, "::") { // is nothing there but a part of a variable of its own
				continue
			}
			if tmpl.Names != nil && !strings.Contains(query, "\v") { // is a blank only behind another on SQLite
				sameTokens(t, d, query, tmpl.Text)
			}
			lists := map[int]int{}
			for _, param := range tmpl.Lists() {
				lists[param] = int(elements)
			}
			text, args, err := tmpl.With(lists)
			if err == nil && len(lists) > 0 && d == SQLite {
				again, err := Parse(d, text, false)
				if err == nil && again.Params != len(args) {
					t.Fatalf("%q with lists: %q takes %d arguments, and has %d", query, text, again.Params, len(args))
				}
			}
			if len(query) < 1000 && tmpl.Names != nil {
				_, _ = tmpl.WithRows(int(elements))
			}
		}
	})
}

// sameTokens puts parameters in the place of the names by the simplest means,
// and compares what there is then.
func sameTokens(t *testing.T, d Dialect, query, text string) {
	t.Helper()
	var plain strings.Builder
	inside := false // of a name with dots
	l := lexer{dialect: d, query: query, names: true}
	tokens := slices.Collect(l.yield)
	for i, tok := range tokens {
		switch {
		case tok.Kind == Named && tok.Text[0] == ':':
			plain.WriteString(map[Dialect]string{SQLite: " ?1 ", Postgres: " $1 "}[d])
			inside = true
		case inside && tok.Text == "." && i+1 < len(tokens) && tokens[i+1].Kind == Word:
		case inside && tok.Kind == Word && tokens[i-1].Text == ".":
		case tok.Kind == Escape:
			plain.WriteByte('?')
			inside = false
		default:
			plain.WriteString(tok.Text)
			inside = false
		}
	}
	before, after := skeleton(d, plain.String(), d == Postgres), skeleton(d, text, d == Postgres)
	if !slices.Equal(before, after) {
		t.Fatalf("dialect %d: %q rewritten as %q (-before +after):\n%s", d, query, text, cmp.Diff(before, after))
	}
}

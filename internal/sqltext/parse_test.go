package sqltext

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParsePostgres(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, query, want string
		params            int
	}{
		{"none", "select 1", "select 1", 0},
		{"marks", "values (?, ?)", "values ($1, $2)", 2},
		{"ten marks", "?,?,?,?,?,?,?,?,?,?", "$1,$2,$3,$4,$5,$6,$7,$8,$9,$10", 10},
		{"numbered", "values (?2, ?1, ?2)", "values ($2, $1, $2)", 2},
		{"positional", "values ($2, $1)", "values ($2, $1)", 2},
		{"operators beside positional", "a ? $1 and b ?? c and d=?", "a ? $1 and b ?? c and d=?", 1},
		{"operators", "a ?| ? and b ?& ? and c @? ?", "a ?| $1 and b ?& $2 and c @? $3", 3},
		{"escapes", "a ?? ? and b ??| ? and c ??& ?", "a ? $1 and b ?| $2 and c ?& $3", 3},
		{"escape without a parameter", "a ?? 'b'", "a ? 'b'", 0},
		{"escaped path", "a @?? ?", "a @? $1", 1},
		{"operator without a parameter", "a ?| b", "a ?| b", 0},
		{"concatenation", "'%'||?||'%'", "'%'||$1||'%'", 1},
		{"cast", "?::int-?", "$1::int-$2", 2},
		{"literals", `'?', "?", $$?$$, E'\'?' --?`, `'?', "?", $$?$$, E'\'?' --?`, 0},
		{"word in front", "limit?", "limit $1", 1},
		{"word behind", "select ?as a", "select $1 as a", 1},
		{"word behind a number", "select ?1as a", "select $1 as a", 1},
		{"dollar in front", "$?", "$ $1", 1},
		{"numbered side by side", "?1?1", "$1 $1", 1},
		{"dollar quotes behind", "?$$?$$", "$1$$?$$", 1},
		{"named", "a=:a", "a=:a", 0},
		{"highest number", "?65535", "$65535", 65535},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			testParse(t, Postgres, test.query, parsed{test.want, test.params})
		})
	}
}

func TestParseSQLite(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, query, want string
		params            int
	}{
		{"none", "select 1", "select 1", 0},
		{"marks", "values (?, ?)", "values (?, ?)", 2},
		{"marks side by side", "a ?? b", "a ?? b", 2},
		{"numbered", "values (?2, ?1)", "values (?2, ?1)", 2},
		{"positional", "values ($2, $1, $2)", "values (?2, ?1, ?2)", 2},
		{"named", "values ($a, @b, :c, $1a)", "values ($a, @b, :c, $1a)", 0},
		{"literals", `'$1', "?", [?], --$1`, `'$1', "?", [?], --$1`, 0},
		{"dollar in a name", "a$1", "a$1", 0},
		{"highest number", "$32766", "?32766", 32766},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			testParse(t, SQLite, test.query, parsed{test.want, test.params})
		})
	}
}

// parsed is what a query becomes.
type parsed struct {
	Text   string
	Params int
}

func testParse(t *testing.T, d Dialect, query string, want parsed) {
	t.Helper()
	got, err := Parse(d, query, false)
	if err != nil {
		t.Fatalf("Parse(%q): %v", query, err)
	}
	if diff := cmp.Diff(want, parsed{got.Text, got.Params}); diff != "" {
		t.Errorf("Parse(%q) (-want +got):\n%s", query, diff)
	}
}

func TestParseErrors(t *testing.T) {
	t.Parallel()
	const mixed = "placeholders of more than one of the forms ?, ?1 and $1 in one query: write one form"
	for _, test := range []struct {
		name    string
		dialect Dialect
		query   string
		want    string
	}{
		{"mark and numbered", Postgres, "'secret', ?, ?1", mixed},
		{"mark and numbered on SQLite", SQLite, "'secret', ?, ?1", mixed},
		{"mark and positional on SQLite", SQLite, "?, $1", mixed},
		{"numbered and positional on SQLite", SQLite, "?1, $1", mixed},
		{"zero", Postgres, "a=$0", "parameter at byte 2: its number is not between 1 and 65535"},
		{"zero on SQLite", SQLite, "a=?0", "parameter at byte 2: its number is not between 1 and 32766"},
		{"high", Postgres, "?65536", "parameter at byte 0: its number is not between 1 and 65535"},
		{"high on SQLite", SQLite, "$32767", "parameter at byte 0: its number is not between 1 and 32766"},
		{"overflow", Postgres, "$99999999999999999999", "parameter at byte 0: its number is not between 1 and 65535"},
		{"many", Postgres, strings.Repeat("?,", 65536), "65536 placeholders in one query: the most is 65535"},
		{"many on SQLite", SQLite, strings.Repeat("?,", 32767), "32767 placeholders in one query: the most is 32766"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := Parse(test.dialect, test.query, false)
			if err == nil {
				t.Fatalf("Parse = %q, want an error", got.Text)
			}
			if err.Error() != test.want {
				t.Errorf("Parse: error %q, want %q", err, test.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Fuzz(func(t *testing.T, query string) {
		for _, d := range []Dialect{SQLite, Postgres} {
			got, err := Parse(d, query, false)
			if err != nil {
				continue
			}
			if limit := len(query) * len(" $65535 "); len(got.Text) > limit {
				t.Fatalf("dialect %d: %d bytes rewritten as %d", d, len(query), len(got.Text))
			}
			if d == Postgres && escapedNumber.MatchString(query) {
				continue
			}
			before := skeleton(d, query, d == Postgres && hasKind(d, query, Positional))
			after := skeleton(d, got.Text, d == Postgres)
			if !slices.Equal(before, after) {
				t.Fatalf("dialect %d: %q rewritten as %q (-before +after):\n%s", d, query, got.Text,
					cmp.Diff(before, after))
			}
			if got.Params > 0 {
				testParse(t, d, got.Text, parsed{got.Text, got.Params})
			}
		}
	})
}

// escapedNumber is what can't be compared: `??1` is rewritten as an operator and a number, which reads as `?1`.
var escapedNumber = regexp.MustCompile(`\?\?[0-9]`)

// skeleton returns the tokens of query with its parameters all alike, blanks left out, and operators that touch
// put together, as the ? of `??` may be a part of one. With operators, each ? is one, as beside $1.
func skeleton(d Dialect, query string, operators bool) []string {
	var out []string
	var prev Kind
	for tok := range d.Tokens(query) {
		switch {
		case tok.Kind == Escape && !operators:
			tok.Kind, tok.Text = Operator, "?"
		case operators && tok.Text[0] == '?':
			tok.Kind = Operator
		case tok.Kind == Mark || tok.Kind == Numbered || tok.Kind == Positional:
			tok.Text = "parameter"
		}
		switch {
		case tok.Kind == Space:
		case tok.Kind == Operator && prev == Operator:
			out[len(out)-1] += tok.Text
		default:
			out = append(out, tok.Text)
		}
		prev = tok.Kind
	}
	return out
}

func hasKind(d Dialect, query string, kind Kind) bool {
	for tok := range d.Tokens(query) {
		if tok.Kind == kind {
			return true
		}
	}
	return false
}

func BenchmarkParse(b *testing.B) {
	query := "insert into a values " + strings.Repeat("(?, ?, ?), ", 100) + "(1, 2, 3)"
	b.SetBytes(int64(len(query)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(Postgres, query, false); err != nil {
			b.Fatal(err)
		}
	}
}

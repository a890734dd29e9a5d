package sqltext_test

import (
	"strings"
	"testing"

	"github.com/tholedb/thole/internal/sqltext"
)

func TestFingerprint(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ query, want string }{
		{"SELECT  a\n FROM T -- all\nWHERE b=1", "select a from t where b = ?"},
		{"select a from t where b = 'x'", "select a from t where b = ?"},
		{"select a from t where b = $1", "select a from t where b = ?"},
		{"select count(*) from t where id in (1, 2, 3)", "select count(*) from t where id in (?)"},
		{"select count(*) from t where id in ($1,$2)", "select count(*) from t where id in (?)"},
		{`select "A", s.t from s`, `select "A", s.t from s`},
		{"insert into t (a, b) values (1, 'x'), (2, 'y')", "insert into t (a, b) values (?)"},
		{"insert into t values (1, now()), (2, now())", "insert into t values (?, now()), (?, now())"},
		{"select 1; select 2", "select ?; select ?"},
		{"", ""},
	} {
		for _, d := range []sqltext.Dialect{sqltext.SQLite, sqltext.Postgres} {
			if got := sqltext.Fingerprint(d, test.query); got != test.want {
				t.Errorf("%v: Fingerprint(%q): got %q, want %q", d, test.query, got, test.want)
			}
		}
	}
}

// FuzzFingerprint: whatever the numbers are, the fingerprint is the same.
func FuzzFingerprint(f *testing.F) {
	for _, query := range []string{"select 1", "a in ('b', $1, ?, 5)", "values (1), (2)", `"a" -- b`, "U&'a' E'\\'", "1:a 1.2.3 f(1)(2)"} {
		f.Add(query)
	}
	f.Fuzz(func(t *testing.T, query string) {
		for _, d := range []sqltext.Dialect{sqltext.SQLite, sqltext.Postgres} {
			other := withNumbers(d, query, "7e1")
			if got, want := sqltext.Fingerprint(d, other), sqltext.Fingerprint(d, query); got != want {
				t.Errorf("%v: Fingerprint(%q): got %q, but %q for %q", d, other, got, want, query)
			}
		}
	})
}

// withNumbers is query with other numbers. A blank keeps what stands beside one from
// becoming part of it.
func withNumbers(d sqltext.Dialect, query, number string) string {
	var b strings.Builder
	replaced := false
	for tok := range d.Tokens(query) {
		if replaced && tok.Kind == sqltext.Word {
			b.WriteByte(' ')
		}
		if replaced = tok.Kind == sqltext.Number; replaced {
			b.WriteString(" " + number)
		} else {
			b.WriteString(tok.Text)
		}
	}
	return b.String()
}

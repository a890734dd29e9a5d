package sqltext

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var kindNames = map[Kind]string{
	Space: "space", Comment: "comment", Word: "word", QuotedName: "name", String: "string", Number: "number",
	Mark: "mark", Numbered: "numbered", Positional: "positional", Named: "named", Escape: "escape",
	Operator: "op", Punctuation: "punct",
}

// describe returns the tokens of query as "kind text", without the blanks.
func describe(d Dialect, query string) []string {
	var got []string
	for tok := range d.Tokens(query) {
		if tok.Kind != Space {
			got = append(got, kindNames[tok.Kind]+" "+tok.Text)
		}
	}
	return got
}

type tokensTest struct {
	name, query string
	want        []string
}

func testTokens(t *testing.T, d Dialect, tests []tokensTest) {
	t.Helper()
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(test.want, describe(d, test.query)); diff != "" {
				t.Errorf("Tokens(%q) (-want +got):\n%s", test.query, diff)
			}
		})
	}
}

// shared are the rules of both dialects.
var shared = []tokensTest{
	{"nothing", "", nil},
	{"blanks", " \t\r\n\f\v", nil},
	{"line comment", "a--b\nc", []string{"word a", "comment --b", "word c"}},
	{"line comment at the end", "a--b", []string{"word a", "comment --b"}},
	{"block comment", "a/*b*/c", []string{"word a", "comment /*b*/", "word c"}},
	{"block comment of a slash", "/*/ a", []string{"comment /*/ a"}},
	{"block comment of stars", "/***/a", []string{"comment /***/", "word a"}},
	{"open block comment", "a/*b;", []string{"word a", "comment /*b;"}},
	{"string", "'a''b'c", []string{"string 'a''b'", "word c"}},
	{"string with a backslash", `'a\'b`, []string{`string 'a\'`, "word b"}},
	{"open string", "'a''", []string{"string 'a''"}},
	{"quoted name", `"a""b"c`, []string{`name "a""b"`, "word c"}},
	{"open quoted name", `"a;`, []string{`name "a;`}},
	{"letters beyond ASCII", "größe=ñ", []string{"word größe", "op =", "word ñ"}},
	{"invalid UTF-8", "a\xff\xfe b", []string{"word a\xff\xfe", "word b"}},
	{"NUL", "a\x00b", []string{"word a", "punct \x00", "word b"}},
	{"dollar in a name", "a$b$1", []string{"word a$b$1"}},
	{"integer", "12 1_000", []string{"number 12", "number 1_000"}},
	{"hexadecimal", "0x1F+0X_a", []string{"number 0x1F", "op +", "number 0X_a"}},
	{"fraction", "1.5 .5 5. a.b", []string{"number 1.5", "number .5", "number 5.", "word a", "punct .", "word b"}},
	{"exponent", "1e5 1.5E-3 .5e+2", []string{"number 1e5", "number 1.5E-3", "number .5e+2"}},
	{"no exponent", "1e+", []string{"number 1", "word e", "op +"}},
	{"positional", "$1,$23", []string{"positional $1", "punct ,", "positional $23"}},
	{"lone dollar", "$ 1", []string{"punct $", "number 1"}},
	{"numbered", "?1 ?23", []string{"numbered ?1", "numbered ?23"}},
	{"numbers of parameters have no underscores", "?1_0", []string{"numbered ?1", "word _0"}},
	{"mark", "(?,?)", []string{"punct (", "mark ?", "punct ,", "mark ?", "punct )"}},
	{"named", "=:a_ :größe", []string{"op =", "named :a_", "named :größe"}},
	{"comment behind an operator", "1+--2", []string{"number 1", "op +", "comment --2"}},
	{"block comment behind an operator", "1+/*2*/3", []string{"number 1", "op +", "comment /*2*/", "number 3"}},
}

func TestTokensShared(t *testing.T) {
	t.Parallel()
	for name, d := range map[string]Dialect{"sqlite": SQLite, "postgres": Postgres} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testTokens(t, d, shared)
		})
	}
}

func TestTokensSQLite(t *testing.T) {
	t.Parallel()
	testTokens(t, SQLite, []tokensTest{
		{"comments don't nest", "/*/**/a", []string{"comment /*/**/", "word a"}},
		{"comment marks at the end", "a/*", []string{"word a", "op /", "op *"}},
		{"line comment ends at a newline only", "--a\rb\nc", []string{"comment --a\rb", "word c"}},
		{"byte order mark", "\ufeffa\ufeff", []string{"word a\ufeff"}},
		{"vertical tab behind no blank", "a\vb", []string{"word a", "punct \v", "word b"}},
		{"backquotes", "`a``b`c", []string{"name `a``b`", "word c"}},
		{"brackets", "[a[b]c", []string{"name [a[b]", "word c"}},
		{"open bracket", "[a;", []string{"name [a;"}},
		{"blob", "x'0a'X'0B'", []string{"string x'0a'", "string X'0B'"}},
		{"open blob", "x'0a", []string{"string x'0a"}},
		{"no escapes", `e'\'b`, []string{"word e", `string '\'`, "word b"}},
		{"no dollar quotes", "$$a$$", []string{"named $$a$$"}},
		{"names", "@a $a #a :1", []string{"named @a", "named $a", "named #a", "named :1"}},
		{"names that begin with a number", "$1a $1_0", []string{"named $1a", "named $1_0"}},
		{"names of Tcl", "$a::b(c;)d", []string{"named $a::b(c;)", "word d"}},
		{"names of Tcl end at a blank", "$a(b c)", []string{"named $a(b", "word c", "punct )"}},
		{"no names", "$(a @ :: :::", []string{"punct $", "punct (", "word a", "punct @", "punct :", "punct :", "punct :::"}},
		{"two marks", "a ??", []string{"word a", "mark ?", "mark ?"}},
		{"mark in front of an operator", "?|1", []string{"mark ?", "op |", "number 1"}},
		{"operators", "a->>'b'||c!=-d", []string{
			"word a", "op ->>", "string 'b'", "op ||", "word c", "op !=", "op -",
			"word d",
		}},
	})
}

func TestTokensPostgres(t *testing.T) {
	t.Parallel()
	testTokens(t, Postgres, []tokensTest{
		{"comments nest", "/*/*a*/b*/c", []string{"comment /*/*a*/b*/", "word c"}},
		{"line comment ends at a carriage return", "--a\rb", []string{"comment --a", "word b"}},
		{"byte order mark", "\ufeffa", []string{"word \ufeffa"}},
		{"escapes", `E'a\'b'c`, []string{`string E'a\'b'`, "word c"}},
		{"escaped backslash", `e'\\'c`, []string{`string e'\\'`, "word c"}},
		{"open escape", `E'a\`, []string{`string E'a\`}},
		{"e that ends a word", `like'\'c`, []string{"word like", `string '\'`, "word c"}},
		{"e behind a blank", `e '\'c`, []string{"word e", `string '\'`, "word c"}},
		{"continued escapes", "E'a'\n'\\''b", []string{"string E'a'", `string '\''`, "word b"}},
		{"twice continued escapes", "E'a'\n''\r'\\''b", []string{"string E'a'", "string ''", `string '\''`, "word b"}},
		{"escapes continued behind a comment", "E'a' -- '\n'\\''b", []string{
			"string E'a'", "comment -- '",
			`string '\''`, "word b",
		}},
		{"escapes not continued on the line", `E'a' '\'b`, []string{"string E'a'", `string '\'`, "word b"}},
		{"escapes not continued behind a block comment", "E'a'\n/**/'\\'b", []string{
			"string E'a'", "comment /**/",
			`string '\'`, "word b",
		}},
		{"escapes not continued behind a comma", "E'a',\n'\\'b", []string{
			"string E'a'", "punct ,", `string '\'`,
			"word b",
		}},
		{"escapes not continued behind another string", "E'a'\n,E'b' '\\'c", []string{
			"string E'a'", "punct ,",
			"string E'b'", `string '\'`, "word c",
		}},
		{"prefixed strings", `b'1'X'f'n'\'U&'\'`, []string{
			"string b'1'", "string X'f'", `string n'\'`,
			`string U&'\'`,
		}},
		{"prefixed name", `u&"a""b"c`, []string{`name u&"a""b"`, "word c"}},
		{"u and an operator", "u&a", []string{"word u", "op &", "word a"}},
		{"brackets", "a[1:2]", []string{"word a", "punct [", "number 1", "punct :", "number 2", "punct ]"}},
		{"slice of parameters", "arr[:a::b]", []string{"word arr", "punct [", "named :a", "op ::", "word b", "punct ]"}},
		{"dollar quotes", "$$a'$1$$b", []string{"string $$a'$1$$", "word b"}},
		{"dollar quotes with a tag", "$a$;$b$;$a$c", []string{"string $a$;$b$;$a$", "word c"}},
		{"dollar quotes with a tag beyond ASCII", "$ä1$;$ä1$c", []string{"string $ä1$;$ä1$", "word c"}},
		{"open dollar quotes", "$a$;$A$", []string{"string $a$;$A$"}},
		{"no dollar quotes in a name", "a$b$;", []string{"word a$b$", "punct ;"}},
		{"no tag begins with a digit", "$1$;$1$", []string{
			"positional $1", "punct $", "punct ;", "positional $1",
			"punct $",
		}},
		{"no tag", "$a ;$", []string{"punct $", "word a", "punct ;", "punct $"}},
		{"positional in front of a letter", "$1a", []string{"positional $1", "word a"}},
		{"casts", "x::int=:id::int", []string{"word x", "op ::", "word int", "op =", "named :id", "op ::", "word int"}},
		{"assignment", "a:=1", []string{"word a", "op :=", "number 1"}},
		{"range", "1..2", []string{"number 1", "op ..", "number 2"}},
		{"abs", "@a", []string{"op @", "word a"}},
		{"sign behind an operator", "a=-1", []string{"word a", "op =", "op -", "number 1"}},
		{"signs behind a sign", "a+-+1", []string{"word a", "op +", "op -", "op +", "number 1"}},
		{"operator that ends in a sign", "a@-b", []string{"word a", "op @-", "word b"}},
		{"comment within an operator", "a<=--b\n@>/**/c", []string{
			"word a", "op <=", "comment --b", "op @>",
			"comment /**/", "word c",
		}},
	})
}

func TestTokensPostgresQuestionMarks(t *testing.T) {
	t.Parallel()
	testTokens(t, Postgres, []tokensTest{
		{"behind an operator", "id=?", []string{"word id", "op =", "mark ?"}},
		{"behind a long operator", "a@>?", []string{"word a", "op @>", "mark ?"}},
		{"behind contained by", "a<@?", []string{"word a", "op <@", "mark ?"}},
		{"behind a sign", "-?", []string{"op -", "mark ?"}},
		{"in front of a sign", "(?-1)", []string{"punct (", "mark ?", "op -", "number 1", "punct )"}},
		{"in front of an operator", "?*2", []string{"mark ?", "op *", "number 2"}},
		{"in front of a cast", "?::int", []string{"mark ?", "op ::", "word int"}},
		{"between concatenations", "'%'||?||'%'", []string{"string '%'", "op ||", "mark ?", "op ||", "string '%'"}},
		{"in front of overlaps", "?&&a", []string{"mark ?", "op &&", "word a"}},
		{"or", "a=?|4", []string{"word a", "op =", "mark ?", "op |", "number 4"}},
		{"in front of a comment", "?--?", []string{"mark ?", "comment --?"}},
		{"any key", "a ?| b", []string{"word a", "op ?|", "word b"}},
		{"any key without blanks", "a?|array[b]", []string{
			"word a", "op ?|", "word array", "punct [", "word b",
			"punct ]",
		}},
		{"all keys", "a ?& b", []string{"word a", "op ?&", "word b"}},
		{"any key of a parameter", "a?|?", []string{"word a", "op ?|", "mark ?"}},
		{"any key and a comment", "a?|/**/b?&--", []string{
			"word a", "op ?|", "comment /**/", "word b", "op ?&",
			"comment --",
		}},
		{"any key at the end", "a?|", []string{"word a", "op ?|"}},
		{"path", "a @? b", []string{"word a", "op @?", "word b"}},
		{"path of a parameter", "a @? ?", []string{"word a", "op @?", "mark ?"}},
		{"search", "a @@?", []string{"word a", "op @@", "mark ?"}},
		{"escape", "a ?? b", []string{"word a", "escape ??", "word b"}},
		{"escape and a parameter", "a ???", []string{"word a", "escape ??", "mark ?"}},
		{"escaped any key", "a ??| b", []string{"word a", "escape ??", "op |", "word b"}},
		{"escaped path", "a @?? b", []string{"word a", "op @", "escape ??", "word b"}},
		{"key of a named parameter", "a ? :k", []string{"word a", "mark ?", "named :k"}},
		{"names in literals", `$$ :a $$ E'\':a'`, []string{"string $$ :a $$", `string E'\':a'`}},
		{"in literals", `'?' "?" $$?$$ E'\'?' --?`, []string{
			"string '?'", `name "?"`, "string $$?$$", `string E'\'?'`,
			"comment --?",
		}},
	})
}

// TestTokensUntouched has what sqlx takes for a parameter, K2 of the rules of sessions.
func TestTokensUntouched(t *testing.T) {
	t.Parallel()
	for name, d := range map[string]Dialect{"sqlite": SQLite, "postgres": Postgres} {
		for _, query := range []string{
			"'12:30:00'", "'http://x'", `'{"k": 1}'`, "-- note: fix", "/* a:b */", `":a"`, "'?'", "--?", "/*?*/",
		} {
			t.Run(name+"/"+query, func(t *testing.T) {
				t.Parallel()
				if got := describe(d, query); len(got) != 1 || !strings.HasSuffix(got[0], " "+query) {
					t.Errorf("Tokens(%q) = %q, want one token", query, got)
				}
			})
		}
	}
}

func TestTokensStop(t *testing.T) {
	t.Parallel()
	for tok := range SQLite.Tokens("a b") {
		if tok.Text != "a" {
			t.Errorf("token %q behind a break", tok.Text)
		}
		break
	}
}

// BenchmarkRead reads texts whose tokens could each cost the length of the rest: the time a byte is the same for the
// short and the long ones.
func BenchmarkRead(b *testing.B) {
	for _, piece := range []string{
		"+", "+-", "*+", "?", "$", "$a", "$a$", "$a(", "/*", "'", "E'\n", "@", ":", "(", "[", "\\", "1_", ";",
	} {
		for _, pieces := range []int{1 << 9, 1 << 13} {
			b.Run(fmt.Sprintf("%q/%d", piece, pieces), func(b *testing.B) {
				query := strings.Repeat(piece, pieces)
				b.SetBytes(int64(len(query)))
				for b.Loop() {
					for _, d := range []Dialect{SQLite, Postgres} {
						for range d.Tokens(query) {
						}
						for range Statements(d, query) {
						}
						Control(d, query)
					}
				}
			})
		}
	}
}

//nolint:paralleltest // AllocsPerRun counts the allocations of the whole process.
func TestTokensAllocate(t *testing.T) {
	query := strings.Repeat("select E'a', $$b$$, ?, :c::int from \"d\" -- e\n", 100)
	for _, d := range []Dialect{SQLite, Postgres} {
		got := testing.AllocsPerRun(10, func() {
			for range d.Tokens(query) {
			}
		})
		if got > 0 {
			t.Errorf("Tokens of dialect %d: %v allocations, want none", d, got)
		}
	}
}

func FuzzTokens(f *testing.F) {
	f.Fuzz(func(t *testing.T, query string) {
		for _, d := range []Dialect{SQLite, Postgres} {
			end := 0
			for tok := range d.Tokens(query) {
				if tok.Pos != end || tok.Text == "" || tok.Kind == 0 {
					t.Fatalf("dialect %d: token %+v at byte %d", d, tok, end)
				}
				end += len(tok.Text)
				if end > len(query) || query[tok.Pos:end] != tok.Text {
					t.Fatalf("dialect %d: token %+v is not in the text", d, tok)
				}
			}
			if end != len(query) {
				t.Fatalf("dialect %d: tokens end at byte %d of %d", d, end, len(query))
			}
		}
	})
}

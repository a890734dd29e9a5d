package sqltext

import (
	"iter"
	"strings"
)

// A Dialect says whose lexical rules a text follows.
type Dialect uint8

const (
	// SQLite is the dialect of https://sqlite.org/src/file/src/tokenize.c.
	SQLite Dialect = iota
	// Postgres is the dialect of PostgreSQL with standard_conforming_strings on, its default,
	// https://www.postgresql.org/docs/current/sql-syntax-lexical.html, and with `?` as a placeholder.
	Postgres
)

// A Kind says what a token is.
type Kind uint8

const (
	// Space is a run of blanks and line ends; on SQLite also a byte order mark.
	Space Kind = iota + 1
	// Comment is a comment of either form, without the line end behind a `--`.
	Comment
	// Word is a keyword or a name without quotes.
	Word
	// QuotedName is a name in quotes: "a", on PostgreSQL U&"a", on SQLite `a` and [a].
	QuotedName
	// String is a literal in quotes: 'a', on PostgreSQL also E'a' and $$a$$, on SQLite also x'61'.
	String
	// Number is a numeric literal without its sign.
	Number
	// Mark is the placeholder `?`.
	Mark
	// Numbered is the placeholder `?1`.
	Numbered
	// Positional is the parameter `$1`.
	Positional
	// Named is a parameter with a name: `:a`, on SQLite also `@a`, `$a` and `#a`. PostgreSQL has none of its own,
	// and the :n of a slice such as v[1:n] can't be told from one.
	Named
	// Escape is `??` on PostgreSQL, which stands for the `?` of an operator.
	Escape
	// Operator is an operator, `::` and `:=` among them.
	Operator
	// Punctuation is a byte that structures a statement, or one that the engine has no use for.
	Punctuation
)

// A Token is a piece of a text.
type Token struct {
	Kind Kind
	Text string // as written
	Pos  int    // the byte offset of Text
}

// Tokens iterates over the tokens of query. Their texts put together are query, whatever it holds: what is not
// terminated runs to the end.
func (d Dialect) Tokens(query string) iter.Seq[Token] {
	return func(yield func(Token) bool) {
		l := lexer{dialect: d, query: query}
		l.yield(yield)
	}
}

// yield hands on every token.
func (l *lexer) yield(yield func(Token) bool) {
	for tok, ok := l.next(); ok && yield(tok); tok, ok = l.next() {
	}
}

// lexer reads a text from pos on. The fields behind it are what PostgreSQL's tokens depend on beside their own
// text.
type lexer struct {
	dialect Dialect
	query   string
	pos     int
	names   bool // :a is a name that ends where a word does, also on SQLite

	prev    Kind // of the token before
	escapes bool // the string before has backslash escapes, and so has its continuation
	newline bool // a line ended since that string
	signs   int  // up to here, each + and - is an operator of its own
}

// next reads a token; ok is false at the end of the text.
func (l *lexer) next() (tok Token, ok bool) {
	if l.pos == len(l.query) {
		return Token{}, false
	}
	kind, n := l.scan(l.query[l.pos:])
	tok = Token{Kind: kind, Text: l.query[l.pos : l.pos+n], Pos: l.pos}
	l.pos += n
	l.remember(tok)
	return tok, true
}

// scan returns the kind and the length of the token that s begins with.
func (l *lexer) scan(s string) (Kind, int) {
	switch {
	case l.dialect == Postgres:
		return l.scanPostgres(s)
	case l.names && strings.HasPrefix(s, "::"):
		return Operator, len("::")
	case l.names && s[0] == ':' && word(s[1:]) > 0:
		return Named, 1 + word(s[1:])
	}
	return scanSQLite(s)
}

// remember keeps of a token what the next one depends on.
func (l *lexer) remember(tok Token) {
	l.prev = tok.Kind
	switch {
	case tok.Kind == Space:
		l.newline = l.newline || l.escapes && strings.ContainsAny(tok.Text, "\r\n")
	case tok.Kind == Comment && tok.Text[0] == '-':
	default:
		l.escapes = tok.Kind == String && l.hasEscapes(tok.Text)
		l.newline = false
	}
}

// placeholder reads `?` or `?1`.
func placeholder(s string) (Kind, int) {
	if n := digits(s[1:]); n > 0 {
		return Numbered, 1 + n
	}
	return Mark, 1
}

// blanks returns the length of the blanks that s begins with.
func blanks(s string) int {
	n := 0
	for n < len(s) && isBlank(s[n]) {
		n++
	}
	return n
}

// before returns the length of s up to any of the bytes in stops.
func before(s, stops string) int {
	if i := strings.IndexAny(s, stops); i >= 0 {
		return i
	}
	return len(s)
}

// through returns the length of s up to and with the first end that begins at or behind from.
func through(s, end string, from int) int {
	if i := strings.Index(s[from:], end); i >= 0 {
		return from + i + len(end)
	}
	return len(s)
}

// quoted returns the length of the text in quotes that s begins with. A quote within is doubled or, with
// backslashes, escaped.
func quoted(s string, backslashes bool) int {
	quote := s[0]
	for i := 1; i < len(s); i++ {
		switch {
		case backslashes && s[i] == '\\':
			i++
		case s[i] != quote:
		case i+1 < len(s) && s[i+1] == quote:
			i++
		default:
			return i + 1
		}
	}
	return len(s)
}

// number returns the length of the number that s begins with, or 0. The engines differ only in numbers that both
// refuse, such as 1__0.
func number(s string) int {
	if n := radixNumber(s); n > 0 {
		return n
	}
	n := decimals(s)
	if n < len(s) && s[n] == '.' && !strings.HasPrefix(s[n:], "..") {
		fraction := decimals(s[n+1:])
		if n+fraction == 0 {
			return 0
		}
		n += 1 + fraction
	}
	if n == 0 {
		return 0
	}
	return n + exponent(s[n:])
}

// radixNumber returns the length of a number such as 0x1F that s begins with, or 0.
func radixNumber(s string) int {
	if len(s) < 3 || s[0] != '0' || strings.IndexByte("xXoObB", s[1]) < 0 {
		return 0
	}
	n := 2
	for n < len(s) && (isHex(s[n]) || s[n] == '_' && n+1 < len(s) && isHex(s[n+1])) {
		n++
	}
	if n == 2 {
		return 0
	}
	return n
}

// exponent returns the length of an exponent such as e-5 that s begins with, or 0.
func exponent(s string) int {
	if s == "" || s[0]|0x20 != 'e' {
		return 0
	}
	n := 1
	if n < len(s) && (s[n] == '+' || s[n] == '-') {
		n++
	}
	if d := decimals(s[n:]); d > 0 {
		return n + d
	}
	return 0
}

// digits returns the length of the digits that s begins with.
func digits(s string) int {
	n := 0
	for n < len(s) && isDigit(s[n]) {
		n++
	}
	return n
}

// decimals is digits with single underscores between them, as numbers have them but not parameters.
func decimals(s string) int {
	n := 0
	for n < len(s) && (isDigit(s[n]) || s[n] == '_' && 0 < n && n+1 < len(s) && isDigit(s[n+1])) {
		n++
	}
	return n
}

// word returns the length of the name that s begins with.
func word(s string) int {
	n := 0
	for n < len(s) && isWord(s[n]) {
		n++
	}
	return n
}

// isWordStart reports whether a name can begin with c. Every byte of a letter beyond ASCII counts, as in both
// engines: they do not ask Unicode, and do not mind invalid UTF-8.
func isWordStart(c byte) bool {
	return 'a' <= c|0x20 && c|0x20 <= 'z' || c == '_' || c >= 0x80
}

func isWord(c byte) bool { return isWordStart(c) || isDigit(c) || c == '$' }

func isBlank(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isHex(c byte) bool { return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'f' }

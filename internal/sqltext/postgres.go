package sqltext

import "strings"

// scanPostgres returns the kind and the length of the token that s begins with. It follows the order and the
// names of https://github.com/postgres/postgres/blob/master/src/backend/parser/scan.l.
func (l *lexer) scanPostgres(s string) (Kind, int) {
	switch c := s[0]; {
	case isBlank(c):
		return Space, blanks(s)
	case strings.HasPrefix(s, "--"):
		return Comment, before(s, "\r\n")
	case strings.HasPrefix(s, "/*"):
		return Comment, nestedComment(s)
	case c == '\'':
		return String, quoted(s, l.hasEscapes(s))
	case c == '"':
		return QuotedName, quoted(s, false)
	case isWordStart(c):
		return prefixed(s)
	case number(s) > 0:
		return Number, number(s)
	case c == '$':
		return dollar(s)
	case c == ':':
		return colon(s)
	case strings.HasPrefix(s, ".."):
		return Operator, 2
	case c == '?':
		return l.question(s)
	case isOperator(c):
		return Operator, l.operator(s)
	}
	return Punctuation, 1
}

// nestedComment returns the length of the comment that s begins with.
func nestedComment(s string) int {
	depth := 0
	for i := 0; i < len(s)-1; i++ {
		switch s[i : i+2] {
		case "/*":
			depth++
			i++
		case "*/":
			depth--
			i++
		}
		if depth == 0 {
			return i + 1
		}
	}
	return len(s)
}

// hasEscapes reports whether backslashes escape in the string that s begins with: an E'..', or one that continues
// it on another line, https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-STRINGS-ESCAPE.
func (l *lexer) hasEscapes(s string) bool {
	return s[0]|0x20 == 'e' || s[0] == '\'' && l.escapes && l.newline
}

// prefixed reads a word, or a literal or a name in quotes whose first letters look like one.
func prefixed(s string) (Kind, int) {
	switch prefix := s[0] | 0x20; {
	case prefix == 'e' && strings.HasPrefix(s[1:], "'"):
		return String, 1 + quoted(s[1:], true)
	case (prefix == 'b' || prefix == 'n' || prefix == 'x') && strings.HasPrefix(s[1:], "'"):
		return String, 1 + quoted(s[1:], false)
	case prefix == 'u' && strings.HasPrefix(s[1:], "&'"):
		return String, 2 + quoted(s[2:], false)
	case prefix == 'u' && strings.HasPrefix(s[1:], `&"`):
		return QuotedName, 2 + quoted(s[2:], false)
	}
	return Word, word(s)
}

// dollar reads a parameter $1, a literal $$a$$ or $tag$a$tag$, or a lone $.
func dollar(s string) (Kind, int) {
	n := 1 + digits(s[1:])
	if n > 1 {
		return Positional, n
	}
	for n < len(s) && isWord(s[n]) && s[n] != '$' {
		n++
	}
	if n == len(s) || s[n] != '$' {
		return Punctuation, 1
	}
	return String, through(s, s[:n+1], n+1)
}

// colon reads a cast, an assignment, a parameter with a name, or the colon of a slice.
func colon(s string) (Kind, int) {
	switch {
	case strings.HasPrefix(s, "::") || strings.HasPrefix(s, ":="):
		return Operator, 2
	case len(s) > 1 && isWordStart(s[1]):
		return Named, 1 + word(s[1:])
	}
	return Punctuation, 1
}

// question reads a question mark: the escape `??`, the operators `?|` and `?&`, or a placeholder.
//
// PostgreSQL would take every one for an operator, together with the operators around it. People write them for
// parameters: `x=?`, `'%'||?||'%'`. So only what has no other reading is an operator.
func (l *lexer) question(s string) (Kind, int) {
	switch {
	case strings.HasPrefix(s, "??"):
		return Escape, 2
	case l.prev != Operator && isQuestionOperator(s):
		return Operator, 2
	}
	return placeholder(s)
}

// isQuestionOperator reports whether s begins with ?| or ?&, and not with a placeholder and an operator such as
// || or &&.
func isQuestionOperator(s string) bool {
	if !strings.HasPrefix(s, "?|") && !strings.HasPrefix(s, "?&") {
		return false
	}
	rest := s[2:]
	return rest == "" || rest[0] == '?' || !isOperator(rest[0]) || isComment(rest)
}

// operator returns the length of the operator that s begins with. It ends before a placeholder, but for @?.
func (l *lexer) operator(s string) int {
	if strings.HasPrefix(s, "@?") && !strings.HasPrefix(s, "@??") {
		return 2
	}
	if l.pos < l.signs {
		return 1
	}
	n := 1
	for n < len(s) && isOperator(s[n]) && s[n] != '?' && !isComment(s[n:]) {
		n++
	}
	return l.trimSigns(s[:n])
}

// trimSigns returns the length of op without the signs at its end, which belong to what follows: `a=-1`. Only an
// operator that has one of the less usual characters may end in a sign.
//
// It notes where the signs end: to ask for each of them would take quadratic time.
func (l *lexer) trimSigns(op string) int {
	if strings.ContainsAny(op, "~!@#%^&|`") {
		return len(op)
	}
	l.signs = l.pos + len(op)
	return max(1, len(strings.TrimRight(op, "+-")))
}

// isComment reports whether a comment begins with s.
func isComment(s string) bool {
	return strings.HasPrefix(s, "--") || strings.HasPrefix(s, "/*")
}

// isOperator reports whether c can stand in an operator.
func isOperator(c byte) bool {
	return strings.IndexByte("+-*/<>=~!@#%^&|`?", c) >= 0
}

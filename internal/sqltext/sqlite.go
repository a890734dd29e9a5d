package sqltext

import "strings"

// scanSQLite returns the kind and the length of the token that s begins with.
func scanSQLite(s string) (Kind, int) {
	switch c := s[0]; {
	case c == '\v': // a blank only behind another
		return Punctuation, 1
	case isBlank(c):
		return Space, blanks(s)
	case strings.HasPrefix(s, "\ufeff"):
		return Space, len("\ufeff")
	case strings.HasPrefix(s, "--"):
		return Comment, before(s, "\n")
	case strings.HasPrefix(s, "/*") && len(s) > 2: // a text can't end in /*
		return Comment, through(s, "*/", 2)
	case c == '\'':
		return String, quoted(s, false)
	case c == '"' || c == '`':
		return QuotedName, quoted(s, false)
	case c == '[':
		return QuotedName, through(s, "]", 1)
	case c|0x20 == 'x' && strings.HasPrefix(s[1:], "'"):
		return String, through(s, "'", 2)
	case isWordStart(c):
		return Word, word(s)
	case number(s) > 0:
		return Number, number(s)
	case c == '?':
		return placeholder(s)
	case c == '$' || c == ':' || c == '@' || c == '#':
		return variable(s)
	}
	return sqliteSymbol(s)
}

// variable reads a parameter that begins with $, :, @ or #. SQLite makes room for the variables of Tcl in it, so
// that $a::b(c) is one name.
func variable(s string) (Kind, int) {
	n, name := 1, 0
	for n < len(s) {
		switch {
		case isWord(s[n]):
			n, name = n+1, name+1
		case strings.HasPrefix(s[n:], "::"):
			n += len("::")
		case s[n] == '(' && name > 0:
			return Named, n + subscript(s[n:])
		default:
			return variableKind(s[:n], name), n
		}
	}
	return variableKind(s, name), n
}

// variableKind returns the kind of the variable in text, whose name has so many letters.
func variableKind(text string, letters int) Kind {
	switch {
	case letters == 0:
		return Punctuation
	case text[0] == '$' && digits(text[1:]) == len(text)-1:
		return Positional
	}
	return Named
}

// subscript returns the length of the (c) of a variable; a blank ends it too.
func subscript(s string) int {
	n := before(s, ") \t\n\v\f\r")
	if n < len(s) && s[n] == ')' {
		n++
	}
	return n
}

// sqliteSymbol reads an operator or a single byte.
func sqliteSymbol(s string) (Kind, int) {
	if strings.IndexByte("+-*/%=<>!&|~", s[0]) < 0 {
		return Punctuation, 1
	}
	for _, op := range [...]string{"->>", "->", "||", "<=", "<>", "<<", ">=", ">>", "==", "!="} {
		if strings.HasPrefix(s, op) {
			return Operator, len(op)
		}
	}
	return Operator, 1
}

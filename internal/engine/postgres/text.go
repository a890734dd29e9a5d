package postgres

import (
	"errors"

	"github.com/tholedb/thole/internal/engine"
	"github.com/tholedb/thole/internal/sqltext"
)

// errCopy refuses what would leave both sides waiting for the other, or throw
// away what comes.
var errCopy = &engine.Error{
	Message: "COPY from STDIN or to STDOUT sends no rows this way; use InsertAll, Pgx's CopyFrom or SELECT, or COPY with a file of the server's",
	Err:     errors.ErrUnsupported,
}

// copiesOverConnection reports whether a statement of the text is COPY with the
// client at the other end.
//
// https://www.postgresql.org/docs/current/sql-copy.html
func copiesOverConnection(query string) bool {
	if !hasFold(query, "copy") || !hasFold(query, "std") {
		return false
	}
	for statement := range sqltext.Statements(sqltext.Postgres, query) {
		if isCopyOverConnection(statement.Text) {
			return true
		}
	}
	return false
}

func isCopyOverConnection(statement string) bool {
	first, depth := true, 0
	for token := range sqltext.Postgres.Tokens(statement) {
		switch {
		case token.Kind == sqltext.Space || token.Kind == sqltext.Comment:
			continue
		case first && !equalFold(token.Text, "copy"):
			return false
		case token.Text == "(":
			depth++
		case token.Text == ")":
			depth--
		case depth == 0 && (equalFold(token.Text, "stdin") || equalFold(token.Text, "stdout")):
			return true
		}
		first = false
	}
	return false
}

// errMode refuses what would let a read-only session write. The server lets RESET
// do it, up to version 15.
var errMode = &engine.Error{
	Kind:    engine.ErrReadOnly,
	Message: "the session is read-only, which it stays to its end",
}

// setsMode reports whether a statement of the text sets the transaction's
// read-only mode by its parameter.
func setsMode(query string) bool {
	if !hasFold(query, "transaction_read_only") {
		return false
	}
	for statement := range sqltext.Statements(sqltext.Postgres, query) {
		if word := firstWord(statement.Text); equalFold(word, "set") || equalFold(word, "reset") {
			return true
		}
	}
	return false
}

// firstWord is the first word of a text.
func firstWord(query string) string {
	for token := range sqltext.Postgres.Tokens(query) {
		if token.Kind != sqltext.Space && token.Kind != sqltext.Comment {
			return token.Text
		}
	}
	return ""
}

// hasFold reports whether text has the word, in small letters, in any case.
func hasFold(text, word string) bool {
	for i := range len(text) - len(word) + 1 {
		if equalFold(text[i:i+len(word)], word) {
			return true
		}
	}
	return false
}

// equalFold reports whether text is the word, in small ASCII letters, in any
// case; strings.EqualFold would take 'ſ' for an s.
func equalFold(text, word string) bool {
	if len(text) != len(word) {
		return false
	}
	for i := range len(text) {
		c := text[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != word[i] {
			return false
		}
	}
	return true
}

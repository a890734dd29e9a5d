package sqlite

import (
	"errors"
	"slices"
	"strings"

	"github.com/tholedb/thole/internal/engine"
	"github.com/tholedb/thole/internal/sqltext"
)

// guarded are the pragmas that a connection has its settings by; their values stay what connect has made them. Some
// take effect as soon as they are prepared, and some without an error within a transaction do nothing.
var guarded = []string{
	"busy_timeout", "foreign_keys", "ignore_check_constraints", "journal_mode", "locking_mode", "query_only",
	"synchronous", "temp_store", "writable_schema",
}

// refusedInSession returns the error of a text that can't run in a session.
func refusedInSession(query string) error {
	if word := changesConnectionIn(query); word != "" {
		return &engine.Error{
			Message: word + " can't run in a session; run it on the DB, outside one",
			Err:     errors.ErrUnsupported,
		}
	}
	return refused(query)
}

// refusedAlone returns the error of a text that can't run outside a session.
func refusedAlone(query string) error {
	if name, sets := pragma(query); sets && name == "defer_foreign_keys" {
		return &engine.Error{Message: "set PRAGMA " + name + ": it is for one transaction, run it in a session"}
	}
	return refused(query)
}

// refused returns the error of a text that no connection runs: one that begins or ends a transaction, changes a
// guarded pragma, or isn't read to its end.
func refused(query string) error {
	if verb := sqltext.Control(sqltext.SQLite, query); verb != 0 {
		return &engine.Error{Kind: engine.ErrTxControl, Message: "run " + verb.String() + ": " + engine.ErrTxControl.Error()}
	}
	if strings.ContainsRune(query, 0) {
		return &engine.Error{Message: "read statement: it has a NUL byte, behind which SQLite would read nothing"}
	}
	if name := setsGuarded(query); name != "" {
		return &engine.Error{Message: "set PRAGMA " + name + ": thole keeps it as it is on every connection"}
	}
	return nil
}

// setsGuarded returns the first guarded pragma that a text gives a value to, or "".
func setsGuarded(query string) string {
	if !strings.Contains(query, ";") { // nearly all, and these needn't be read to their end
		return guardedIn(query)
	}
	for stmt := range sqltext.Statements(sqltext.SQLite, query) {
		if name := guardedIn(stmt.Text); name != "" {
			return name
		}
	}
	return ""
}

func guardedIn(stmt string) string {
	if name, sets := pragma(stmt); sets && slices.Contains(guarded, name) {
		return name
	}
	return ""
}

// seals reports whether a text may do what reaches beyond its own session in a transaction that is shared: OR ROLLBACK
// and RAISE (ROLLBACK) undo all of it, and PRAGMA defer_foreign_keys stays on until it commits. One that has the words
// in a string is only slower.
func seals(query string) bool {
	text := strings.ToLower(query)
	return strings.Contains(text, "rollback") || strings.Contains(text, "defer_foreign_keys")
}

// pragma returns which pragma a statement is, in small letters, and whether it is given a value; "" if it is none.
// EXPLAIN doesn't keep a pragma from taking effect.
func pragma(stmt string) (name string, sets bool) {
	words := significant(stmt, 8)
	if len(words) > 0 && strings.EqualFold(words[0], "EXPLAIN") {
		words = words[1:]
	}
	if len(words) > 1 && strings.EqualFold(words[0], "QUERY") {
		words = words[2:]
	}
	if len(words) < 2 || !strings.EqualFold(words[0], "PRAGMA") {
		return "", false
	}
	words = words[1:]
	if len(words) > 2 && words[1] == "." {
		words = words[2:]
	}
	return strings.ToLower(strings.Trim(words[0], "\"`[]'")), len(words) > 1
}

// significant returns the first n tokens of a text, blanks and comments aside.
func significant(text string, n int) []string {
	words := make([]string, 0, n)
	for tok := range sqltext.SQLite.Tokens(text) {
		if tok.Kind == sqltext.Space || tok.Kind == sqltext.Comment {
			continue
		}
		if words = append(words, tok.Text); len(words) == n {
			break
		}
	}
	return words
}

// firstWord returns the first word of a text in capitals.
func firstWord(query string) string {
	for _, word := range significant(query, 1) {
		return strings.ToUpper(word)
	}
	return ""
}

// standsAlone reports whether a text is a statement that doesn't run in a transaction, or does nothing there.
func standsAlone(query string) bool {
	return (firstWord(query) == "PRAGMA" || changesConnection(query)) && !sqltext.IsScript(sqltext.SQLite, query)
}

// changesConnectionIn returns the first word of a statement in the text that is for a connection, or for the file, and
// not for a transaction: what it did would outlive that, or it fails there. "" is none.
func changesConnectionIn(query string) string {
	for stmt := range sqltext.Statements(sqltext.SQLite, query) {
		if changesConnection(stmt.Text) {
			return firstWord(stmt.Text)
		}
	}
	return ""
}

// changesConnection reports whether a text is for the connection that writes, or for the file, and runs in no transaction.
func changesConnection(query string) bool {
	return slices.Contains([]string{"ATTACH", "DETACH", "VACUUM"}, firstWord(query))
}

// reads reports whether all that a text does is read.
func reads(query string) bool {
	for stmt := range sqltext.Statements(sqltext.SQLite, query) {
		switch verb(stmt.Text) {
		case "SELECT", "VALUES", "EXPLAIN":
		default:
			return false
		}
	}
	return true
}

// verb returns the keyword that says what a statement does; that of WITH stands behind the tables in parentheses.
func verb(stmt string) string {
	depth, with := 0, false
	for tok := range sqltext.SQLite.Tokens(stmt) {
		switch word := strings.ToUpper(tok.Text); {
		case tok.Text == "(":
			depth++
		case tok.Text == ")":
			depth--
		case tok.Kind != sqltext.Word || depth > 0:
		case !with && word == "WITH":
			with = true
		case !with || slices.Contains([]string{"SELECT", "VALUES", "INSERT", "REPLACE", "UPDATE", "DELETE"}, word):
			return word
		}
	}
	return ""
}

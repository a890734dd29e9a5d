package postgres

import (
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// quotes are the quotation marks in the translations of PostgreSQL's messages.
const quotes = `"«»„“”‟「」『』‹›`

var anyQuote = regexp.MustCompile("[" + quotes + "]")

// numbers of class 22 are values that don't fit, bytes that are no text.
var numbers = regexp.MustCompile(`(^|\s)(0x[0-9a-f]+|[-+]?[0-9][0-9.]*)`)

// withoutValues is the message of the server without what it may quote of
// arguments and rows. The detail, the hint and the context are never shown: the
// detail of 23505 is a row.
//
//   - Class 22 (data exceptions) is about values: everything between its first
//     and last quotation mark goes, and so do its numbers.
//   - Class 23 (constraints) quotes names only.
//   - Any other message keeps its quotations if each is a name that the error
//     carries in a field, or stands in the text of the statement: a cast of an
//     argument to regclass quotes the argument as the name of a table.
//
// What a function raises (P0001) is the application's own text.
func withoutValues(pg *pgconn.PgError, query string) string {
	head, _, cut := strings.Cut(pg.Message, ": ")
	if cut && pg.Code == undefinedFunction && pg.Position == 0 && pg.InternalPosition == 0 {
		return head // what is behind it is a text that was cast to regoper
	}
	if pg.Code == undefinedObject || pg.Code == internalError { // of large objects, and of OIDs
		return numbers.ReplaceAllString(withoutQuotedValues(pg, query), "$1…")
	}
	return withoutQuotedValues(pg, query)
}

func withoutQuotedValues(pg *pgconn.PgError, query string) string {
	switch {
	case strings.HasPrefix(pg.Code, "22"):
		return numbers.ReplaceAllString(withoutQuoted(pg.Message), "$1…")
	case strings.HasPrefix(pg.Code, "23"):
		return pg.Message
	case onlyNames(pg, query):
		return pg.Message
	default:
		return withoutQuoted(pg.Message)
	}
}

// withoutQuoted replaces everything from the first quotation mark to the last:
// a value may hold quotation marks of its own.
func withoutQuoted(message string) string {
	marks := anyQuote.FindAllStringIndex(message, -1)
	switch len(marks) {
	case 0:
		return message
	case 1:
		return message[:marks[0][0]] + `"…"`
	default:
		return message[:marks[0][0]] + `"…"` + message[marks[len(marks)-1][1]:]
	}
}

// onlyNames reports whether everything that the message quotes is known not to
// be a value.
func onlyNames(pg *pgconn.PgError, query string) bool {
	known := []string{pg.SchemaName, pg.TableName, pg.ColumnName, pg.DataTypeName, pg.ConstraintName}
	parts := anyQuote.Split(pg.Message, -1)
	for i := 1; i < len(parts); i += 2 {
		if !slices.Contains(known, parts[i]) && !strings.Contains(query, parts[i]) {
			return false
		}
	}
	return len(parts)%2 == 1
}

package sqltext

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Rewritten is a query with the placeholders that its engine takes.
type Rewritten struct {
	// Text is the query to send.
	Text string
	// Params is the highest number of a parameter, which is how many arguments the query takes. Parameters with
	// a name have none and are not counted.
	Params int
}

// errMixed is the mistake of numbering some parameters and leaving others to be counted.
var errMixed = errors.New("placeholders of more than one of the forms ?, ?1 and $1 in one query: write one form")

// Rewrite turns the placeholders of query, one statement, into those that the engine takes.
//
// For PostgreSQL, `?` becomes $1, $2 and so on, and `?2` becomes $2. The operators ?|, ?& and @? stay as they
// are, and `??` stands for the ? of an operator: `a ?? 'key'`. A query with a parameter such as $1 stays whole,
// as each ? in it is an operator.
//
// For SQLite, $2 becomes ?2, as SQLite takes $2 for a name and numbers names in the order of their appearance.
//
// It is an error to mix the forms, or to use a number that the engine doesn't have. A query in which nothing
// changes is returned as it is, without an allocation.
func Rewrite(d Dialect, query string) (Rewritten, error) {
	if !strings.ContainsAny(query, "?$") {
		return Rewritten{Text: query}, nil
	}
	p, err := survey(d, query)
	if err != nil {
		return Rewritten{}, err
	}
	out := Rewritten{Text: query, Params: max(p.marks, p.numbered, p.positional)}
	switch {
	case d == Postgres && p.positional > 0:
		out.Params = p.positional
	case d == Postgres && p.marks+p.numbered+p.escapes > 0:
		out.Text = positionalText(query)
	case d == SQLite && p.positional > 0:
		out.Text = numberedText(query)
	}
	return out, nil
}

// placeholders is what a query has of them.
type placeholders struct {
	marks      int // how many ?
	escapes    int // how many ??
	numbered   int // the highest ?1
	positional int // the highest $1
}

// survey finds the placeholders of query.
func survey(d Dialect, query string) (placeholders, error) {
	var p placeholders
	for tok := range d.Tokens(query) {
		number, err := d.parameter(tok)
		if err != nil {
			return p, err
		}
		switch tok.Kind {
		case Mark:
			p.marks++
		case Escape:
			p.escapes++
		case Numbered:
			p.numbered = max(p.numbered, number)
		case Positional:
			p.positional = max(p.positional, number)
		}
	}
	return p, p.check(d)
}

// check returns an error for placeholders that can't be right together.
func (p placeholders) check(d Dialect) error {
	if d == Postgres && p.positional > 0 {
		return nil
	}
	forms := min(p.marks, 1) + min(p.numbered, 1) + min(p.positional, 1)
	if forms > 1 {
		return errMixed
	}
	if limit := d.maxParams(); p.marks > limit {
		return fmt.Errorf("%d placeholders in one query: the most is %d", p.marks, limit)
	}
	return nil
}

// parameter returns the number that tok has as a parameter, or 0 if it has none.
func (d Dialect) parameter(tok Token) (int, error) {
	if tok.Kind != Numbered && tok.Kind != Positional {
		return 0, nil
	}
	n, err := strconv.Atoi(tok.Text[1:])
	if limit := d.maxParams(); err != nil || n < 1 || n > limit {
		return 0, fmt.Errorf("parameter at byte %d: its number is not between 1 and %d", tok.Pos, limit)
	}
	return n, nil
}

// maxParams returns how many parameters a statement can have: https://sqlite.org/limits.html#max_variable_number,
// and the 16 bits that the Bind message of PostgreSQL's protocol has for them.
func (d Dialect) maxParams() int {
	if d == Postgres {
		return 65535
	}
	return 32766
}

// numberedText returns query with ?1 for $1.
func numberedText(query string) string {
	var b strings.Builder
	b.Grow(len(query))
	for tok := range SQLite.Tokens(query) {
		if tok.Kind == Positional {
			b.WriteByte('?')
			tok.Text = tok.Text[1:]
		}
		b.WriteString(tok.Text)
	}
	return b.String()
}

// positionalText returns query with $1 for ? and for ?1, and with ? for ??.
func positionalText(query string) string {
	buf := make([]byte, 0, len(query)+len(query)/4) // a guess: $1 is longer than ?
	marks := 0
	for tok := range Postgres.Tokens(query) {
		rest := query[tok.Pos+len(tok.Text):]
		switch tok.Kind {
		case Mark:
			marks++
			buf = appendPositional(buf, marks, rest)
		case Numbered:
			number, _ := Postgres.parameter(tok) // survey saw its error
			buf = appendPositional(buf, number, rest)
		case Escape:
			buf = append(buf, '?')
		default:
			buf = append(buf, tok.Text...)
		}
	}
	return string(buf)
}

// appendPositional appends $number in front of the text rest. Where a word touches the placeholder, a blank keeps
// them apart: `limit?` is not `limit$1`, which would be a name.
func appendPositional(buf []byte, number int, rest string) []byte {
	if len(buf) > 0 && isWord(buf[len(buf)-1]) {
		buf = append(buf, ' ')
	}
	buf = strconv.AppendInt(append(buf, '$'), int64(number), 10)
	if rest != "" && isWordStart(rest[0]) {
		buf = append(buf, ' ')
	}
	return buf
}

package schema

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tholedb/thole/internal/sqltext"
)

// Tag is what the schema tag of a field says of its column.
type Tag struct {
	PrimaryKey bool
	Generated  bool     // the database gives it its value
	Default    string   // an expression, or ""
	Unique     []string // the names of the constraints; "" is one of the column's own
	Index      []string // the names of the indexes; "" is one of the column's own
	References *Reference
	Check      string // an expression, or ""
	Type       string // as SQL writes it, or "" for that of the Go type
}

// Reference is the other end of a foreign key.
type Reference struct {
	Table, Column      string // Column is "" for the primary key
	OnDelete, OnUpdate string // "CASCADE", "SET NULL", …, or ""
}

// options reads the options of a tag by their first word.
var options = map[string]func(t *Tag, rest string) error{
	"primary":    (*Tag).primaryKey,
	"generated":  (*Tag).generated,
	"default":    (*Tag).defaultTo,
	"unique":     func(t *Tag, rest string) error { return name(&t.Unique, rest) },
	"index":      func(t *Tag, rest string) error { return name(&t.Index, rest) },
	"references": (*Tag).references,
	"check":      (*Tag).check,
	"type":       func(t *Tag, rest string) error { return once(&t.Type, rest) },
}

// ParseTag reads a schema tag, whose options are written as SQL writes them of a
// column, and separated by commas:
//
//	primary key
//	generated
//	default EXPRESSION
//	unique [NAME]
//	index [NAME]
//	references TABLE [(COLUMN)] [on delete ACTION] [on update ACTION]
//	check (EXPRESSION)
//	type TYPE
//
// Columns with the same NAME have one constraint, or index, together. A comma in
// parentheses or quotes belongs to its option.
func ParseTag(text string) (Tag, error) {
	var t Tag
	if strings.TrimSpace(text) == "" {
		return t, nil
	}
	for _, option := range split(text) {
		word, rest := cutWord(option)
		read := options[strings.ToLower(word)]
		if read == nil {
			return t, fmt.Errorf("%q is no option: those are primary key, generated, default, unique, index, references, check and type", option)
		}
		if err := read(&t, rest); err != nil {
			return t, fmt.Errorf("%q: %w", option, err)
		}
	}
	return t, nil
}

// split cuts a text at the commas outside parentheses and quotes.
func split(text string) []string {
	var parts []string
	depth, from := 0, 0
	for tok := range sqltext.Postgres.Tokens(text) {
		switch tok.Text {
		case "(":
			depth++
		case ")":
			depth--
		case ",":
			if depth == 0 {
				parts = append(parts, strings.TrimSpace(text[from:tok.Pos]))
				from = tok.Pos + 1
			}
		}
	}
	return append(parts, strings.TrimSpace(text[from:]))
}

// cutWord cuts the first word off a text.
func cutWord(text string) (word, rest string) {
	end := strings.IndexFunc(text, func(r rune) bool { return r == '(' || r == ' ' || r == '\t' || r == '\n' })
	if end < 0 {
		return text, ""
	}
	return text[:end], strings.TrimSpace(text[end:])
}

func (t *Tag) primaryKey(rest string) error {
	if !strings.EqualFold(rest, "key") {
		return errors.New("it is written primary key")
	}
	t.PrimaryKey = true
	return nil
}

func (t *Tag) generated(rest string) error {
	if rest != "" {
		return errors.New("it stands alone")
	}
	t.Generated = true
	return nil
}

func (t *Tag) defaultTo(rest string) error { return once(&t.Default, rest) }

func (t *Tag) check(rest string) error {
	if !strings.HasPrefix(rest, "(") || !strings.HasSuffix(rest, ")") {
		return errors.New("its expression stands in parentheses")
	}
	return once(&t.Check, rest[1:len(rest)-1])
}

// once sets what a tag says once.
func once(option *string, text string) error {
	switch {
	case text == "":
		return errors.New("what it is is missing")
	case *option != "":
		return errors.New("it is there twice")
	}
	*option = text
	return nil
}

// name adds a name, or "".
func name(names *[]string, rest string) error {
	switch {
	case strings.ContainsAny(rest, " ()"):
		return errors.New("only a name stands behind it")
	case slices.Contains(*names, rest):
		return errors.New("it is there twice")
	}
	*names = append(*names, rest)
	return nil
}

// actions are what a foreign key does when the row that it refers to goes or
// changes.
var actions = []string{"NO ACTION", "RESTRICT", "CASCADE", "SET NULL", "SET DEFAULT"}

func (t *Tag) references(rest string) error {
	if t.References != nil {
		return errors.New("it is there twice")
	}
	table, rest := cutWord(rest)
	r := &Reference{Table: table}
	if table == "" {
		return errors.New("the table is missing")
	}
	if strings.HasPrefix(rest, "(") {
		column, behind, closed := strings.Cut(rest[1:], ")")
		r.Column, rest = strings.TrimSpace(column), strings.TrimSpace(behind)
		if !closed || r.Column == "" || strings.Contains(r.Column, ",") {
			return errors.New("one column stands in the parentheses")
		}
	}
	for rest != "" {
		var err error
		if rest, err = r.action(rest); err != nil {
			return err
		}
	}
	t.References = r
	return nil
}

// action reads on delete or on update with what happens then.
func (r *Reference) action(text string) (rest string, err error) {
	upper := strings.ToUpper(text)
	for event, action := range map[string]*string{"ON DELETE ": &r.OnDelete, "ON UPDATE ": &r.OnUpdate} {
		behind, found := strings.CutPrefix(upper, event)
		if !found {
			continue
		}
		for _, known := range actions {
			if rest, ok := strings.CutPrefix(behind, known); ok && *action == "" && (rest == "" || rest[0] == ' ') {
				*action = known
				return strings.TrimSpace(text[len(text)-len(rest):]), nil
			}
		}
	}
	return "", fmt.Errorf("%q: behind the table stand on delete and on update with %s", text, strings.ToLower(strings.Join(actions, ", ")))
}

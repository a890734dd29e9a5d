package sqltext

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The mistakes that can be made in naming and numbering.
var (
	errMixed = errors.New("placeholders of more than one of the forms ?, ?1 and $1 in one query: write one form")
	errNamed = errors.New("placeholders with names, and others, in one query: name all of them, or none")
)

// Parse finds the parameters of query, one statement, and turns them into those that the engine takes.
//
// For PostgreSQL, `?` becomes $1, $2 and so on, and `?2` becomes $2. The operators ?|, ?& and @? stay as they
// are, and `??` stands for the ? of an operator: `a ?? 'key'`. A query with a parameter such as $1 stays whole,
// as each ? in it is an operator.
//
// For SQLite, $2 becomes ?2, as SQLite takes $2 for a name and numbers names in the order of their appearance.
//
// With named, `:name` and `:outer.inner` are parameters too. They are numbered by their first appearance, and a
// name that appears again has the same number. On PostgreSQL each ? beside them is an operator, and a slice whose
// upper bound is a name is written with a blank: `v[1: n]`.
//
// It is an error to mix the forms, or to use a number that the engine doesn't have.
func Parse(d Dialect, query string, named bool) (*Template, error) {
	l := lexer{dialect: d, query: query, names: named}
	p := parser{dialect: d, tokens: slices.Collect(l.yield), numbers: map[string]int{}, row: none}
	p.named = named && p.hasNames()
	if err := p.survey(); err != nil {
		return nil, err
	}
	p.out.dialect = d
	p.out.marks = d == SQLite && p.marks > 0
	for at := 0; at < len(p.tokens); {
		at = p.take(at)
	}
	p.flush(none)
	t := &p.out
	switch {
	case p.named:
		t.Params = len(t.Names)
	case p.whole:
		t.Params = p.positional
	default:
		t.Params = max(p.marks, p.numbered, p.positional)
	}
	var err error
	t.Text, _, err = t.With(nil)
	return t, err
}

// parser reads the tokens of a query one after the other.
type parser struct {
	dialect Dialect
	tokens  []Token
	named   bool // parameters are names
	whole   bool // parameters are $1, and PostgreSQL reads the query as it is

	marks, numbered, positional int // how many ?, and the highest ?1 and $1

	out     Template
	text    strings.Builder // what stands in front of the next parameter
	seen    int             // how many ? there were
	numbers map[string]int  // of the names

	depth int // the parentheses that are open
	row   int // how many were when the row behind VALUES began, or none
	from  int // the first piece of that row
}

// hasNames reports whether a token is a name behind a colon.
func (p *parser) hasNames() bool {
	return slices.ContainsFunc(p.tokens, func(tok Token) bool { return tok.Kind == Named && tok.Text[0] == ':' })
}

// survey counts the placeholders, and returns an error for those that can't be right together.
func (p *parser) survey() error {
	others := false // names that are SQLite's own
	for _, tok := range p.tokens {
		number, err := p.dialect.parameter(tok)
		if err != nil {
			return err
		}
		switch tok.Kind {
		case Mark:
			p.marks++
		case Numbered:
			p.numbered = max(p.numbered, number)
		case Positional:
			p.positional = max(p.positional, number)
		case Named:
			others = others || tok.Text[0] != ':'
		}
	}
	marks := min(p.marks, 1)
	if p.dialect == Postgres && (p.named || p.positional > 0) {
		marks = 0 // operators
	}
	forms := marks + min(p.numbered, 1) + min(p.positional, 1)
	p.whole = p.dialect == Postgres && p.positional > 0
	switch {
	case p.named && (forms > 0 || others):
		return errNamed
	case p.whole:
		return nil
	case forms > 1:
		return errMixed
	case !p.named:
		return p.dialect.allow(p.marks)
	}
	return nil
}

// allow returns an error for more parameters than a statement can have.
func (d Dialect) allow(params int) error {
	if limit := d.maxParams(); params > limit {
		return fmt.Errorf("%d placeholders in one query: the most is %d", params, limit)
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

// take reads what begins at a token, and returns where the next begins.
func (p *parser) take(at int) (next int) {
	if list, ok := p.list(at); ok {
		p.flush(p.number(list.param))
		last := &p.out.pieces[len(p.out.pieces)-1]
		last.open, last.shut = p.join(at, list.param), p.join(list.behind, list.next)
		last.not = is(p.tokens[at].Text, "NOT")
		return list.next
	}
	if next := p.extent(at); next > at {
		p.flush(p.number(at))
		return next
	}
	if p.tokens[at].Kind == Escape && !p.whole {
		p.text.WriteByte('?')
		return at + 1
	}
	p.structure(at)
	return at + 1
}

// extent returns where the parameter ends that begins at a token; where it begins if it is none.
func (p *parser) extent(at int) (next int) {
	switch kind := p.tokens[at].Kind; {
	case p.named && kind == Named:
		_, next := p.name(at)
		return next
	case p.named:
	case (kind == Mark || kind == Numbered) && !p.whole, kind == Positional:
		return at + 1
	}
	return at
}

// number returns the number of the parameter that begins at a token, counted from 0.
func (p *parser) number(at int) int {
	switch tok := p.tokens[at]; tok.Kind {
	case Named:
		name, _ := p.name(at)
		number, ok := p.numbers[name]
		if !ok {
			number = len(p.out.Names)
			p.numbers[name] = number
			p.out.Names = append(p.out.Names, name)
		}
		return number
	case Mark:
		p.seen++
		return p.seen - 1
	default:
		number, _ := p.dialect.parameter(tok) // survey saw its error
		return number - 1
	}
}

// name reads a name of one token or, with dots in it, several.
func (p *parser) name(at int) (name string, next int) {
	next = at + 1
	for next+1 < len(p.tokens) && p.tokens[next].Text == "." && p.tokens[next+1].Kind == Word {
		next += 2
	}
	return p.join(at, next)[1:], next
}

// flush ends a piece with a parameter, or none.
func (p *parser) flush(param int) {
	p.out.pieces = append(p.out.pieces, piece{text: p.text.String(), param: param})
	p.text.Reset()
}

// inList is an IN with one parameter in its parentheses; it tells by their tokens where the parameter is, what is
// behind it, and what is behind the parentheses.
type inList struct{ param, behind, next int }

// list reads IN (?) or NOT IN (?), if a token begins it.
func (p *parser) list(at int) (list inList, ok bool) {
	in := at
	if p.isWord(at, "NOT") {
		in = p.behind(at)
	}
	if !p.isWord(in, "IN") {
		return list, false
	}
	open := p.behind(in)
	param := p.behind(open)
	if !p.isText(open, "(") || param >= len(p.tokens) {
		return list, false
	}
	next := p.extent(param)
	shut := p.behind(next - 1)
	if next == param || !p.isText(shut, ")") {
		return list, false
	}
	return inList{param, next, shut + 1}, true
}

// behind returns the next token that is no blank and no comment.
func (p *parser) behind(at int) int {
	for at++; at < len(p.tokens) && isBlankToken(p.tokens[at]); at++ {
	}
	return at
}

func isBlankToken(tok Token) bool { return tok.Kind == Space || tok.Kind == Comment }

func (p *parser) isWord(at int, word string) bool {
	return at < len(p.tokens) && p.tokens[at].Kind == Word && is(p.tokens[at].Text, word)
}

func (p *parser) isText(at int, text string) bool {
	return at < len(p.tokens) && p.tokens[at].Text == text
}

// join puts tokens together again.
func (p *parser) join(from, to int) string {
	var b strings.Builder
	for _, tok := range p.tokens[from:to] {
		b.WriteString(tok.Text)
	}
	return b.String()
}

// structure writes a token that is none of a parameter, and notes where the row behind VALUES is.
func (p *parser) structure(at int) {
	tok := p.tokens[at]
	if p.named && p.row == none && tok.Text == "(" && p.isValues(at) {
		p.flush(none)
		p.row, p.from = p.depth, len(p.out.pieces)
	}
	p.text.WriteString(tok.Text)
	switch tok.Text {
	case "(":
		p.depth++
	case ")":
		p.depth = max(0, p.depth-1)
		if p.depth == p.row {
			p.endRow(at)
		}
	}
}

// isValues reports whether VALUES is in front of a token.
func (p *parser) isValues(at int) bool {
	for at--; at >= 0 && isBlankToken(p.tokens[at]); at-- {
	}
	return at >= 0 && p.isWord(at, "VALUES")
}

// endRow ends the row behind VALUES, which counts when it has parameters. One that others follow counts as several.
func (p *parser) endRow(at int) {
	p.flush(none)
	p.row = none
	row := span{p.from, len(p.out.pieces)}
	if !slices.ContainsFunc(p.out.pieces[row.from:row.to], func(p piece) bool { return p.param != none }) {
		return
	}
	p.out.row = row
	p.out.rows++
	if p.isText(p.behind(at), ",") {
		p.out.rows++
	}
}

package sqltext

import (
	"errors"
	"fmt"
	"strconv"
)

// A Template is a query whose parameters have been found. It makes the text that the engine takes, which depends on
// the arguments where they are lists or rows. It doesn't change, and may be used by several goroutines.
type Template struct {
	// Text is the query to send when no argument is a list.
	Text string
	// Names are the names of the parameters, each once, in the order of their numbers. It is nil where they have
	// none.
	Names []string
	// Params is the highest number of a parameter, which is how many arguments the query takes.
	Params int

	dialect Dialect
	marks   bool // the parameters are each ?
	pieces  []piece
	row     span // of pieces: the row behind VALUES, if it has parameters
	rows    int  // how many such rows there are
}

// piece is a stretch of a query with the parameter at its end.
type piece struct {
	text  string // as the engine takes it
	param int    // counted from 0, or none

	// Of a parameter that is alone in the parentheses of an IN: `not in (` and `)` as they were written, which
	// then don't stand in any text.
	open, shut string
	not        bool
}

const none = -1

type span struct{ from, to int }

// An Arg is an argument of a text: all of a parameter's, or an element of the list that it is.
type Arg struct{ Param, Element int }

// Lists returns the parameters, counted from 0, that a list may stand for: those that are alone in the parentheses of
// IN or NOT IN.
func (t *Template) Lists() []int {
	var lists []int
	for _, p := range t.pieces {
		if p.open != "" {
			lists = append(lists, p.param)
		}
	}
	return lists
}

// With returns the text for arguments some of which are lists, and its arguments. The lists have the lengths by
// their parameters; one that may be a list and isn't there is none. The error is for more arguments than a statement
// can have.
//
// For PostgreSQL a list is one argument, an array: `= ANY ($1)` and `<> ALL ($1)`. For SQLite each element is one,
// and an empty list is an empty pair of parentheses, which no row is in: https://sqlite.org/lang_expr.html#in_op.
func (t *Template) With(lists map[int]int) (text string, args []Arg, err error) {
	w := writer{dialect: t.dialect, marks: t.marks, numbers: make([]int, t.Params)}
	if t.dialect == Postgres || len(lists) == 0 {
		for i := range t.Params {
			w.give(i) // they stay as they are
		}
	}
	for _, p := range t.pieces {
		w.literal(p.text)
		length, isList := lists[p.param]
		switch {
		case p.param == none:
		case p.open == "":
			w.parameter(p.param)
		case !isList:
			w.literal(p.open)
			w.parameter(p.param)
			w.literal(p.shut)
		case t.dialect == Postgres:
			w.literal(anyOf[p.not])
			w.parameter(p.param)
			w.literal(")")
		default:
			w.literal(p.open)
			w.elements(p.param, length)
			w.literal(p.shut)
		}
	}
	return string(w.text), w.args, t.dialect.allow(len(w.args))
}

// whole is the element of an argument that is none of a list.
const whole = -1

// IsWhole reports whether the argument is all of its parameter's.
func (a Arg) IsWhole() bool { return a.Element == whole }

// anyOf is how PostgreSQL looks into an array, by whether it mustn't be there.
var anyOf = map[bool]string{false: "= ANY (", true: "<> ALL ("}

// WithRows returns the text for so many rows: the one behind VALUES is repeated, and the parameters of each are
// numbered in the order of Names.
func (t *Template) WithRows(rows int) (string, error) {
	switch {
	case t.rows == 0:
		return "", errors.New("several rows need a VALUES (…) with their names in it")
	case t.rows > 1:
		return "", errors.New("several rows need a VALUES (…) with one row in it")
	}
	for i, p := range t.pieces {
		if p.param != none && (i < t.row.from || t.row.to <= i) {
			return "", fmt.Errorf(":%s stands outside the row of VALUES, where it would be of several rows", t.Names[p.param])
		}
	}
	if err := t.dialect.allow(rows * t.Params); err != nil {
		return "", err
	}
	w := writer{dialect: t.dialect}
	w.plain(t.pieces[:t.row.from], 0)
	for row := range rows {
		if row > 0 {
			w.literal(", ")
		}
		w.plain(t.pieces[t.row.from:t.row.to], row*t.Params)
	}
	w.plain(t.pieces[t.row.to:], 0)
	return string(w.text), nil
}

// writer writes a text piece by piece.
type writer struct {
	dialect Dialect
	marks   bool
	text    []byte
	touches bool // a number ends the text

	numbers []int // of the parameters, 0 for those that have none yet
	args    []Arg
}

// literal writes a stretch of the query. Where a word touches a parameter, a blank keeps them apart: `limit?` is not
// `limit$1`, which would be a name.
func (w *writer) literal(text string) {
	if text == "" {
		return
	}
	if w.touches && isWordStart(text[0]) {
		w.text = append(w.text, ' ')
	}
	w.text = append(w.text, text...)
	w.touches = false
}

// plain writes pieces with their parameters moved up.
func (w *writer) plain(pieces []piece, by int) {
	for _, p := range pieces {
		w.literal(p.text)
		if p.param != none {
			w.literal(p.open)
			w.number(by + p.param + 1)
			w.literal(p.shut)
		}
	}
}

// parameter writes a parameter, with the number that it has.
func (w *writer) parameter(param int) {
	if w.numbers[param] == 0 {
		w.give(param)
	}
	w.number(w.numbers[param])
}

// give gives a parameter the next number.
func (w *writer) give(param int) {
	w.args = append(w.args, Arg{param, whole})
	w.numbers[param] = len(w.args)
}

// elements writes a parameter for each element of a list.
func (w *writer) elements(param, length int) {
	for i := range length {
		if i > 0 {
			w.literal(", ")
		}
		w.args = append(w.args, Arg{param, i})
		w.number(len(w.args))
	}
}

func (w *writer) number(n int) {
	if w.marks {
		w.text = append(w.text, '?')
		return
	}
	if w.dialect == SQLite {
		w.text = strconv.AppendInt(append(w.text, '?'), int64(n), 10)
		return
	}
	if len(w.text) > 0 && isWord(w.text[len(w.text)-1]) {
		w.text = append(w.text, ' ')
	}
	w.text = strconv.AppendInt(append(w.text, '$'), int64(n), 10)
	w.touches = true
}

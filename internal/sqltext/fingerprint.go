package sqltext

import (
	"slices"
	"strings"
)

// Fingerprint is what statements have in common that differ in their values alone:
// their tokens with a blank between them, where comments are gone, words without
// quotes are in lower case, each literal and parameter is `?`, and so are lists of
// them and lists of rows of them. It is for people to read, and not for an engine.
func Fingerprint(d Dialect, query string) string {
	var f fingerprint
	for tok := range d.Tokens(query) {
		f.add(tok)
	}
	return f.String()
}

// fingerprint is the pieces of one.
type fingerprint struct {
	pieces []shape
	spaced bool // there was a blank or a comment before the next token
}

type shape struct {
	text  string
	tight bool // no blank stands before it
}

func (f *fingerprint) add(tok Token) {
	text := tok.Text
	switch tok.Kind {
	case Space, Comment:
		f.spaced = true
		return
	case String, Number, Mark, Numbered, Positional, Named:
		text = "?"
	case Word:
		text = strings.ToLower(text)
	}
	f.pieces = append(f.pieces, shape{text, f.isTight(text)})
	f.spaced = false
	f.fold("?", ",", "?")
	f.fold("(", "?", ")", ",", "(", "?", ")")
}

// isTight reports whether no blank stands before text.
func (f *fingerprint) isTight(text string) bool {
	if len(f.pieces) == 0 {
		return true
	}
	last := f.pieces[len(f.pieces)-1].text
	switch text {
	case ",", ")", ";", ".":
		return true
	case "(":
		return !f.spaced || last == "("
	}
	return last == "(" || last == "."
}

// fold makes one of the two equal ends of a list, if the pieces end with it.
func (f *fingerprint) fold(list ...string) {
	from := len(f.pieces) - len(list)
	if from < 0 || !slices.EqualFunc(f.pieces[from:], list, func(p shape, text string) bool { return p.text == text }) {
		return
	}
	f.pieces = f.pieces[:from+len(list)/2]
}

func (f *fingerprint) String() string {
	var b strings.Builder
	for _, p := range f.pieces {
		if !p.tight {
			b.WriteByte(' ')
		}
		b.WriteString(p.text)
	}
	return b.String()
}

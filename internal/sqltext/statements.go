package sqltext

import "iter"

// A Statement is one of the statements of a text.
type Statement struct {
	Text string // without its semicolon and the blanks around it, with its comments
	Pos  int    // the byte offset of Text
	Verb Verb   // how it controls the transaction
}

// Statements iterates over the statements of query, which end at semicolons. Those in parentheses and in the body
// of a trigger or a function separate statements within the one that they belong to. A statement of comments and
// blanks only is left out.
func Statements(d Dialect, query string) iter.Seq[Statement] {
	return func(yield func(Statement) bool) {
		s := splitter{lexer: lexer{dialect: d, query: query}}
		for s.begin() {
			s.finish()
			stmt := Statement{Text: query[s.start:s.end], Pos: s.start, Verb: s.head.verb()}
			if !yield(stmt) {
				return
			}
		}
	}
}

// IsScript reports whether query has more than one statement.
func IsScript(d Dialect, query string) bool {
	statements := 0
	for range Statements(d, query) {
		if statements++; statements > 1 {
			return true
		}
	}
	return false
}

// splitter reads a text statement by statement.
type splitter struct {
	lexer lexer

	start, end int  // where the statement is, blanks around it aside
	ended      bool // its semicolon was read, or the end of the text
	head       head // its first tokens
	size       int  // how many tokens it has, comments aside

	depth int    // how many parentheses are open
	body  bool   // a body is open
	fresh bool   // a statement of the body begins
	prev  string // the token before
}

// begin goes to the next statement that isn't empty and reads its head; it reports whether there is one.
func (s *splitter) begin() bool {
	for s.lexer.pos < len(s.lexer.query) {
		*s = splitter{lexer: s.lexer, start: -1}
		for !s.ended && s.size < len(s.head) {
			s.read()
		}
		if s.size > 0 {
			return true
		}
	}
	return false
}

// finish reads the statement to its end.
func (s *splitter) finish() {
	for !s.ended {
		s.read()
	}
}

// read reads one token.
func (s *splitter) read() {
	tok, ok := s.lexer.next()
	if !ok || tok.Text == ";" && s.depth == 0 && !s.body {
		s.ended = true
		return
	}
	if tok.Kind == Space {
		return
	}
	if s.start < 0 {
		s.start = tok.Pos
	}
	s.end = tok.Pos + len(tok.Text)
	if tok.Kind != Comment {
		s.take(tok)
	}
}

// take notes what a token that is no comment means to the statement.
func (s *splitter) take(tok Token) {
	if s.size < len(s.head) {
		s.head[s.size] = tok.Text
	}
	s.size++
	switch tok.Text {
	case "(":
		s.depth++
	case ")":
		s.depth = max(0, s.depth-1)
	}
	s.takeBody(tok)
	s.prev = tok.Text
}

// takeBody notes where a body begins and ends. No statement of a body begins with END, so that there an END
// closes it, and no other does: CASE … END is within a statement.
func (s *splitter) takeBody(tok Token) {
	switch {
	case s.depth > 0:
	case !s.body && s.opensBody(tok):
		s.body, s.fresh = true, true
		return
	case s.body && s.fresh && is(tok.Text, "END"):
		s.body = false
	}
	s.fresh = tok.Text == ";"
}

// opensBody reports whether tok is the BEGIN of a trigger of SQLite or the ATOMIC of BEGIN ATOMIC in a function of
// PostgreSQL. PostgreSQL's triggers have no body, and its other functions have theirs in quotes.
func (s *splitter) opensBody(tok Token) bool {
	if s.lexer.dialect == Postgres {
		return is(tok.Text, "ATOMIC") && is(s.prev, "BEGIN") && s.head.isRoutine()
	}
	return is(tok.Text, "BEGIN") && s.head.isTrigger()
}

// head is the first tokens of a statement, as many as EXPLAIN QUERY PLAN CREATE TEMP TRIGGER has.
type head [6]string

// isTrigger reports whether h begins CREATE TRIGGER as SQLite has it; EXPLAIN may stand before it.
func (h *head) isTrigger() bool {
	words := h[:]
	if is(words[0], "EXPLAIN") {
		words = words[1:]
	}
	if is(words[0], "QUERY") {
		words = words[2:]
	}
	return is(words[0], "CREATE") &&
		(is(words[1], "TRIGGER") || (is(words[1], "TEMP") || is(words[1], "TEMPORARY")) && is(words[2], "TRIGGER"))
}

// isRoutine reports whether h begins CREATE FUNCTION or CREATE PROCEDURE as PostgreSQL has them.
func (h *head) isRoutine() bool {
	words := h[1:]
	if is(words[0], "OR") && is(words[1], "REPLACE") {
		words = words[2:]
	}
	return is(h[0], "CREATE") && (is(words[0], "FUNCTION") || is(words[0], "PROCEDURE"))
}

// is reports whether text is the keyword, in any case. Only ASCII letters have case here, as in both engines;
// strings.EqualFold would take 'ſ' for an S.
func is(text, keyword string) bool {
	if len(text) != len(keyword) {
		return false
	}
	for i := range len(text) {
		if text[i]&^0x20 != keyword[i] {
			return false
		}
	}
	return true
}

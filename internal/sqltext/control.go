package sqltext

import "strings"

// A Verb says how a statement controls the transaction. The zero value is that of a statement that doesn't.
type Verb uint8

// The verbs of both engines. An engine refuses those that it doesn't have.
const (
	Savepoint          Verb = iota + 1 // SAVEPOINT a
	Release                            // RELEASE [SAVEPOINT] a
	RollbackTo                         // ROLLBACK [WORK | TRANSACTION] TO [SAVEPOINT] a
	Begin                              // BEGIN, with its modes
	StartTransaction                   // START TRANSACTION, with its modes
	PrepareTransaction                 // PREPARE TRANSACTION 'a', and not the PREPARE of a statement
	Commit                             // COMMIT, also AND CHAIN
	CommitPrepared                     // COMMIT PREPARED 'a'
	End                                // END, which is COMMIT
	Rollback                           // ROLLBACK, also AND CHAIN
	RollbackPrepared                   // ROLLBACK PREPARED 'a'
	Abort                              // ABORT, which is ROLLBACK
)

var verbs = [...]string{
	Savepoint:          "SAVEPOINT",
	Release:            "RELEASE",
	RollbackTo:         "ROLLBACK TO",
	Begin:              "BEGIN",
	StartTransaction:   "START TRANSACTION",
	PrepareTransaction: "PREPARE TRANSACTION",
	Commit:             "COMMIT",
	CommitPrepared:     "COMMIT PREPARED",
	End:                "END",
	Rollback:           "ROLLBACK",
	RollbackPrepared:   "ROLLBACK PREPARED",
	Abort:              "ABORT",
}

// String returns the verb as in "ROLLBACK TO", or "" for the zero value.
func (v Verb) String() string { return verbs[v] }

// IsSavepoint reports whether the verb is about savepoints. The others, but for the zero value, begin or end a
// transaction.
func (v Verb) IsSavepoint() bool { return v == Savepoint || v == Release || v == RollbackTo }

// Control returns the verb of the first statement of query that controls the transaction, or the zero value.
//
// It allocates nothing, and reads a query without a semicolon no further than its first words.
func Control(d Dialect, query string) Verb {
	s := splitter{lexer: lexer{dialect: d, query: query}}
	for s.begin() {
		if v := s.head.verb(); v != 0 {
			return v
		}
		if !s.ended && strings.IndexByte(query[s.lexer.pos:], ';') < 0 {
			return 0
		}
		s.finish()
	}
	return 0
}

// verb returns the verb of the statement that h begins. What stands before a verb, a parenthesis or EXPLAIN,
// makes it another statement or an error.
func (h *head) verb() Verb {
	switch first, second := h[0], h[1]; {
	case is(first, "SAVEPOINT"):
		return Savepoint
	case is(first, "RELEASE"):
		return Release
	case is(first, "ROLLBACK"):
		return h.rollback()
	case is(first, "COMMIT") && is(second, "PREPARED"):
		return CommitPrepared
	case is(first, "COMMIT"):
		return Commit
	case is(first, "BEGIN"):
		return Begin
	case is(first, "START") && is(second, "TRANSACTION"):
		return StartTransaction
	case is(first, "PREPARE") && is(second, "TRANSACTION") && !h.isNamedTransaction():
		return PrepareTransaction
	case is(first, "END"):
		return End
	case is(first, "ABORT"):
		return Abort
	}
	return 0
}

// rollback returns which ROLLBACK h begins.
func (h *head) rollback() Verb {
	second := h[1]
	if is(second, "WORK") || is(second, "TRANSACTION") {
		second = h[2]
	}
	switch {
	case is(second, "TO"):
		return RollbackTo
	case is(second, "PREPARED"):
		return RollbackPrepared
	}
	return Rollback
}

// isNamedTransaction reports whether h is PREPARE with a statement that is named transaction.
func (h *head) isNamedTransaction() bool { return is(h[2], "AS") || h[2] == "(" }

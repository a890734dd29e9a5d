package conformance

import (
	"slices"
	"strings"
	"testing"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/testing/dbtest"
)

// beyond are the sentences, and parts of sentences, that sandboxes of dbtest are not
// held against. The others hold there as in production.
var beyond = map[thole.Engine][]string{
	// The wait for another session says "the turn" instead of the writer (B9), the
	// test opens a file (E2/options), and what waits for itself is told at once, by
	// another error (L1/ctx).
	thole.SQLite: {"B9", "E2/options", "L1/ctx"},

	thole.Postgres: {
		// Others must look at the connection, hold it up or break it, or what the
		// session has committed must be seen on another one.
		"A1/acknowledged", "A1/exceptions", "A1/nil", "A2/joined", "A5/error", "B1", "B2/between statements", "B2/in a statement",
		"B4/bounded", "B4/in COMMIT", "B5/cancelled", "B5/lost", "B6/fn returns", "B7", "C11/outermost", "C2/detached", "C2/fails",
		"C3", "D1/first flight", "D1/lost", "C5/at once", "C5/second", "C7/fails", "C7/succeeds", "D2/unknown", "D3", "E1/before COMMIT", "E1/late",
		"E1/unknown", "E2/COMMIT lost", "E2/always lost", "E2/answer lost", "E2/ctx has ended", "E2/no answer", "E2/round trips",
		"E2/still running", "E3", "E3a", "E4", "E5/once", "E5/script", "E5/stock", "E6/status", "E6/tag", "F1/refused",
		"F2/interrupt", "G4/second", "G5/Tx", "G5/rows", "G5/statement", "G6/statement", "G8/script", "G8/statement",
		"H1/after COMMIT", "H7", "I3", "I6/interrupted", "I8", "J2/idle", "J2/session", "J4/network", "J5",

		// Sessions take turns: they don't meet, and what waits for itself is told so.
		"B9", "C13/real", "D7/COMMIT", "D7/statement", "E2/at once", "I1/write", "L1/another goroutine", "L1/ctx", "L1/nested", "L1/same place",

		// The transaction is not DEFERRABLE; and CREATE INDEX CONCURRENTLY needs a
		// Database.
		"J3", "J6/outside",

		// In a synctest bubble there is no server.
		"D4/pauses", "D4/holds nothing",

		// The sandbox is over when a statement has ended its transaction. The test
		// opens a database by its URL.
		"F1/behind the lexer", "E2/options",
	},
}

// holds reports whether the target is held against a sentence, or a part of one.
func (target Target) holds(name string) bool {
	return target.Sandbox == "" || !slices.Contains(beyond[target.Sandbox], name)
}

// sandbox opens a sandbox of the test's own.
func (w *world) sandbox(t *testing.T, configure func(*thole.Config)) *thole.DB {
	t.Helper()
	return dbtest.Config{Engines: []thole.Engine{w.target.Sandbox}, Configure: configure}.Sandbox(t)
}

// sentenceOf is the name of the sentence that a test is about.
func sentenceOf(t *testing.T) string {
	t.Helper()
	name := t.Name()
	return name[strings.LastIndexByte(name, '/')+1:]
}

package dbtest

import (
	"testing"

	"github.com/tholedb/thole"
)

// Hook is a function that ran because a session was committed.
type Hook struct {
	Name    string // of the function, as runtime has it: "example.com/shop.(*Service).Forge.func1"
	Session string // the session's Label
	Caller  string // where the session was opened: the file, with its folder, and the line
}

// Hooks are the functions given to [thole.Tx.OnCommit] that ran, in the order in
// which they ran: each once for each session that was committed, none of one that
// was rolled back. In a sandbox, too, they really run, when the outermost session of
// the code under test has ended and outside it, so that a test need not call them.
// Of thousands the oldest are left out.
func Hooks(tb testing.TB, db *thole.DB) []Hook {
	tb.Helper()
	var hooks []Hook
	for _, h := range rigOf(tb, db).probe.Hooks() {
		hooks = append(hooks, Hook{Name: h.Name, Session: h.Info.Label, Caller: h.Info.Caller.String()})
	}
	return hooks
}

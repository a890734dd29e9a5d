package dbtest

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tholedb/thole/internal/engine"
	"github.com/tholedb/thole/internal/probe"
)

// This file is about what a test that has failed prints: what ran on its databases.

// watch has the end of the test print what there is to say, and its deadline too.
// What ends the rig is registered later, and runs before.
func (r *rig) watch() {
	r.tb.Helper()
	checkEnv(r.tb)
	r.tb.Cleanup(r.tell)
	r.watchDeadline()
}

// checkEnv refuses values that the variables of this package don't have.
func checkEnv(tb testing.TB) {
	tb.Helper()
	switch keep := os.Getenv(keepVariable); keep {
	case "", keepFailed, keepAll:
	default:
		tb.Fatalf("dbtest: %s is %q: it is %s, %s or not set", keepVariable, keep, keepFailed, keepAll)
	}
	if args := os.Getenv(argsVariable); args != "" && args != argsOff {
		tb.Fatalf("dbtest: %s is %q: it is %s or not set", argsVariable, args, argsOff)
	}
}

// argsVariable says whether arguments are printed.
const (
	argsVariable = "DBTEST_ARGS"
	argsOff      = "off"
)

// tell prints what there is to say of the test when it has ended: of one that has
// passed hints alone.
func (r *rig) tell() {
	r.tb.Helper()
	for _, hint := range r.hints() {
		r.tb.Logf("dbtest: %s", hint)
	}
	if r.tb.Failed() {
		r.tb.Logf("dbtest: what ran on %s:\n%s", r.probe.Name(), report(r.probe.Log()))
	}
}

// mostLines is how many statements are printed.
const mostLines = 200

// report prints sessions with their statements, those of nested ones further to the
// right.
func report(log probe.Log) string {
	var w writer
	shown := log.Statements[max(0, len(log.Statements)-mostLines):]
	if left := log.Dropped + len(log.Statements) - len(shown); left > 0 {
		w.line(0, "%d lines before these are left out", left)
	}
	of := map[*probe.Session][]*probe.Statement{}
	for _, st := range shown {
		of[st.Session] = append(of[st.Session], st)
	}
	for _, s := range log.Sessions {
		if len(of[s]) > 0 || len(shown) == len(log.Statements) && !s.Outside {
			w.session(s, of[s])
		}
	}
	if w.Len() == 0 {
		w.line(0, "nothing")
	}
	return strings.TrimSuffix(w.String(), "\n")
}

// writer writes the lines of a report.
type writer struct{ strings.Builder }

func (w *writer) line(depth int, format string, args ...any) {
	w.WriteString(strings.Repeat("\t", depth+1))
	_, _ = fmt.Fprintf(w, format, args...) // never fails
	w.WriteByte('\n')
}

func (w *writer) session(s *probe.Session, statements []*probe.Statement) {
	depth := 0
	if !s.Outside {
		w.line(0, "%s", sessionLine(s))
		depth++
	}
	for _, st := range statements {
		switch st.Kind {
		case probe.Nested:
			w.line(st.Depth, "nested session opened at %s", st.Caller)
		case probe.Undone:
			w.line(st.Depth, "the nested session was rolled back")
		case probe.Ran:
			w.line(depth+st.Depth, "%s", statementLine(st))
		}
	}
}

// sessionLine reads `session "forge" opened at shop/forge.go:12, attempt 2:
// committed after 1.2ms`.
func sessionLine(s *probe.Session) string {
	label := ""
	if s.Info.Label != "" {
		label = fmt.Sprintf(" %q", s.Info.Label)
	}
	text := fmt.Sprintf("session%s opened at %s, attempt %d%s: ", label, s.Info.Caller, s.Attempt, modes(s.Options.ReadOnly, s.Options.Isolation))
	switch {
	case !s.Ended:
		return text + "has not ended"
	case s.Outcome == engine.Committed:
		return fmt.Sprintf("%scommitted after %s", text, round(s.Took))
	}
	return fmt.Sprintf("%s%s after %s: %s", text, outcomes[s.Outcome], round(s.Took), oneLine(fmt.Sprint(s.Err)))
}

var outcomes = map[engine.Outcome]string{engine.RolledBack: "rolled back", engine.Unknown: "outcome unknown"}

// statementLine reads `insert into item (name) values (?) ["shield"]: 1 row after
// 80µs, at shop/forge.go:14`.
func statementLine(st *probe.Statement) string {
	text := oneLine(st.Text) + arguments(st.Args) + ": "
	switch {
	case st.Err != nil:
		text += "failed: " + oneLine(st.Err.Error())
	case !st.Ended:
		text += "is running"
	case st.Rows < 0:
		text += "done"
	default:
		text += plural(int(st.Rows), "row")
	}
	if st.Ended {
		text += fmt.Sprintf(" after %s", round(st.Took))
	}
	return text + ", at " + st.Caller.String()
}

// arguments prints them, or how many they are where that is asked for.
func arguments(args []string) string {
	switch {
	case len(args) == 0:
		return ""
	case os.Getenv(argsVariable) == argsOff:
		return fmt.Sprintf(" [%s]", plural(len(args), "argument"))
	}
	return " [" + strings.Join(args, ", ") + "]"
}

// longest is how much of a text is printed.
const longest = 500

// oneLine is a text without its line ends and indentation, cut where it is long.
func oneLine(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) <= longest {
		return text
	}
	return strings.ToValidUTF8(text[:longest], "") + "…"
}

func round(d time.Duration) time.Duration {
	if d > time.Millisecond {
		return d.Round(10 * time.Microsecond)
	}
	return d.Round(time.Microsecond)
}

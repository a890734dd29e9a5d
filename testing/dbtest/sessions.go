package dbtest

import (
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/engine"
	"github.com/tholedb/thole/internal/probe"
)

// Sessions runs f and returns the outermost sessions that began on db meanwhile.
// One that ran several attempts is one session, and its outcome is that of the last.
// Nested sessions belong to it, and statements outside a session are none, nor are
// sessions that thole opens for itself, as to purge idempotency keys.
//
//	log := dbtest.Sessions(t, db, func() { err = forge(ctx, db) })
//	log.Committed(1)
//	log.Labelled("forge").Attempts(3)
func Sessions(tb testing.TB, db *thole.DB, f func()) *SessionLog {
	tb.Helper()
	seen := observe(rigOf(tb, db).probe, f)
	log := &SessionLog{tb: tb, of: "f"}
	known := map[*engine.Info]int{}
	for _, s := range seen.Sessions {
		if s.Outside {
			continue
		}
		i, again := known[s.Info]
		if !again {
			i = len(log.sessions)
			known[s.Info] = i
			log.sessions = append(log.sessions, SessionInfo{})
		}
		log.sessions[i] = sessionInfo(s)
	}
	return log
}

func sessionInfo(s *probe.Session) SessionInfo {
	return SessionInfo{
		Label:     s.Info.Label,
		Caller:    s.Info.Caller.String(),
		Open:      !s.Ended,
		Outcome:   thole.Outcome(s.Outcome),
		Err:       s.Err,
		Attempts:  s.Attempt,
		ReadOnly:  s.Options.ReadOnly,
		Isolation: s.Options.Isolation,
		Took:      s.Took,
	}
}

// SessionInfo is a session that ran.
type SessionInfo struct {
	Label     string             // [thole.SessionOptions.Label]
	Caller    string             // where it was opened: the file, with its folder, and the line
	Open      bool               // it has not ended
	Outcome   thole.Outcome      // of the last attempt, unless it is open
	Err       error              // why that was not committed
	Attempts  int                // how often it ran
	ReadOnly  bool               // it could not write
	Isolation sql.IsolationLevel // it has asked for
	Took      time.Duration      // the last attempt
}

// String reads `session "forge" opened at shop/forge.go:12, 2 attempts: committed`.
func (s SessionInfo) String() string {
	var b strings.Builder
	b.WriteString("session")
	if s.Label != "" {
		fmt.Fprintf(&b, " %q", s.Label)
	}
	fmt.Fprintf(&b, " opened at %s, %s%s", s.Caller, plural(s.Attempts, "attempt"), modes(s.ReadOnly, s.Isolation))
	switch {
	case s.Open:
		b.WriteString(": is open")
	case s.Err != nil:
		fmt.Fprintf(&b, ": %s: %v", s.Outcome, s.Err)
	default:
		fmt.Fprintf(&b, ": %s", s.Outcome)
	}
	return b.String()
}

// modes are how a session runs, where that is not the usual way.
func modes(readOnly bool, isolation sql.IsolationLevel) string {
	text := ""
	if readOnly {
		text += ", read-only"
	}
	if isolation != sql.LevelDefault {
		text += ", " + strings.ToLower(isolation.String())
	}
	return text
}

// SessionLog is what [Sessions] has seen. Its methods that take what is wanted fail
// the test, and go on, when that is not so.
type SessionLog struct {
	tb       testing.TB
	of       string // what it is the log of
	sessions []SessionInfo
}

// Sessions are the sessions in the order in which they began.
func (l *SessionLog) Sessions() []SessionInfo { return slices.Clone(l.sessions) }

// Labelled are those of the sessions that have the label.
func (l *SessionLog) Labelled(label string) *SessionLog {
	return &SessionLog{
		tb:       l.tb,
		of:       fmt.Sprintf("%s with the label %q", l.of, label),
		sessions: slices.DeleteFunc(l.Sessions(), func(s SessionInfo) bool { return s.Label != label }),
	}
}

// Committed wants n sessions that were committed.
func (l *SessionLog) Committed(n int) {
	l.tb.Helper()
	l.count(n, thole.Committed)
}

// RolledBack wants n sessions that were rolled back.
func (l *SessionLog) RolledBack(n int) {
	l.tb.Helper()
	l.count(n, thole.RolledBack)
}

// Unknown wants n sessions of which it is unknown what became.
func (l *SessionLog) Unknown(n int) {
	l.tb.Helper()
	l.count(n, thole.Unknown)
}

func (l *SessionLog) count(want int, outcome thole.Outcome) {
	l.tb.Helper()
	got := 0
	for _, s := range l.sessions {
		if !s.Open && s.Outcome == outcome {
			got++
		}
	}
	if got != want {
		l.tb.Errorf("dbtest: got %s %s, want %d\n%s", plural(got, "session"), outcome, want, l)
	}
}

// Attempts wants that there are sessions, and that each ran n times.
func (l *SessionLog) Attempts(n int) {
	l.tb.Helper()
	l.all(fmt.Sprintf("%s each", plural(n, "attempt")), func(s SessionInfo) bool { return s.Attempts == n })
}

// ReadOnly wants that there are sessions, and that all are read-only.
func (l *SessionLog) ReadOnly() {
	l.tb.Helper()
	l.all("read-only sessions alone", func(s SessionInfo) bool { return s.ReadOnly })
}

// Isolation wants that there are sessions, and that each has asked for the level.
func (l *SessionLog) Isolation(level sql.IsolationLevel) {
	l.tb.Helper()
	l.all(strings.ToLower(level.String())+" sessions alone", func(s SessionInfo) bool { return s.Isolation == level })
}

func (l *SessionLog) all(want string, ok func(SessionInfo) bool) {
	l.tb.Helper()
	if len(l.sessions) == 0 || slices.ContainsFunc(l.sessions, func(s SessionInfo) bool { return !ok(s) }) {
		l.tb.Errorf("dbtest: want %s\n%s", want, l)
	}
}

// String lists the sessions.
func (l *SessionLog) String() string {
	if len(l.sessions) == 0 {
		return fmt.Sprintf("\tno session began in %s", l.of)
	}
	lines := make([]string, len(l.sessions))
	for i, s := range l.sessions {
		lines[i] = "\t" + s.String()
	}
	return strings.Join(lines, "\n")
}

package probe

import (
	"context"
	"errors"
	"reflect"
	"runtime"
	"slices"
	"time"

	"github.com/tholedb/thole/internal/engine"
)

// Session is what was noted of a session, or of a connection outside one.
type Session struct {
	Info    *engine.Info
	Options engine.Options
	Attempt int  // counts from 1
	Outside bool // it is statements outside a session
	Aside   bool // it is thole's own, as one about idempotency keys; no mark has it

	// The rest is guarded by the probe's mu.
	Began   time.Time // the attempt
	Ended   bool
	Outcome engine.Outcome
	Err     error // why it was not committed
	Took    time.Duration

	last   *Statement
	failed *Statement // in a level that is still open
}

// Statement is what was noted of a statement.
type Statement struct {
	Session *Session
	Kind    Kind
	Text    string
	Args    []string      // as they are printed
	Depth   int           // of the savepoint that it ran in; 0 is none
	Caller  engine.Caller // the place in the program
	Began   time.Time
	Ended   bool
	Took    time.Duration // up to its first row, where it has rows
	Rows    int64         // affected, or read; -1 if that is not known
	Err     error         // as the engine explains it, once that was asked

	told bool // it was asked
}

// Kind says what a [Statement] is.
type Kind uint8

// The kinds of what is noted in a session.
const (
	Ran    Kind = iota // a statement
	Nested             // a nested session was opened
	Undone             // it was rolled back
)

// Hook is a function that ran because a session was committed.
type Hook struct {
	Name string // of the function, with its package
	Info *engine.Info
}

// begin notes that a session begins.
func (p *Probe) begin(s *Session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.Began = time.Now()
	if s.Info != nil && !s.Outside {
		s.Attempt = 1 + p.attemptsOf(s.Info)
	}
	p.sessions.add(s)
	if s.Aside {
		return
	}
	for m := range p.marks {
		m.sessions = append(m.sessions, s)
	}
}

// attemptsOf is how often the session has begun. Its attempts are among those that
// have begun after it.
func (p *Probe) attemptsOf(info *engine.Info) int {
	for _, s := range slices.Backward(p.sessions.items) {
		switch {
		case s.Info == info:
			return s.Attempt
		case s.Began.Before(info.Began):
			return 0
		}
	}
	return 0
}

// note notes that a statement begins.
func (p *Probe) note(s *Session, depth int, text string, args []any) *Statement {
	st := &Statement{Session: s, Text: text, Args: printed(args), Depth: depth, Caller: engine.Here(), Began: time.Now(), Rows: -1}
	p.mu.Lock()
	defer p.mu.Unlock()
	s.last = st
	p.goesOn(s, st)
	p.add(st)
	return st
}

// add adds to the log. The caller holds p.mu.
func (p *Probe) add(st *Statement) {
	p.statements.add(st)
	if st.Kind != Ran || st.Session.Aside {
		return
	}
	for m := range p.marks {
		m.statements = append(m.statements, st)
	}
}

// noted notes how a statement ended.
func (p *Probe) noted(st *Statement, rows int64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	st.Ended, st.Took, st.Rows, st.Err = true, time.Since(st.Began), rows, err
}

// explained notes what the engine says of the error of a session's last statement,
// or of reading its rows.
func (p *Probe) explained(s *Session, told *engine.Error) *engine.Error {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := s.last
	if st == nil || st.told {
		return told
	}
	st.Err, st.told = told, true
	p.hasFailed(s, st, told)
	return told
}

// nested notes that a savepoint was opened, the depth of which is given.
func (p *Probe) nested(ctx context.Context, s *Session, depth int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.add(&Statement{Session: s, Kind: Nested, Depth: depth, Caller: engine.HereOr(ctx), Began: time.Now(), Ended: true})
}

// undone notes that a savepoint was rolled back, and what had failed in it.
func (p *Probe) undone(s *Session, depth int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.failed != nil && s.failed.Depth >= depth {
		s.failed = nil
	}
	p.add(&Statement{Session: s, Kind: Undone, Depth: depth, Began: time.Now(), Ended: true})
}

// ended notes how a session ended.
func (p *Probe) ended(s *Session, outcome engine.Outcome, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.Ended, s.Outcome, s.Err = true, outcome, err
	s.Took = time.Since(s.Began)
	if outcome == engine.Committed || errors.Is(err, engine.ErrTxAborted) { // for the session does not send what is refused
		p.goesOn(s, nil)
	}
	if outcome == engine.Unknown && s.last != nil && isEscape(err) {
		p.escapes = append(p.escapes, s.last.Text)
	}
}

// hookRuns notes that a hook runs.
func (p *Probe) hookRuns(s *Session, f func(ctx context.Context)) {
	name := "a function"
	if known := runtime.FuncForPC(reflect.ValueOf(f).Pointer()); known != nil {
		name = known.Name()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hooks.add(Hook{name, s.Info})
}

package probe

import (
	"context"
	"reflect"
	"runtime"
	"time"

	"github.com/tholedb/thole/internal/engine"
)

// Session is what was noted of a session, or of a connection outside one.
type Session struct {
	Info    *engine.Info
	Options engine.Options
	Attempt int  // counts from 1
	Outside bool // it is statements outside a session

	// The rest is guarded by the probe's mu.
	Statements []*Statement
	Ended      bool
	Outcome    engine.Outcome
	Err        error // why it was not committed
	Took       time.Duration
}

// Statement is what was noted of a statement.
type Statement struct {
	Text   string
	Args   []any
	Depth  int           // of the savepoint that it ran in; 0 is none
	Caller engine.Caller // the place in the program
	Began  time.Time
	Took   time.Duration // up to its first row, where it has rows
	Rows   int64         // affected, or returned so far; -1 if that is not known
	Err    error
}

// Hook is a function that ran because a session was committed.
type Hook struct {
	Name string // of the function, with its package
	Info *engine.Info
}

// begin notes that a session begins.
func (p *Probe) begin(s *Session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.Info != nil && !s.Outside {
		p.attempts[s.Info]++
		s.Attempt = p.attempts[s.Info]
	}
	p.sessions = append(p.sessions, s)
}

// note notes that a statement begins.
func (p *Probe) note(s *Session, depth int, text string, args []any) *Statement {
	st := &Statement{Text: text, Args: args, Depth: depth, Caller: engine.Here(), Began: time.Now(), Rows: -1}
	p.mu.Lock()
	defer p.mu.Unlock()
	s.Statements = append(s.Statements, st)
	for _, m := range p.marks {
		m.statements = append(m.statements, st)
	}
	return st
}

// noted notes how it ended.
func (p *Probe) noted(st *Statement, rows int64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	st.Took, st.Rows, st.Err = time.Since(st.Began), rows, err
}

// ended notes how a session ended.
func (p *Probe) ended(s *Session, outcome engine.Outcome, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.Ended, s.Outcome, s.Err = true, outcome, err
	s.Took = time.Since(s.Info.Began)
	if outcome == engine.Unknown && len(s.Statements) > 0 && isEscape(err) {
		p.escapes = append(p.escapes, s.Statements[len(s.Statements)-1].Text)
	}
}

// Sessions are copies of the notes so far.
func (p *Probe) Sessions() []Session {
	p.mu.Lock()
	defer p.mu.Unlock()
	sessions := make([]Session, len(p.sessions))
	for i, s := range p.sessions {
		sessions[i] = *s
		sessions[i].Statements = copies(s.Statements)
	}
	return sessions
}

func copies(statements []*Statement) []*Statement {
	own := make([]*Statement, len(statements))
	for i, st := range statements {
		c := *st
		own[i] = &c
	}
	return own
}

// Mark is where somebody began to look at statements.
type Mark struct{ statements []*Statement }

// Mark begins to collect statements.
func (p *Probe) Mark() *Mark {
	m := new(Mark)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.marks = append(p.marks, m)
	return m
}

// Since ends a mark and returns the statements that began after it.
func (p *Probe) Since(m *Mark) []*Statement {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, other := range p.marks {
		if other == m {
			p.marks = append(p.marks[:i:i], p.marks[i+1:]...)
			break
		}
	}
	return copies(m.statements)
}

// hookRuns notes that a hook runs.
func (p *Probe) hookRuns(s *Session, f func(ctx context.Context)) {
	name := "a function"
	if known := runtime.FuncForPC(reflect.ValueOf(f).Pointer()); known != nil {
		name = known.Name()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hooks = append(p.hooks, Hook{name, s.Info})
}

// Hooks are those that ran so far.
func (p *Probe) Hooks() []Hook {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Hook(nil), p.hooks...)
}

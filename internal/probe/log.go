package probe

import (
	"cmp"
	"slices"

	"github.com/tholedb/thole/internal/engine"
)

// most is how much of each kind is kept at least: so much memory a test may take,
// however long it runs.
const most = 1000

// tail is the newest of what was added, between most and twice as much, and how
// much of it was dropped.
type tail[T any] struct {
	items   []T
	dropped int
}

func (t *tail[T]) add(item T) {
	if len(t.items) == 2*most {
		t.items = slices.Clone(t.items[most:])
		t.dropped += most
	}
	t.items = append(t.items, item)
}

// Log is what a probe has noted: the newest of it.
type Log struct {
	Sessions   []*Session // in the order in which they began
	Statements []*Statement
	Dropped    int // statements that were noted before these
}

// Log is a copy of the notes so far.
func (p *Probe) Log() Log {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := copier{}
	return Log{c.sessions(p.sessions.items), c.statements(p.statements.items), p.statements.dropped}
}

// copier copies notes, so that they can be read without the probe's mu.
type copier map[*Session]*Session

func (c copier) session(s *Session) *Session {
	if own, ok := c[s]; ok {
		return own
	}
	own := *s
	c[s] = &own
	return &own
}

func (c copier) sessions(sessions []*Session) []*Session {
	own := make([]*Session, len(sessions))
	for i, s := range sessions {
		own[i] = c.session(s)
	}
	return own
}

func (c copier) statement(st *Statement) *Statement {
	if st == nil {
		return nil
	}
	own := *st
	own.Session = c.session(st.Session)
	return &own
}

func (c copier) statements(statements []*Statement) []*Statement {
	own := make([]*Statement, len(statements))
	for i, st := range statements {
		own[i] = c.statement(st)
	}
	return own
}

// Mark is where somebody began to look.
type Mark struct {
	sessions   []*Session
	statements []*Statement
}

// Mark begins to collect what begins from now on, all of it but for what thole does
// aside.
func (p *Probe) Mark() *Mark {
	m := new(Mark)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.marks[m] = struct{}{}
	return m
}

// Since ends a mark and returns what began after it.
func (p *Probe) Since(m *Mark) Log {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.marks, m)
	c := copier{}
	return Log{Sessions: c.sessions(m.sessions), Statements: c.statements(m.statements)}
}

// Hooks are those that ran so far, but for the oldest of very many.
func (p *Probe) Hooks() []Hook {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.hooks.items)
}

// Open is something that has not been given back.
type Open struct {
	Info *engine.Info
	Last *Statement // nil if it has not run any
	Turn bool       // it is its turn
}

// Open is what has not been given back, the oldest first.
func (p *Probe) Open() []Open {
	holder := p.turns.who()
	p.mu.Lock()
	defer p.mu.Unlock()
	c := copier{}
	var open []Open
	for use := range p.open {
		last := p.lastOf(use.Info)
		open = append(open, Open{Info: use.Info, Last: c.statement(last), Turn: holder == use.Info})
	}
	slices.SortFunc(open, func(a, b Open) int {
		return cmp.Or(a.Info.Began.Compare(b.Info.Began), cmp.Compare(a.Info.Label, b.Info.Label))
	})
	return open
}

// lastOf is the last statement of a session, or nil. The caller holds p.mu.
func (p *Probe) lastOf(info *engine.Info) *Statement {
	for _, s := range slices.Backward(p.sessions.items) {
		if s.Info == info {
			return s.last
		}
	}
	return nil
}

// who has the turn, or nil.
func (t *turns) who() *engine.Info {
	if t == nil {
		return nil
	}
	if at := t.holder.Load(); at != nil {
		return at.Info
	}
	return nil
}

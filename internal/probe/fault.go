package probe

import (
	"context"
	"strings"

	"github.com/tholedb/thole/internal/engine"
)

// place is where in the life of a session a fault can happen.
type place uint8

const (
	atBegin place = iota
	atStatement
	atCommit
	atRollback
)

// point is a place that a session has come to.
type point struct {
	at      place
	session *session // nil outside a session
	text    string   // of a statement
}

// Fault is something that goes wrong.
type Fault struct {
	Name  string // for messages
	at    place
	text  string // in the statement, in any case; "" is any
	skip  int    // how many points pass before
	times int    // how often it happens
	fired int
	wound func(ctx context.Context, p point) (engine.Outcome, error)
}

// arm lets a fault happen.
func (p *Probe) arm(f *Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = append(p.faults, f)
}

// Unfired are the faults that have not happened as often as they were to.
func (p *Probe) Unfired() []*Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	var unfired []*Fault
	for _, f := range p.faults {
		if f.fired < f.times {
			unfired = append(unfired, f)
		}
	}
	return unfired
}

// next is the fault that happens at a point, or nil.
func (p *Probe) next(at point) *Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.faults {
		if f.at != at.at || f.fired == f.times || !strings.Contains(strings.ToLower(at.text), strings.ToLower(f.text)) {
			continue
		}
		if f.skip > 0 {
			f.skip--
			continue
		}
		f.fired++
		return f
	}
	return nil
}

// strike lets the fault of a point happen.
func (p *Probe) strike(ctx context.Context, at point) error {
	f := p.next(at)
	if f == nil {
		return nil
	}
	_, err := f.wound(ctx, at)
	return err
}

// strikeStatement lets the fault of a statement happen before it, whose ctx it can
// change.
func (p *Probe) strikeStatement(ctx context.Context, s *session, st *Statement) (context.Context, error) {
	return ctx, p.strike(ctx, point{at: atStatement, session: s, text: st.Text})
}

// strikeCommit lets the fault of a COMMIT take its place.
func (p *Probe) strikeCommit(ctx context.Context, s *session, _ bool) (outcome engine.Outcome, err error, struck bool) {
	f := p.next(point{at: atCommit, session: s})
	if f == nil {
		return 0, nil, false
	}
	outcome, err = f.wound(ctx, point{at: atCommit, session: s})
	return outcome, err, true
}

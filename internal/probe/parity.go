package probe

import "github.com/tholedb/thole/internal/engine"

// GoneOn is a session that went on after a statement of it had failed, in the same
// level. SQLite undoes that statement alone; PostgreSQL refuses whatever comes
// before the level is rolled back.
//
// https://www.postgresql.org/docs/current/errcodes-appendix.html (25P02)
type GoneOn struct {
	Failed *Statement
	Next   *Statement // nil is COMMIT, or what was refused
}

// hasFailed notes that a statement has failed by which SQLite does not end the
// level, or PostgreSQL does. The caller holds p.mu.
func (p *Probe) hasFailed(s *Session, st *Statement, told *engine.Error) {
	differs := told.Aborts == engine.AbortsNothing
	if p.Name() == "postgres" {
		differs = told.Aborts == engine.AbortsLevel
	}
	if differs && told.Code != "" && s.failed == nil && !s.Outside {
		s.failed = st
	}
}

// goesOn notes that a session runs next, or commits, or was to do either, where that
// is nil. The first time is kept. The caller holds p.mu.
func (p *Probe) goesOn(s *Session, next *Statement) {
	if s.failed != nil && p.gone == nil {
		p.gone = &GoneOn{s.failed, next}
	}
}

// GoneOn is the first session that went on after a failure, or nil.
func (p *Probe) GoneOn() *GoneOn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone == nil {
		return nil
	}
	c := copier{}
	return &GoneOn{c.statement(p.gone.Failed), c.statement(p.gone.Next)}
}

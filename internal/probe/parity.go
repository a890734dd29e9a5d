package probe

// GoneOn is a session that went on after a statement of it had failed, in the same
// level. SQLite undoes that statement alone; PostgreSQL refuses whatever comes
// before the level is rolled back.
//
// https://www.postgresql.org/docs/current/errcodes-appendix.html (25P02)
type GoneOn struct {
	Failed *Statement
	Next   *Statement // nil is COMMIT
}

// goesOn notes that a session runs next, or commits where that is nil. The first
// time is kept. The caller holds p.mu.
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

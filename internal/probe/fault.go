package probe

import (
	"context"
	"strings"
	"time"

	"github.com/tholedb/thole/internal/engine"
	"github.com/tholedb/thole/internal/sqltext"
)

// FaultKind is what goes wrong.
type FaultKind uint8

// The kinds of faults.
const (
	FailBegin FaultKind = iota
	LoseConnection
	Interrupt
	SlowQuery
	DiskFull
	FailCommit
	SerializationFailure
	LoseCommit
	LoseCommitReply
	FailRollback
)

// Fault is something that is to go wrong, at one or more of the points where it
// can: statements, COMMITs, ROLLBACKs.
type Fault struct {
	Kind  FaultKind
	Text  string        // in the statement, in any case, or in one of the session; "" is any
	Nth   int           // the first point that it happens at; they count from 1
	Times int           // how often it happens
	Delay time.Duration // of SlowQuery

	// The rest is guarded by the probe's mu.
	seen    int // points that there were
	fired   int
	touched map[*session]bool // sessions that have run a statement with the text
}

// Arm lets a fault happen.
func (p *Probe) Arm(f *Fault) {
	f.touched = map[*session]bool{}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = append(p.faults, f)
}

// Disarm lets it not happen any more, and returns how often it has.
func (p *Probe) Disarm(f *Fault) (fired int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, armed := range p.faults {
		if armed == f {
			p.faults = append(p.faults[:i:i], p.faults[i+1:]...)
			break
		}
	}
	return f.fired
}

// place is where in the life of a session a fault can happen.
type place uint8

const (
	atStatement place = iota
	atCommit
	atRollback
)

func (k FaultKind) place() place {
	switch k {
	case FailCommit, SerializationFailure, LoseCommit, LoseCommitReply:
		return atCommit
	case FailRollback:
		return atRollback
	}
	return atStatement
}

// point is a place that somebody has come to.
type point struct {
	place   place
	conn    engine.Conn // the engine's own
	session *session    // nil outside a session
	text    string      // of a statement
	first   bool        // the session begins with it
}

// meets reports whether a fault could happen at a point, and remembers the sessions
// that have its text in them. The caller holds the probe's mu.
func (f *Fault) meets(at point, dialect sqltext.Dialect) bool {
	if at.place != atStatement {
		return f.Kind.place() == at.place && (f.Text == "" || f.touched[at.session])
	}
	if !strings.Contains(strings.ToLower(at.text), strings.ToLower(f.Text)) {
		return false
	}
	switch f.Kind {
	case FailBegin:
		return at.first
	case DiskFull:
		return writes(dialect, at.text)
	}
	if at.session != nil {
		f.touched[at.session] = true
	}
	return f.Kind.place() == atStatement
}

// writes reports whether a statement needs room on the disk, as far as its words
// tell.
func writes(dialect sqltext.Dialect, text string) bool {
	with := false
	for token := range dialect.Tokens(text) {
		if token.Kind != sqltext.Word {
			continue
		}
		switch strings.ToUpper(token.Text) {
		case "INSERT", "UPDATE", "DELETE", "MERGE":
			return true
		case "REPLACE", "CREATE", "ALTER", "COPY":
			return !with // else it is a function, or a name
		case "WITH":
			with = true
		default:
			if !with {
				return false
			}
		}
	}
	return false
}

// next is the fault that happens at a point, or nil. Where several could, it is the
// one that was armed first.
func (p *Probe) next(at point) *Fault {
	if at.session != nil && at.session.note.Aside {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var happens *Fault
	for _, f := range p.faults {
		if !f.meets(at, p.Dialect()) {
			continue
		}
		f.seen++
		if happens == nil && f.seen >= f.Nth && f.fired < f.Times {
			f.fired++
			happens = f
		}
	}
	return happens
}

// damages are the faults as they are on one engine.
//
// Those of a statement return an error in its place, or nil where it is to be sent
// as it is. Those of the end of a session end it.
type damages interface {
	failBegin(ctx context.Context, at point) error
	loseConnection(ctx context.Context, at point) error
	interrupt(ctx context.Context, at point) error
	slowQuery(ctx context.Context, at point, delay time.Duration) error
	diskFull(ctx context.Context, at point) error

	failCommit(ctx context.Context, s *session) (engine.Outcome, error)
	failSerialization(ctx context.Context, s *session) (engine.Outcome, error)
	loseCommit(ctx context.Context, s *session) (engine.Outcome, error)
	loseCommitReply(ctx context.Context, s *session) (engine.Outcome, error)
	failRollback(ctx context.Context, s *session, cause error) (engine.Outcome, error)
}

func (p *Probe) damages() damages {
	switch {
	case p.Name() == "sqlite":
		return onSQLite{}
	case p.turns != nil:
		return onSandbox{}
	}
	return onServer{}
}

// strikeStatement lets the fault of a statement happen, and returns what it fails
// with instead of being sent, or nil.
func (p *Probe) strikeStatement(ctx context.Context, at point) error {
	f := p.next(at)
	if f == nil {
		return nil
	}
	on := p.damages()
	switch f.Kind {
	case FailBegin:
		return on.failBegin(ctx, at)
	case LoseConnection:
		return on.loseConnection(ctx, at)
	case Interrupt:
		return on.interrupt(ctx, at)
	case SlowQuery:
		return on.slowQuery(ctx, at, f.Delay)
	default:
		return on.diskFull(ctx, at)
	}
}

// commit ends a session, by COMMIT or by a fault in its place.
func (s *session) commit(ctx context.Context, observed bool) (engine.Outcome, error) {
	on := s.probe.damages()
	if s.isToRerun() {
		return undo(ctx, s, &engine.Error{
			Kind:    engine.ErrSerialization,
			Message: "dbtest: Config.Rerun has the first attempt of every session fail",
			Retry:   engine.RetryUnasked,
		})
	}
	if !awaited(s.opts, observed) {
		return s.inner.Commit(ctx, observed)
	}
	f := s.probe.next(point{place: atCommit, session: s})
	if f == nil {
		return s.inner.Commit(ctx, observed)
	}
	switch f.Kind {
	case SerializationFailure:
		return on.failSerialization(ctx, s)
	case LoseCommit:
		return on.loseCommit(ctx, s)
	case LoseCommitReply:
		return on.loseCommitReply(ctx, s)
	default:
		return on.failCommit(ctx, s)
	}
}

// isToRerun reports whether a session comes to COMMIT for the first time, and that
// is to fail so that it runs again.
func (s *session) isToRerun() bool {
	if s.probe.rerun == nil || s.opts.Once {
		return false
	}
	s.probe.mu.Lock()
	defer s.probe.mu.Unlock()
	if s.probe.rerun[s.opts.Info] {
		return false
	}
	s.probe.rerun[s.opts.Info] = true
	return true
}

// rollBack ends a session, by ROLLBACK or by a fault in its place.
func (s *session) rollBack(ctx context.Context, cause error) (engine.Outcome, error) {
	if !s.entered || s.probe.next(point{place: atRollback, session: s}) == nil {
		return s.inner.Rollback(ctx, cause)
	}
	return s.probe.damages().failRollback(ctx, s, cause)
}

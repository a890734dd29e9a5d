// Package probe stands between a DB and its engine in a test. It notes what
// sessions and statements do, lets faults happen, and, where they share one
// transaction or one connection, has sessions take turns.
package probe

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tholedb/thole/internal/engine"
)

// Probe is the engine of the DB of one test.
type Probe struct {
	engine.Engine
	test  string // its name
	turns *turns // nil where sessions run side by side
	pool  func() *pgxpool.Pool

	mu         sync.Mutex
	over       string            // why there is no use of it any more
	open       map[*Use]struct{} // what has not been given back
	faults     []*Fault
	rerun      map[*engine.Info]bool // sessions whose first COMMIT has failed for it; nil without
	escapes    []string              // statements that have ended a transaction
	sessions   tail[*Session]
	statements tail[*Statement]
	hooks      tail[Hook]
	marks      map[*Mark]struct{}
	gone       *GoneOn
}

var _ interface {
	engine.Engine
	engine.Ender
} = (*Probe)(nil)

// Options say what a probe is for.
type Options struct {
	Test  string               // its name
	Turns bool                 // sessions take turns
	Pool  func() *pgxpool.Pool // what DB.Pool returns; nil on SQLite
	Rerun bool                 // first attempts fail when they commit
}

// New puts a probe before an engine.
func New(on engine.Engine, opts Options) *Probe {
	p := &Probe{
		Engine: on,
		test:   opts.Test,
		pool:   opts.Pool,
		open:   map[*Use]struct{}{},
		marks:  map[*Mark]struct{}{},
	}
	if opts.Rerun {
		p.rerun = map[*engine.Info]bool{}
	}
	if opts.Turns {
		p.turns = newTurns()
	}
	return p
}

// Pool is what DB.Pool returns.
func (p *Probe) Pool() *pgxpool.Pool {
	if p.pool == nil {
		return nil
	}
	return p.pool()
}

// End makes everything fail from now on, because the test has ended.
func (p *Probe) End() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = fmt.Sprintf("the test %s has ended, and its database with it: wait in the test for what it starts", p.test)
}

// WhyEnded implements [engine.Ender].
func (p *Probe) WhyEnded() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.over
}

// refuse is why nothing may run any more, or nil.
func (p *Probe) refuse() error {
	if why := p.WhyEnded(); why != "" {
		return &engine.Error{Kind: engine.ErrClosed, Message: why, Aborts: engine.AbortsSession}
	}
	return nil
}

// Begin implements [engine.Engine].
func (p *Probe) Begin(ctx context.Context, opts engine.Options) (engine.Session, error) {
	if err := p.refuse(); err != nil {
		return nil, err
	}
	inner, err := p.Engine.Begin(ctx, opts)
	if err != nil {
		return nil, err
	}
	return p.watch(ctx, inner, opts), nil
}

// BeginMigration implements [engine.Engine].
func (p *Probe) BeginMigration(ctx context.Context) (engine.Session, error) {
	opts := engine.Options{Info: &engine.Info{Label: "migration", Caller: engine.Here(), Began: time.Now()}, Once: true}
	if err := p.refuse(); err != nil {
		return nil, err
	}
	if err := p.turns.take(ctx, opts.Info, 0); err != nil {
		return nil, err
	}
	inner, err := p.Engine.BeginMigration(ctx)
	if err != nil {
		p.turns.pass()
		return nil, err
	}
	s := p.watch(ctx, inner, opts)
	s.entered = true
	return s, nil
}

// Conn implements [engine.Engine].
func (p *Probe) Conn(ctx context.Context) (engine.AutoConn, error) {
	if err := p.refuse(); err != nil {
		return nil, err
	}
	inner, err := p.Engine.Conn(ctx)
	if err != nil {
		return nil, err
	}
	info := &engine.Info{Caller: engine.Here(), Began: time.Now()}
	return &auto{probe: p, inner: inner, note: &Session{Info: info, Outside: true}, use: p.borrow(info)}, nil
}

// Ping implements [engine.Engine].
func (p *Probe) Ping(ctx context.Context) error {
	if err := p.refuse(); err != nil {
		return err
	}
	if err := p.turns.take(ctx, &engine.Info{Query: "ping", Caller: engine.Here(), Began: time.Now()}, 0); err != nil {
		return err
	}
	defer p.turns.pass()
	return p.Engine.Ping(ctx)
}

// Use is something that was taken and has to be given back.
type Use struct{ Info *engine.Info }

func (p *Probe) borrow(info *engine.Info) *Use {
	u := &Use{info}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open[u] = struct{}{}
	return u
}

func (p *Probe) giveBack(u *Use) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, u)
}

// InUse is what has not been given back: sessions, and rows outside sessions.
func (p *Probe) InUse() []*engine.Info {
	p.mu.Lock()
	defer p.mu.Unlock()
	infos := make([]*engine.Info, 0, len(p.open))
	for u := range p.open {
		infos = append(infos, u.Info)
	}
	return infos
}

// Escapes are the statements that have ended a transaction which was not theirs to
// end.
func (p *Probe) Escapes() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.escapes
}

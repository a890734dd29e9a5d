package dbtest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/engine"
	"github.com/tholedb/thole/internal/probe"
)

// rig is what stands behind the DB of a test.
type rig struct {
	tb    testing.TB
	db    *thole.DB
	probe *probe.Probe
	kind  kind

	undo  func(ctx context.Context) error                       // undoes what was done, after db is closed
	keep  func(ctx context.Context) (command string, err error) // in place of undo
	twins *twins                                                // nil if it is none of Each's
}

// kind is what a DB of a test is.
type kind uint8

const (
	sandboxKind kind = iota
	databaseKind
)

// rigs finds the rig of a DB.
var rigs sync.Map // from *thole.DB to *rig

// rigOf is the rig of a DB that dbtest has opened.
func rigOf(tb testing.TB, db *thole.DB) *rig {
	tb.Helper()
	found, ok := rigs.Load(db)
	if !ok {
		tb.Fatal("dbtest: the DB is not one of dbtest's, or its test has ended")
	}
	return found.(*rig)
}

// opening says how a DB is opened.
type opening struct {
	kind kind
	open engine.Opener                   // the engine beneath the probe
	undo func(ctx context.Context) error // see rig
	keep func(ctx context.Context) (command string, err error)
}

// assemble opens the DB of a test over a probe, which the end of the test closes.
func (c Config) assemble(tb testing.TB, cfg *thole.Config, how opening) *thole.DB {
	tb.Helper()
	r := &rig{tb: tb, kind: how.kind, undo: how.undo, keep: how.keep, twins: c.twins}
	ctx := engine.WithOpener(context.WithoutCancel(tb.Context()), func(ctx context.Context, env engine.Env) (engine.Engine, error) {
		beneath, err := how.open(ctx, env)
		if err != nil {
			return nil, err
		}
		r.probe = probe.New(beneath, probe.Options{
			Test:  tb.Name(),
			Turns: how.kind == sandboxKind,
			Pool:  r.pool(beneath),
			Rerun: c.Rerun,
		})
		return r.probe, nil
	})
	db, err := thole.OpenConfig(ctx, cfg)
	if err != nil {
		if r.probe != nil { // the engine was opened, and closed again
			err = errors.Join(err, how.undo(ctx))
		}
		tb.Fatalf("dbtest: %v", err)
	}
	r.db = db
	rigs.Store(db, r)
	r.watch()
	tb.Cleanup(r.end)
	return db
}

// pool is what DB.Pool returns.
func (r *rig) pool(beneath engine.Engine) func() *pgxpool.Pool {
	if r.kind == sandboxKind {
		return func() *pgxpool.Pool {
			r.tb.Helper()
			if r.db.Engine() == thole.Postgres {
				r.tb.Fatal("dbtest: a sandbox has no pool, for what runs there would be committed: use dbtest.Database")
			}
			return nil
		}
	}
	if on, ok := beneath.(interface{ Pool() *pgxpool.Pool }); ok {
		return on.Pool
	}
	return nil
}

// grace is how long the end of a test waits for what it has left in other
// goroutines.
const grace = time.Second

// end undoes what the test did, and fails it for what it left behind.
func (r *rig) end() {
	r.tb.Helper()
	r.awaitUse()
	r.probe.End()
	rigs.Delete(r.db)
	if err := r.db.Close(); err != nil {
		r.tb.Errorf("dbtest: %v", err)
	}
	if r.kind == sandboxKind {
		for _, text := range r.probe.Escapes() {
			r.tb.Errorf("dbtest: %q ended the transaction of a session, which is the session's to do", text)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), ending)
	defer cancel()
	if err := r.finish(ctx); err != nil {
		r.tb.Errorf("dbtest: %v", err)
	}
}

// ending bounds the end of a test.
const ending = 30 * time.Second

// awaitUse waits a little for what is in use, and fails the test for the rest.
func (r *rig) awaitUse() {
	r.tb.Helper()
	for until := time.Now().Add(grace); len(r.probe.InUse()) > 0 && time.Now().Before(until); {
		time.Sleep(time.Millisecond)
	}
	for _, info := range r.probe.InUse() {
		r.tb.Errorf("dbtest: the test has ended and left open: %s", info)
	}
}

package dbtest

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tholedb/thole/internal/engine"
	"github.com/tholedb/thole/internal/engine/postgres"
	"github.com/tholedb/thole/internal/pgclone"
)

// This file is about the PostgreSQL databases in which sandboxes are. One sandbox
// at a time has one, so that tests that run side by side don't wait for each other's
// locks; nothing is ever committed there, and the next one has it again, with its
// connection.

// home is such a database.
type home struct {
	of     identity
	server *server
	clone  *pgclone.Database
	cfg    *pgxpool.Config

	mu    sync.Mutex
	on    *postgres.Sandboxes // nil while nobody has been there for a while
	inUse bool
	close *time.Timer
}

// homes are those that nobody is in. A later process drops them, when this one has
// ended.
type homes struct {
	mu   sync.Mutex
	free []*home // the one that was left last is the last
}

var freeHomes homes

// mostFree is how many are kept: more than those that tests which run at once are
// in. Configs that each test makes for itself would fill the disk.
const mostFree = 50

// take returns a home of the Config that nobody is in, or a new one.
func (h *homes) take(ctx context.Context, c Config, s *server) (*home, error) {
	id := c.identity()
	if at := h.find(id); at != nil {
		return at, nil
	}
	clone, err := s.Clone(ctx, c.template(s))
	if err != nil {
		return nil, err
	}
	clone.Stay()
	cfg, err := c.postgresConfig(clone.URL)
	if err != nil {
		return nil, err
	}
	cfg.Postgres.MaxConns, cfg.Postgres.MinConns, cfg.Postgres.MinIdleConns = 1, 0, 0
	params := cfg.Postgres.ConnConfig.RuntimeParams
	params["idle_in_transaction_session_timeout"] = "0" // a sandbox is one between its sessions
	delete(params, "transaction_timeout")
	return &home{of: id, server: s, clone: clone, cfg: cfg.Postgres}, nil
}

// find returns the one of an identity that was left last, or nil.
func (h *homes) find(id identity) *home {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, at := range slices.Backward(h.free) {
		if at.of == id {
			h.free = slices.Delete(h.free, i, i+1)
			return at
		}
	}
	return nil
}

// giveBack lets the next one have a home, unless something was committed there.
func (h *homes) giveBack(at *home, dirty bool) {
	if dirty {
		at.drop()
		return
	}
	h.mu.Lock()
	h.free = append(h.free, at)
	var old *home
	if len(h.free) > mostFree {
		old, h.free = h.free[0], h.free[1:]
	}
	h.mu.Unlock()
	if old != nil {
		old.drop()
	}
}

func (h *home) drop() {
	h.rest()
	h.clone.Drop()
}

// open opens a sandbox. Whoever has one calls leave.
func (h *home) open(ctx context.Context, name string) (*postgres.Sandbox, error) {
	on, err := h.enter(ctx)
	if err != nil {
		return nil, err
	}
	box := on.New(name)
	if err := h.server.Connect(ctx, box.Connect); err != nil {
		h.leave()
		return nil, err
	}
	return box, nil
}

func (h *home) enter(ctx context.Context) (*postgres.Sandboxes, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.close != nil {
		h.close.Stop()
	}
	if h.on == nil {
		err := h.server.Connect(ctx, func(ctx context.Context) error {
			on, err := postgres.Open(ctx, h.cfg, engine.Env{Log: slog.New(slog.DiscardHandler), Sessions: new(engine.Registry)})
			if err == nil {
				h.on = postgres.NewSandboxes(on)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	h.inUse = true
	return h.on, nil
}

// keptFor is how long a connection is kept when nobody has a sandbox on it: the
// next test comes sooner, and a search for goroutines that are left at the end of
// all tests takes longer.
const keptFor = 100 * time.Millisecond

func (h *home) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.inUse = false
	h.close = time.AfterFunc(keptFor, h.rest)
}

// rest closes the connection, unless somebody has come.
func (h *home) rest() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.inUse || h.on == nil {
		return
	}
	_ = h.on.Close(context.Background()) // nobody uses it
	h.on = nil
}

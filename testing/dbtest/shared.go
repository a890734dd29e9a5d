package dbtest

import (
	"context"
	"log/slog"
	"math"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tholedb/thole/internal/engine"
	"github.com/tholedb/thole/internal/engine/postgres"
)

// sharedDatabase is the PostgreSQL database of a Config's sandboxes, in which
// nothing is ever committed, with the connections that are kept for the next test.
type sharedDatabase struct {
	server *server
	cfg    *pgxpool.Config

	mu    sync.Mutex
	on    *postgres.Sandboxes // nil while nobody has been there for a while
	users int
	close *time.Timer
}

// databases are those of sandboxes.
var databases once[*sharedDatabase]

// sharedDatabase makes the database at the first call. A later process drops it,
// when this one has ended.
func (c Config) sharedDatabase(ctx context.Context, s *server) (*sharedDatabase, error) {
	return databases.get(c.identity(), func() (*sharedDatabase, error) {
		clone, err := s.Clone(ctx, c.template(s))
		if err != nil {
			return nil, err
		}
		cfg, err := c.postgresConfig(clone.URL)
		if err != nil {
			return nil, err
		}
		cfg.Postgres.MaxConns = math.MaxInt32 // they are counted by server.reserve
		cfg.Postgres.MinConns, cfg.Postgres.MinIdleConns = 0, 0
		cfg.Postgres.ConnConfig.RuntimeParams["lock_timeout"] = strconv.FormatInt(postgres.SandboxLockTimeout.Milliseconds(), 10)
		return &sharedDatabase{server: s, cfg: cfg.Postgres}, nil
	})
}

// open opens a sandbox. Whoever has one calls leave.
func (d *sharedDatabase) open(ctx context.Context, name string) (*postgres.Sandbox, error) {
	on, err := d.enter(ctx)
	if err != nil {
		return nil, err
	}
	box := on.New(name)
	if err := d.server.Connect(ctx, box.Connect); err != nil {
		d.leave()
		return nil, err
	}
	return box, nil
}

func (d *sharedDatabase) enter(ctx context.Context) (*postgres.Sandboxes, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.close != nil {
		d.close.Stop()
	}
	if d.on == nil {
		err := d.server.Connect(ctx, func(ctx context.Context) error {
			on, err := postgres.Open(ctx, d.cfg, engine.Env{Log: slog.New(slog.DiscardHandler), Sessions: new(engine.Registry)})
			if err == nil {
				d.on = postgres.NewSandboxes(on)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	d.users++
	return d.on, nil
}

// keptFor is how long connections are kept when nobody has a sandbox: the next
// test comes sooner, and a search for goroutines that are left at the end of all
// tests takes longer.
const keptFor = 100 * time.Millisecond

func (d *sharedDatabase) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.users--; d.users == 0 {
		d.close = time.AfterFunc(keptFor, d.rest)
	}
}

// rest closes the connections, unless somebody has come.
func (d *sharedDatabase) rest() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.users > 0 || d.on == nil {
		return
	}
	_ = d.on.Close(context.Background()) // nobody uses them
	d.on = nil
}

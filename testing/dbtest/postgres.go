package dbtest

import (
	"context"
	"testing"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/engine"
	"github.com/tholedb/thole/internal/engine/postgres"
	"github.com/tholedb/thole/internal/pgclone"
	"github.com/tholedb/thole/internal/testdb"
)

// postgresSandbox is a transaction in a copy of the template, on a connection that is
// kept for the next one.
func (c Config) postgresSandbox(tb testing.TB) *thole.DB {
	tb.Helper()
	s := findServer(tb)
	s.reserve(tb, 1)
	home, err := freeHomes.take(context.WithoutCancel(tb.Context()), c, s)
	if err != nil {
		tb.Fatalf("dbtest: make the database of a sandbox: %v", err)
	}
	var box *postgres.Sandbox
	return c.assemble(tb, c.configure(&thole.Config{Postgres: home.cfg.Copy()}), opening{
		kind: sandboxKind,
		open: func(ctx context.Context, _ engine.Env) (_ engine.Engine, err error) {
			if box, err = home.open(ctx, tb.Name()); err != nil {
				freeHomes.giveBack(home, false)
			}
			return box, err
		},
		undo: func(context.Context) error {
			home.leave()
			freeHomes.giveBack(home, box.HasEscaped())
			return nil
		},
		keep: keepSandbox,
	})
}

// postgresDatabase is a copy of the template of the test's own.
func (c Config) postgresDatabase(tb testing.TB) *thole.DB {
	tb.Helper()
	s := findServer(tb)
	ctx := context.WithoutCancel(tb.Context())
	clone, err := s.Clone(ctx, c.template(s))
	if err != nil {
		tb.Fatalf("dbtest: %v", err)
	}
	cfg, err := c.postgresConfig(clone.URL)
	if err != nil {
		tb.Fatalf("dbtest: %v", err)
	}
	cfg.Postgres.MaxConns = min(cfg.Postgres.MaxConns, poolOfDatabase, int32(s.most))
	s.reserve(tb, int(cfg.Postgres.MaxConns))
	breakable(cfg)
	return c.assemble(tb, cfg, opening{
		kind: databaseKind,
		open: func(ctx context.Context, env engine.Env) (opened engine.Engine, err error) {
			err = s.Connect(ctx, func(ctx context.Context) error {
				opened, err = postgres.Open(ctx, cfg.Postgres, env)
				return err
			})
			return opened, err
		},
		undo: func(context.Context) error { clone.Drop(); return nil },
		keep: func(ctx context.Context) (string, error) {
			if testdb.Server(tb).Private {
				return "", errServerEnds
			}
			return psql(cfg.Postgres.ConnConfig), clone.Keep(ctx)
		},
	})
}

// poolOfDatabase is how many connections a Database has at most.
const poolOfDatabase = 4

// postgresConfig is the configuration of a database.
func (c Config) postgresConfig(url string) (*thole.Config, error) {
	cfg, err := thole.ParseURL(url)
	if err != nil {
		return nil, err
	}
	return c.configure(cfg), nil
}

// template is what databases with the Config are copies of. What Fixtures and
// Configure do is known to this process alone.
func (c Config) template(s *server) pgclone.Template {
	if c.isEmpty() {
		return pgclone.Template{}
	}
	migrated := pgclone.Template{Key: c.digest(), Own: c.Configure != nil, Build: func(ctx context.Context, url string) error {
		return c.build(ctx, s, url, c.migrate)
	}}
	if c.Fixtures == nil {
		return migrated
	}
	return pgclone.Template{From: &migrated, Key: keys.of(c.identity()), Own: true, Build: func(ctx context.Context, url string) error {
		return c.build(ctx, s, url, c.load)
	}}
}

// build fills a template.
func (c Config) build(ctx context.Context, s *server, url string, fill func(context.Context, *thole.DB) error) error {
	cfg, err := c.postgresConfig(url)
	if err != nil {
		return err
	}
	cfg.Postgres.MaxConns = 2
	var db *thole.DB
	err = s.Connect(ctx, func(ctx context.Context) (err error) {
		db, err = thole.OpenConfig(ctx, forTemplate(cfg))
		return err
	})
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }() // it is made, or the error is told
	return fill(ctx, db)
}

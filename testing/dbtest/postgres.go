package dbtest

import (
	"context"
	"crypto/rand"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/engine"
	"github.com/tholedb/thole/internal/engine/postgres"
	"github.com/tholedb/thole/internal/pgserver"
	"github.com/tholedb/thole/internal/testdb"
)

var engines once[*postgres.Sandboxes]

// postgresSandbox is a transaction on a kept connection.
func (c Config) postgresSandbox(tb testing.TB) *thole.DB {
	tb.Helper()
	shared, err := engines.get(c.identity(), func() (*postgres.Sandboxes, error) {
		s, err := pgserver.Find(context.Background())
		if err != nil {
			return nil, err
		}
		ctx := context.Background()
		conn, err := pgx.Connect(ctx, s.URL)
		if err != nil {
			return nil, err
		}
		name := "thole_sandbox_" + strings.ToLower(rand.Text())
		if _, err := conn.Exec(ctx, "create database "+name+" template template0 strategy file_copy"); err != nil {
			return nil, err
		}
		conn.Close(ctx)
		own, _ := url.Parse(s.URL)
		own.Path = "/" + name
		cfg, err := thole.ParseURL(own.String())
		if err != nil {
			return nil, err
		}
		c.configure(cfg)
		db, err := thole.OpenConfig(context.Background(), cfg)
		if err != nil {
			return nil, err
		}
		if err := c.fill(context.Background(), db); err != nil {
			return nil, err
		}
		db.Close()
		cfg.Postgres.ConnConfig.RuntimeParams["lock_timeout"] = "5000"
		cfg.Postgres.MaxConns = 32
		e, err := postgres.Open(context.Background(), cfg.Postgres, engine.Env{Log: nil, Sessions: new(engine.Registry)})
		return postgres.NewSandboxes(e), err
	})
	if err != nil {
		tb.Fatal(err)
	}
	cfg, _ := thole.ParseURL("postgres:///unused_test")
	c.configure(cfg)
	box := shared.New(tb.Name())
	return c.assemble(tb, cfg, opening{
		kind: sandboxKind,
		open: func(context.Context, engine.Env) (engine.Engine, error) { return box, nil },
		undo: func(context.Context) error { return nil },
	})
}

func (c Config) postgresDatabase(tb testing.TB) *thole.DB {
	tb.Helper()
	cfg, err := thole.ParseURL(testdb.Postgres(tb))
	if err != nil {
		tb.Fatal(err)
	}
	c.configure(cfg)
	db := c.assemble(tb, cfg, opening{
		kind: databaseKind,
		open: func(ctx context.Context, env engine.Env) (engine.Engine, error) {
			return postgres.Open(ctx, cfg.Postgres, env)
		},
		undo: func(context.Context) error { return nil },
	})
	if err := c.fill(context.Background(), db); err != nil {
		tb.Fatal(err)
	}
	return db
}

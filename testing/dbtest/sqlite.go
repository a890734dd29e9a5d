package dbtest

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/engine"
	"github.com/tholedb/thole/internal/engine/sqlite"
)

// sqliteSandbox is a copy of the template, in memory.
func (c Config) sqliteSandbox(tb testing.TB) *thole.DB {
	tb.Helper()
	image := c.image(tb)
	cfg := c.configure(&thole.Config{SQLite: &thole.SQLiteConfig{}})
	return c.assemble(tb, cfg, opening{
		kind: sandboxKind,
		open: func(ctx context.Context, env engine.Env) (engine.Engine, error) {
			return sqlite.OpenImage(ctx, sqlite.Config(*cfg.SQLite), image, env)
		},
		undo: func(context.Context) error { return nil },
		keep: keepSandbox,
	})
}

// sqliteDatabase is a copy of the template, in a file.
func (c Config) sqliteDatabase(tb testing.TB) *thole.DB {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "test.db")
	if err := os.WriteFile(path, c.image(tb), 0o600); err != nil {
		tb.Fatalf("dbtest: %v", err)
	}
	cfg := c.configure(&thole.Config{SQLite: &thole.SQLiteConfig{Path: path}})
	return c.assemble(tb, cfg, opening{
		kind: databaseKind,
		open: func(ctx context.Context, env engine.Env) (engine.Engine, error) {
			return sqlite.Open(ctx, sqlite.Config(*cfg.SQLite), env)
		},
		undo: func(context.Context) error { return nil },
		keep: func(context.Context) (string, error) { return keepFile(tb.Name(), path) },
	})
}

// images are the templates, by [Config.identity].
var images once[[]byte]

// image is the template: a database with the migrations and fixtures.
func (c Config) image(tb testing.TB) []byte {
	tb.Helper()
	if c.isEmpty() {
		c = Config{}
	}
	image, err := images.get(c.identity(), func() ([]byte, error) { return c.makeImage(context.WithoutCancel(tb.Context())) })
	if err != nil {
		tb.Fatalf("dbtest: make the database that tests copy: %v", err)
	}
	return image
}

func (c Config) makeImage(ctx context.Context) (image []byte, err error) {
	cfg := c.configure(&thole.Config{SQLite: &thole.SQLiteConfig{}})
	var on *sqlite.Engine
	opened := engine.WithOpener(ctx, func(ctx context.Context, env engine.Env) (_ engine.Engine, err error) {
		on, err = sqlite.Open(ctx, sqlite.Config(*cfg.SQLite), env)
		return on, err
	})
	db, err := thole.OpenConfig(opened, forTemplate(cfg))
	if err != nil {
		return nil, err
	}
	defer func() { _ = db.Close() }() // it is made, or the error is told
	if err := c.fill(ctx, db); err != nil {
		return nil, err
	}
	return on.Image(ctx)
}

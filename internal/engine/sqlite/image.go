package sqlite

import (
	"context"
	"database/sql/driver"

	"github.com/tholedb/thole/internal/engine"
)

// This file is for tests, which have a copy each of one database.

// OpenImage opens a database in memory that is what the image says: a copy of the
// one that [Engine.Image] was made of. Rows outside a session that reads are read to
// their end before they are returned, so that the next statement can run beside them,
// as it can on a file.
func OpenImage(ctx context.Context, cfg Config, image []byte, env engine.Env) (*Engine, error) {
	cfg.Path = ""
	return openWith(ctx, cfg, image, env)
}

// imager is what the driver's connections do with images,
// https://sqlite.org/c3ref/serialize.html.
type imager interface {
	Serialize() ([]byte, error)
	Deserialize([]byte) error
}

// Image is a copy of the database, which is one in memory: what a file of it would
// have in it. No session may be open.
func (e *Engine) Image(ctx context.Context) ([]byte, error) {
	s, err := e.acquire(ctx, claim{patience: lockTimeout, info: statement("copy of the database")})
	if err != nil {
		return nil, err
	}
	defer e.release(s)
	if _, err := s.conn.raw.ExecContext(ctx, "VACUUM", nil); err != nil { // an empty database has no page
		return nil, during(ctx, "copy database", err)
	}
	image, err := s.conn.raw.(imager).Serialize()
	if err != nil {
		return nil, during(ctx, "copy database", err)
	}
	return image, nil
}

// load makes a new connection's database what the image says.
func (c *conn) load(image []byte) error {
	if image == nil {
		return nil
	}
	return c.raw.(imager).Deserialize(image)
}

// keep reads rows of a statement that has changed nothing to their end.
func keep(r *rows) (driver.Rows, error) {
	kept, err := engine.Keep(r)
	if err != nil {
		return nil, err
	}
	return kept, nil
}

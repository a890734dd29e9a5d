package thole

import (
	"context"
	"io/fs"
	"time"

	"github.com/tholedb/thole/internal/engine"
	"github.com/tholedb/thole/internal/migrate"
)

// Migrate applies the migrations of files whose number is above that of the
// database, in the order of their numbers. It may be called by any number of
// processes at once, when each of them starts: one applies, the others wait and
// see it done. A file that is added later with a lower number is not applied,
// nor is a file that was edited after it was: number upwards.
//
// Each migration and the note of it, in the table schema_migrations of
// golang-migrate (https://github.com/golang-migrate/migrate), are one
// transaction: a migration that fails, is cancelled or is killed leaves nothing.
//
// The files are called 1_name.up.sql and 1_name.down.sql, with any number in
// front. They stand in the root of files and run on both engines, or there is a
// folder sqlite and a folder postgres, each with all of them. Whatever else ends
// in .sql is an error. All files are read before the first is applied.
//
// It has sessions of its own, and is refused inside one ([ErrNested]).
func (db *DB) Migrate(ctx context.Context, files fs.FS) error {
	if ctx == nil || files == nil {
		return failure(nil, "migrate database: it takes a ctx and the files")
	}
	if tx := db.current(ctx); tx != nil {
		return failure(ErrNested, "migrate database: it can't be done inside a session, and is inside the %s", tx.session.info)
	}
	info := &engine.Info{Label: "migrate", Caller: engine.Here(), Began: time.Now()}
	if err := db.enter(info); err != nil {
		return err
	}
	defer db.leave(info)
	if err := migrate.Up(ctx, db.engine, files); err != nil {
		return because(kindOf(err), err, "migrate database")
	}
	return nil
}

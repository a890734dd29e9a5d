// Package migrate applies migrations with the engine of golang-migrate
// (https://github.com/golang-migrate/migrate), which knows the order of the
// files and the table schema_migrations, so that its command-line tool works on
// the same files and the same database.
//
// Its drivers are not used. [Up] reads every file before anything runs, and a
// migration and its row in schema_migrations are one transaction: a migration
// is applied as a whole or not at all, whichever process dies, and one that
// several processes start at once is applied once.
package migrate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"

	gomigrate "github.com/golang-migrate/migrate/v4"
	"github.com/golang-migrate/migrate/v4/database"

	"github.com/tholedb/thole/internal/engine"
)

var (
	// ErrDirty is returned for a database in which golang-migrate's own tool
	// began a migration and didn't finish it. See what of that migration is in
	// the database, complete or undo it by hand, and then tell the tool with
	// "migrate force VERSION".
	ErrDirty = errors.New("migration was begun by another tool and not finished")

	// ErrUnknown is returned for a database whose version is not among the
	// files: a newer program has migrated it, or a file was removed.
	ErrUnknown = errors.New("migration is in the database and not among the files")
)

// Up applies the migrations that the database doesn't have yet, in the order of
// their versions. They stand in the root of files if they are portable, else in
// the folders sqlite and postgres, and are called VERSION_NAME.up.sql and
// VERSION_NAME.down.sql.
//
// Those that were applied before an error stay. Of the one that failed nothing
// stays, unless the error matches [engine.ErrCommitUnknown].
func Up(ctx context.Context, eng engine.Engine, files fs.FS) error {
	src, err := load(files, eng.Name(), eng.Dialect())
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	db := &databaseDriver{ctx: ctx, eng: eng, files: src, committed: database.NilVersion}
	m, err := gomigrate.NewWithInstance("files", src, eng.Name(), db)
	if err != nil {
		return fmt.Errorf("start golang-migrate: %w", err)
	}
	m.LockTimeout = math.MaxInt64 // ctx says how long to wait
	return stepUp(m, db)
}

// stepUp takes one step at a time: golang-migrate's Up reads ahead in
// goroutines that stay for ever when a migration fails.
func stepUp(m *gomigrate.Migrate, db *databaseDriver) error {
	defer func() { _ = db.Unlock() }() // for a panic; otherwise a step has done it
	for {
		err := m.Steps(1)
		if errors.Is(err, fs.ErrNotExist) && db.stored == db.files.last {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

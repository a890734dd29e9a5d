package migrate

import (
	"context"
	"database/sql"
	sqldriver "database/sql/driver"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/golang-migrate/migrate/v4/database"

	"github.com/tholedb/thole/internal/engine"
)

// grace is how long COMMIT and ROLLBACK may go on when ctx has ended.
const grace = 5 * time.Second

// databaseDriver runs each step of golang-migrate in a session of its own, from
// Lock to the SetVersion that commits it, or to Unlock. Meanwhile no other
// process is in such a session: the version that Version reads is still the
// database's when the next one is committed.
type databaseDriver struct {
	ctx   context.Context // for golang-migrate's calls, which have none
	eng   engine.Engine
	files *sourceDriver

	session   engine.Session // nil when none is open
	stored    int            // what Version read
	target    int            // the version that the step leads to
	committed int            // the target of the step before
}

// Lock begins the session. It waits for its turn until ctx is done.
func (d *databaseDriver) Lock() error {
	s, err := d.eng.BeginMigration(d.ctx)
	if err != nil {
		return err
	}
	d.session = s
	return nil
}

// Unlock ends a session that is still open.
func (d *databaseDriver) Unlock() error {
	if d.session == nil {
		return nil
	}
	return d.rollback(nil)
}

// Version returns the version of the database, or database.NilVersion. That it
// is dirty is an error.
func (d *databaseDriver) Version() (version int, dirty bool, err error) {
	d.stored, err = d.readVersion()
	if err == nil && d.stored < d.committed {
		err = fmt.Errorf("version %d was just committed and is gone: is there now another table schema_migrations?", d.committed)
	}
	if err != nil {
		return 0, false, d.rollback(fmt.Errorf("read version of the database: %w", err))
	}
	return d.stored, false, nil
}

func (d *databaseDriver) readVersion() (int, error) {
	rows, err := d.query("SELECT version, dirty FROM schema_migrations")
	if err != nil || len(rows) == 0 {
		return database.NilVersion, err
	}
	var version sql.NullInt64
	var dirty sql.NullBool
	if version.Scan(rows[0][0]) != nil || dirty.Scan(rows[0][1]) != nil || len(rows) > 1 {
		return 0, errors.New("table schema_migrations has other rows than golang-migrate writes")
	}
	if dirty.Bool {
		return 0, fmt.Errorf("version %d: %w", version.Int64, ErrDirty)
	}
	if !d.files.has(version.Int64) {
		return 0, fmt.Errorf("version %d: %w", version.Int64, ErrUnknown)
	}
	return int(version.Int64), nil
}

// SetVersion is called before Run with dirty, and after it without. Nothing is
// ever dirty here: the first call takes note of the version, the second commits.
func (d *databaseDriver) SetVersion(version int, dirty bool) error {
	if dirty {
		d.target = version
		return nil
	}
	return d.commit()
}

// Run writes the version and then runs the migration. In this order, because a
// migration may change the search_path, as pg_dump's output does, and one
// transaction holds both anyway.
func (d *databaseDriver) Run(migration io.Reader) error {
	// Before anything can fail: until the text is read to its end, a goroutine
	// of golang-migrate waits at the other end of a pipe.
	body, err := io.ReadAll(migration)
	if err != nil {
		return d.rollback(fmt.Errorf("read %s: %w", d.file(), err))
	}
	row := fmt.Sprintf("DELETE FROM schema_migrations; INSERT INTO schema_migrations (version, dirty) VALUES (%d, false)", d.target)
	if err := d.exec(row); err != nil {
		return d.rollback(fmt.Errorf("write version %d: %w", d.target, err))
	}
	if err := d.exec(string(body)); err != nil {
		return d.rollback(fmt.Errorf("apply %s: %w", d.file(), err))
	}
	return nil
}

// commit ends the session with COMMIT, which isn't interrupted when ctx ends:
// that would only leave open what became of it.
func (d *databaseDriver) commit() error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(d.ctx))
	defer cancel()
	defer context.AfterFunc(d.ctx, func() { time.AfterFunc(grace, cancel) })()

	s := d.session
	d.session = nil
	_, err := s.Commit(ctx, true)
	if errors.Is(err, engine.ErrCommitUnknown) {
		err = d.resolve(err)
	}
	if err != nil {
		return fmt.Errorf("apply %s: %w", d.file(), err)
	}
	d.committed = d.target
	return nil
}

// resolve finds out what became of a COMMIT that got no answer. A new session
// begins only when the old one is over, also on a server that was still at work
// on its COMMIT, and the version is in the database exactly if the migration is.
// So the answer is certain. The error remains unknown where the new session
// gives none. The migration isn't tried again: the next Up does that.
func (d *databaseDriver) resolve(unknown error) error {
	if err := d.Lock(); err != nil {
		return errors.Join(unknown, err)
	}
	if _, _, err := d.Version(); err != nil {
		return errors.Join(unknown, err)
	}
	if err := d.Unlock(); err != nil {
		return errors.Join(unknown, err)
	}
	if d.stored < d.target {
		return &engine.Error{Kind: engine.ErrConnLost, Retry: engine.RetryAsked, Message: "connection lost, and COMMIT took no effect"}
	}
	return nil
}

// rollback ends the session and returns what is to be told of its failure.
func (d *databaseDriver) rollback(cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(d.ctx), grace)
	defer cancel()
	s := d.session
	d.session = nil
	if _, err := s.Rollback(ctx, cause); err != nil {
		return err
	}
	return cause
}

// exec runs the statements of a text, which has no arguments.
func (d *databaseDriver) exec(text string) error {
	if _, err := d.session.ExecContext(d.ctx, text, nil); err != nil {
		return d.session.Failed(d.ctx, err)
	}
	return nil
}

// query returns the rows of a query of numbers and booleans.
func (d *databaseDriver) query(text string) ([][]sqldriver.Value, error) {
	rows, err := d.session.QueryContext(d.ctx, text, nil)
	if err != nil {
		return nil, d.session.Failed(d.ctx, err)
	}
	defer func() { _ = rows.Close() }() // an error in reading them is told by Next
	var all [][]sqldriver.Value
	for {
		row := make([]sqldriver.Value, len(rows.Columns()))
		err := rows.Next(row)
		if err == io.EOF { //nolint:errorlint // itself: a lost connection may wrap it
			return all, nil
		}
		if err != nil {
			return nil, d.session.Failed(d.ctx, err)
		}
		all = append(all, row)
	}
}

// file is the path of the migration that the step applies.
func (d *databaseDriver) file() string {
	up, _ := d.files.index.Up(uint(d.target))
	return up.Raw
}

// Open is not for this driver, which Up makes.
func (d *databaseDriver) Open(string) (database.Driver, error) { return nil, errors.ErrUnsupported }

// Close leaves the engine open: it is the caller's.
func (d *databaseDriver) Close() error { return nil }

// Drop is not offered.
func (d *databaseDriver) Drop() error { return errors.ErrUnsupported }

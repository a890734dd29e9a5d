package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/tholedb/thole/internal/engine"
)

// conn is one connection to the database. It survives an interrupt: SQLite forgets it when the next statement begins,
// https://sqlite.org/c3ref/interrupt.html.
type conn struct {
	raw        driverConn
	statements cache
	ours       map[string]driverStmt // by their text
	queryOnly  bool                  // PRAGMA query_only is on
	timeout    time.Duration         // of each statement, or zero
	broken     bool                  // nobody knows what state it is in

	// Of the transaction, as the hooks tell.
	undone    bool // it was rolled back, and not by us
	committed bool // its COMMIT was begun
	shared    bool // it has work of sessions that have ended
	sealed    bool // nobody else may join it
	refuses   bool // its COMMIT is to fail, see fault.go
}

// driverConn is what the driver's connections do.
type driverConn interface {
	driver.Conn
	driver.ExecerContext
	driver.QueryerContext
	driver.ConnPrepareContext
	sqlite.HookRegisterer
	sqlite.DBStatus
}

// newConn takes over a connection of the driver.
func newConn(raw driver.Conn) *conn {
	c := &conn{raw: raw.(driverConn), ours: map[string]driverStmt{}}
	c.raw.RegisterRollbackHook(func() { c.undone = true })
	c.raw.RegisterCommitHook(func() int32 {
		if c.refuses {
			c.refuses = false
			return 1
		}
		c.committed = true
		return 0
	})
	return c
}

// own prepares a statement of ours, of which there are few, once.
func (c *conn) own(text string) (driverStmt, error) {
	if s := c.ours[text]; s != nil {
		return s, nil
	}
	raw, err := c.raw.PrepareContext(context.Background(), text)
	if err != nil {
		return nil, err
	}
	c.ours[text] = raw.(driverStmt)
	return c.ours[text], nil
}

// settle runs a statement of ours that waits for nobody, and to its end: a context that ended it would leave open what
// has become of it. (It is not for a PRAGMA that sets something, which may do so only when it is prepared.)
func (c *conn) settle(ctx context.Context, text string) error {
	s, err := c.own(text)
	if err != nil {
		return err
	}
	_, err = s.ExecContext(context.WithoutCancel(ctx), nil)
	return err
}

// begin starts a transaction. When it fails, none is open any more.
func (c *conn) begin(ctx context.Context, text string) error {
	err := c.settle(ctx, text)
	c.undone, c.committed, c.shared, c.sealed, c.refuses = false, false, false, false, false
	if isWithout(err) {
		_, _ = c.rollback(ctx) // what somebody has left open
	}
	return err
}

// commit ends the transaction. When it fails, nothing of it is left, or the error says that nobody knows.
func (c *conn) commit(ctx context.Context) *engine.Error {
	if err := c.settle(ctx, "COMMIT"); err != nil {
		return c.uncommitted(ctx, err)
	}
	return nil
}

// uncommitted rolls back after COMMIT has failed with err, and explains that.
func (c *conn) uncommitted(ctx context.Context, err error) *engine.Error {
	c.note(err)
	_, _ = c.rollback(ctx)
	if isWithout(err) {
		return errControlled
	}
	failed := during(ctx, "commit", err)
	if hasCode(err, sqlite3.SQLITE_IOERR) && c.overwrite(ctx) != nil {
		failed.Kind, failed.Retry = engine.ErrCommitUnknown, engine.RetryForbidden
		failed.Message += "; it is undone now, but comes back if the process ends before the next commit"
	}
	return failed
}

// overwrite commits a transaction that changes nothing. When the disk fails, and be it as it waits for the last byte,
// all of a transaction can be in the log, though SQLite knows that it is rolled back; who opens the log anew would find
// it there. The next one to commit takes its place.
func (c *conn) overwrite(ctx context.Context) error {
	version, err := c.ask(context.WithoutCancel(ctx), "PRAGMA user_version")
	if err != nil {
		return err
	}
	for _, text := range []string{"BEGIN IMMEDIATE", "PRAGMA user_version=" + version, "COMMIT"} {
		err := untilFree(context.WithoutCancel(ctx), time.Now(), time.Second, func() error {
			_, err := c.raw.ExecContext(context.WithoutCancel(ctx), text, nil)
			return err
		})
		if err != nil {
			_, _ = c.rollback(ctx)
			return err
		}
	}
	return nil
}

// rollback ends the transaction, and reports whether there was one. A connection on which it fails is broken.
func (c *conn) rollback(ctx context.Context) (open bool, err error) {
	err = c.settle(ctx, "ROLLBACK")
	if isWithout(err) {
		return false, nil
	}
	c.broken = c.broken || err != nil
	return true, err
}

// isWithout reports whether COMMIT or ROLLBACK failed because no transaction is open, or BEGIN because one is:
// https://sqlite.org/lang_transaction.html. There is no other way to ask.
func isWithout(err error) bool {
	var failure *sqlite.Error
	return errors.As(err, &failure) && failure.Code() == sqlite3.SQLITE_ERROR
}

// isForeignKey reports whether COMMIT failed because of a deferred foreign key; the transaction is still open.
func isForeignKey(err error) bool {
	var failure *sqlite.Error
	return errors.As(err, &failure) && failure.Code() == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY
}

// isIdle reports whether no transaction is open. BEGIN takes no lock by itself, and COMMIT of nothing is silent.
func (c *conn) isIdle(ctx context.Context) (idle bool, err error) {
	if err = c.settle(ctx, "BEGIN"); isWithout(err) {
		return false, nil
	}
	if err == nil {
		err = c.settle(ctx, "COMMIT")
	}
	return err == nil, err
}

// owes reports whether a foreign key is violated that only COMMIT would look at,
// https://sqlite.org/foreignkeys.html#fk_deferred.
func (c *conn) owes() bool {
	violated, _, err := c.raw.Status(sqlite.DBStatusDeferredFKs, false)
	return violated != 0 || err != nil
}

// close closes the connection.
func (c *conn) close() error {
	c.statements.close()
	for _, s := range c.ours {
		_ = s.Close() // closing the connection tells
	}
	return c.raw.Close()
}

// mend makes a broken connection that could not be replaced, as the database lives in it, one without a transaction.
func (c *conn) mend(ctx context.Context) error {
	if !c.broken {
		return nil
	}
	c.broken = false
	_, err := c.rollback(ctx)
	return err
}

// note takes note of an error after which the connection can't be trusted.
func (c *conn) note(err error) {
	c.broken = c.broken || hasCode(err, sqlite3.SQLITE_IOERR)
}

// setQueryOnly makes the connection refuse to write, or write again.
func (c *conn) setQueryOnly(ctx context.Context, on bool) error {
	if c.queryOnly == on {
		return nil
	}
	text := "PRAGMA query_only=0"
	if on {
		text = "PRAGMA query_only=1"
	}
	if _, err := c.raw.ExecContext(context.WithoutCancel(ctx), text, nil); err != nil {
		c.broken = true
		return err
	}
	c.queryOnly = on
	return nil
}

// setting is a pragma with the value that it is given, and how that reads back.
type setting struct{ pragma, value, want string }

// set gives a pragma its value and makes sure that it has it: SQLite reports nothing when it keeps another.
func (c *conn) set(ctx context.Context, s setting) error {
	if _, err := c.raw.ExecContext(ctx, "PRAGMA "+s.pragma+"="+s.value, nil); err != nil {
		return during(ctx, "set PRAGMA "+s.pragma, err)
	}
	got, err := c.ask(ctx, "PRAGMA "+s.pragma)
	if err != nil {
		return during(ctx, "read PRAGMA "+s.pragma, err)
	}
	if got != s.want {
		return fmt.Errorf("set PRAGMA %s: it is %s instead of %s", s.pragma, got, s.want)
	}
	return nil
}

// ask returns the first value that a statement of ours returns.
func (c *conn) ask(ctx context.Context, text string) (string, error) {
	s, err := c.own(text)
	if err != nil {
		return "", err
	}
	rows, err := s.QueryContext(ctx, nil)
	if err != nil {
		return "", err
	}
	defer func() { _ = rows.Close() }()
	values := make([]driver.Value, len(rows.Columns()))
	if err := rows.Next(values); err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	if len(values) == 0 {
		return "", nil
	}
	return fmt.Sprint(values[0]), nil
}

// untilFree calls try until it fails with something else than SQLITE_BUSY, ctx is done, or the patience, if there is
// any, is at its end. It is for locks for which SQLite doesn't wait by itself.
func untilFree(ctx context.Context, since time.Time, patience time.Duration, try func() error) error {
	const longest = 4 * time.Millisecond // one asks at a time, and those who wait behind him wait too
	for pause := time.Millisecond; ; pause = min(2*pause, longest) {
		err := try()
		if !hasCode(err, sqlite3.SQLITE_BUSY) || patience > 0 && time.Since(since) > patience {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(rand.N(pause)):
		}
	}
}

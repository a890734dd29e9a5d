package sqlite

import (
	"context"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/tholedb/thole/internal/engine"
)

// This file is for tests, which have statements and COMMIT fail.

// RefuseCommit has SQLite refuse the COMMIT of the session. Those who share its transaction are lost with it.
func (s *session) RefuseCommit() {
	if s.conn != nil {
		s.conn.refuses, s.conn.sealed = true, true
	}
}

// Interrupt does to the session what SQLite does when ctx, which has ended, interrupts a statement: a write takes the
// whole transaction with it, unless that is shared.
func (s *session) Interrupt(ctx context.Context, text string) error {
	if err := s.begin(context.WithoutCancel(ctx), text); err != nil {
		return err
	}
	failed := explainInterrupt(ctx)
	switch {
	case reads(text), s.conn.queryOnly:
	case s.conn.shared:
		failed.Aborts = engine.AbortsLevel
	default:
		_, _ = s.conn.rollback(ctx) // a connection on which that fails is broken
		failed.Aborts = engine.AbortsSession
	}
	return failed
}

func explainInterrupt(ctx context.Context) *engine.Error {
	return explainCode(ctx, sqlite3.SQLITE_INTERRUPT, "interrupted", nil)
}

// Delay waits before a statement, and fails as [session.Interrupt] does when the time of the statement is over before.
func (s *session) Delay(ctx context.Context, text string, delay time.Duration) error {
	if err := s.begin(ctx, text); err != nil {
		return err
	}
	ctx, cancel := s.conn.limit(ctx)
	defer cancel()
	if outlasts(ctx, delay) {
		return nil
	}
	return s.Interrupt(ctx, text)
}

// outlasts waits, and reports whether ctx did not end.
func outlasts(ctx context.Context, delay time.Duration) bool {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// FillDisk runs, in the place of a statement, one for which the database has no room: it may not have more pages than it
// has, https://sqlite.org/pragma.html#pragma_max_page_count. It always returns an error.
func (s *session) FillDisk(ctx context.Context, text string) error {
	if err := s.begin(ctx, text); err != nil {
		return err
	}
	pages, err := s.conn.ask(ctx, "PRAGMA page_count")
	if err != nil {
		return err
	}
	most, err := s.conn.ask(ctx, "PRAGMA max_page_count")
	if err != nil {
		return err
	}
	if err := s.conn.allowPages(ctx, pages); err != nil {
		return err
	}
	defer func() { _ = s.conn.allowPages(ctx, most) }() // it has worked before
	if _, err := s.ExecContext(ctx, tooLarge, nil); err != nil {
		return err
	}
	if _, err := s.ExecContext(context.WithoutCancel(ctx), "DROP TABLE thole_fault", nil); err != nil {
		return err
	}
	return explainCode(ctx, sqlite3.SQLITE_FULL, "database or disk is full", nil)
}

// tooLarge needs more pages than are free: of these the table's first one may be gone when they are counted. It has
// room all the same where zeroblob is a function of the program's.
const tooLarge = `CREATE TABLE thole_fault AS SELECT zeroblob((freelist_count + 2) * page_size) AS room
	FROM pragma_freelist_count, pragma_page_size`

func (c *conn) allowPages(ctx context.Context, pages string) error {
	_, err := c.raw.ExecContext(context.WithoutCancel(ctx), "PRAGMA max_page_count="+pages, nil)
	return err
}

// Interrupt is what a statement outside a session fails with when ctx, which has ended, interrupts it.
func (*autoConn) Interrupt(ctx context.Context, _ string) error { return explainInterrupt(ctx) }

// Delay waits before a statement, or until ctx ends.
func (a *autoConn) Delay(ctx context.Context, text string, delay time.Duration) error {
	if outlasts(ctx, delay) {
		return nil
	}
	return a.Interrupt(ctx, text)
}

// FillDisk is [session.FillDisk] in a session of its own.
func (a *autoConn) FillDisk(ctx context.Context, text string) (err error) {
	s := a.engine.session(engine.Options{Info: statement(text)})
	defer func() { err = s.fail(ctx, err) }() // also when a function that the caller has registered panics
	return s.Failed(ctx, s.FillDisk(ctx, text))
}

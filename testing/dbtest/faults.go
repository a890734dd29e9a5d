package dbtest

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/probe"
)

// FaultSet lets things go wrong on a DB, each where and as often as it is told.
// [Faults] makes one.
type FaultSet struct {
	tb   testing.TB
	rig  *rig
	text string
	nth  int
}

// Faults returns the set with which a test has the database fail:
//
//	faults := dbtest.Faults(t, db)
//	faults.SerializationFailures(2)               // the first two attempts
//	faults.At("UPDATE stock").LoseConnection()    // then, while it works
//
// A fault happens at the next point where it can, see [FaultSet.At] and
// [FaultSet.Nth] for others; where several could happen, the one that was armed
// first does. One that has not happened when the test tb ends, or not as often as it
// was to, fails the test. db is a [Sandbox] or a [Database].
//
// # What is real
//
// On PostgreSQL the server itself fails, so that errors, their SQLSTATEs and what
// they do to a transaction are its own. In a Database connections really break; in
// a Sandbox, whose connection has the work of earlier sessions, it stays, and the
// session is undone, or kept, and told what it would be.
//
// On SQLite the disk is really full, and COMMIT is really refused; an interrupt
// undoes what SQLite's does. Serialization failures, and failures of the connection
// and of BEGIN and ROLLBACK, are made by dbtest, with SQLite's codes; thole
// deals with them as it does with SQLite's own, which it retries unasked where
// PostgreSQL's need [thole.SessionOptions.MaxAttempts].
//
// Everywhere what thole says of a session's outcome is true of the database.
func Faults(tb testing.TB, db *thole.DB) *FaultSet {
	tb.Helper()
	return &FaultSet{tb: tb, rig: rigOf(tb, db), nth: 1}
}

// At is the set at the statements whose text, as the engine is given it, contains
// text, in any case. Faults of COMMIT and ROLLBACK are then those of sessions in
// which such a statement ran, and FailBegin that of those that begin with one. It
// arms nothing.
func (f *FaultSet) At(text string) *FaultSet {
	own := *f
	own.text = text
	return &own
}

// Nth is the set from the nth point on, counted from 1 and from when a fault is
// armed. It arms nothing.
func (f *FaultSet) Nth(n int) *FaultSet {
	f.tb.Helper()
	if n < 1 {
		f.tb.Fatalf("dbtest: Nth(%d): points are counted from 1", n)
	}
	own := *f
	own.nth = n
	return &own
}

// FailBegin has a session fail at its first statement, because it can't begin: on
// PostgreSQL with SQLSTATE 53300 (too many connections), which
// [thole.SessionOptions.MaxAttempts] retries, on SQLite with SQLITE_CANTOPEN, which
// nothing does.
func (f *FaultSet) FailBegin() { f.tb.Helper(); f.arm("FailBegin", probe.Fault{Kind: probe.FailBegin}) }

// LoseConnection has the connection break as a statement is sent. In a session the
// error is [thole.ErrConnLost] and nothing has happened; on PostgreSQL MaxAttempts
// retries it. At a session's first statement it breaks behind BEGIN: a connection
// that was dead before is no error, thole takes another. Outside a session what
// was sent has not happened, but on PostgreSQL the caller can't know, so that the
// error is [thole.ErrCommitUnknown].
func (f *FaultSet) LoseConnection() {
	f.tb.Helper()
	f.arm("LoseConnection", probe.Fault{Kind: probe.LoseConnection})
}

// Interrupt has a statement fail as if its ctx were cancelled while it runs: with
// [context.Canceled], and SQLSTATE 57014 or SQLITE_INTERRUPT. On SQLite an
// interrupted write takes the whole session with it ([thole.ErrTxAborted] is what
// comes after), on PostgreSQL any statement does that with its level.
func (f *FaultSet) Interrupt() { f.tb.Helper(); f.arm("Interrupt", probe.Fault{Kind: probe.Interrupt}) }

// SlowQuery has a statement take longer by d, so that timeouts and deadlines which
// are shorter end it as they would: [thole.ErrTimeout]. On PostgreSQL the server
// sleeps.
func (f *FaultSet) SlowQuery(d time.Duration) {
	f.tb.Helper()
	f.arm("SlowQuery", probe.Fault{Kind: probe.SlowQuery, Delay: d})
}

// DiskFull has a statement that writes fail, with SQLSTATE 53100 or SQLITE_FULL.
func (f *FaultSet) DiskFull() { f.tb.Helper(); f.arm("DiskFull", probe.Fault{Kind: probe.DiskFull}) }

// FailCommit has COMMIT fail with an error that no retry cures, and undo the session:
// SQLSTATE 58030 (I/O error), or SQLITE_CONSTRAINT_COMMITHOOK.
//
// This and the other faults of COMMIT happen in sessions whose COMMIT is waited for:
// not in those that are ReadOnly, unless they have an OnCommit hook or are
// serializable; and a session without statements has none.
func (f *FaultSet) FailCommit() {
	f.tb.Helper()
	f.arm("FailCommit", probe.Fault{Kind: probe.FailCommit})
}

// SerializationFailures has the next n COMMITs fail with [thole.ErrSerialization]:
// SQLSTATE 40001, or SQLITE_BUSY_SNAPSHOT. Each attempt of a session has one.
func (f *FaultSet) SerializationFailures(n int) {
	f.tb.Helper()
	if n < 1 {
		f.tb.Fatalf("dbtest: SerializationFailures(%d): it is one at least", n)
	}
	f.arm("SerializationFailures", probe.Fault{Kind: probe.SerializationFailure, Times: n})
}

// LoseCommit has COMMIT get lost on its way: nothing is committed, and the caller
// can't know, so that the error is [thole.ErrCommitUnknown]. With an
// [thole.SessionOptions.IdempotencyKey] thole finds out, and runs fn again.
func (f *FaultSet) LoseCommit() {
	f.tb.Helper()
	f.arm("LoseCommit", probe.Fault{Kind: probe.LoseCommit})
}

// LoseCommitReply has the answer to COMMIT get lost: the session is committed, and
// the caller can't know, so that the error is [thole.ErrCommitUnknown]. With an
// [thole.SessionOptions.IdempotencyKey] thole finds out, and it is nil.
func (f *FaultSet) LoseCommitReply() {
	f.tb.Helper()
	f.arm("LoseCommitReply", probe.Fault{Kind: probe.LoseCommitReply})
}

// FailRollback has the ROLLBACK of a session fail, which is undone all the same: its
// connection is given up. The error is joined to why it was rolled back.
func (f *FaultSet) FailRollback() {
	f.tb.Helper()
	f.arm("FailRollback", probe.Fault{Kind: probe.FailRollback})
}

// arm lets a fault happen until the test ends, and fails it for one that did not.
func (f *FaultSet) arm(name string, fault probe.Fault) {
	f.tb.Helper()
	if fault.Kind != probe.SerializationFailure {
		fault.Times = 1
	}
	fault.Text, fault.Nth = f.text, f.nth
	armed := f.describe(name)
	f.rig.probe.Arm(&fault)
	f.tb.Cleanup(func() {
		f.tb.Helper()
		switch fired := f.rig.probe.Disarm(&fault); {
		case fired == 0:
			f.tb.Errorf("dbtest: %s never happened", armed)
		case fired < fault.Times:
			f.tb.Errorf("dbtest: %s happened %d times of %d", armed, fired, fault.Times)
		}
	})
}

// describe says which fault it is, at which points, and where it was armed.
func (f *FaultSet) describe(name string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "the fault %s", name)
	if f.text != "" {
		fmt.Fprintf(&b, " at %q", f.text)
	}
	if f.nth > 1 {
		fmt.Fprintf(&b, " from point %d on", f.nth)
	}
	const callers = 3 // describe, arm and the method of the fault
	if _, file, line, ok := runtime.Caller(callers); ok {
		fmt.Fprintf(&b, ", armed at %s:%d,", filepath.Base(file), line)
	}
	return b.String()
}

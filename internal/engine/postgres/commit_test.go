package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tholedb/thole/internal/engine"
)

func TestOutcome(t *testing.T) {
	t.Parallel()
	pgError := func(severity, code string) error {
		return &pgconn.PgError{Severity: severity, SeverityUnlocalized: severity, Code: code}
	}
	const (
		rolledBack = engine.RolledBack
		committed  = engine.Committed
		unknown    = engine.Unknown
	)
	tests := []struct {
		name  string
		reply reply
		want  engine.Outcome
		kind  error
		retry engine.Retry
	}{
		{"committed", reply{tag: "COMMIT"}, committed, nil, 0},
		{"rolled back", reply{tag: "ROLLBACK"}, rolledBack, engine.ErrTxAborted, engine.RetryNever},
		{"without standbys", reply{tag: "COMMIT", unreplicated: true}, unknown, engine.ErrCommitUnknown, engine.RetryForbidden},
		{"no tag", reply{}, unknown, engine.ErrCommitUnknown, engine.RetryForbidden},
		{"serialization failure", reply{err: pgError("ERROR", "40001")}, rolledBack, engine.ErrSerialization, engine.RetryAsked},
		{"deadlock", reply{err: pgError("ERROR", "40P01")}, rolledBack, engine.ErrDeadlock, engine.RetryAsked},
		{"deferred foreign key", reply{err: pgError("ERROR", "23503")}, rolledBack, engine.ErrForeignKey, engine.RetryNever},
		{"deferred trigger", reply{err: pgError("ERROR", "P0001")}, rolledBack, nil, engine.RetryNever},
		{"cancelled", reply{err: pgError("ERROR", "57014")}, rolledBack, engine.ErrTimeout, engine.RetryNever},
		{"disk full", reply{err: pgError("ERROR", "53100")}, rolledBack, nil, engine.RetryNever},
		{"completion unknown", reply{err: pgError("ERROR", "40003")}, unknown, engine.ErrCommitUnknown, engine.RetryForbidden},
		{"connection exception", reply{err: pgError("ERROR", "08006")}, unknown, engine.ErrCommitUnknown, engine.RetryForbidden},
		{"admin shutdown", reply{err: pgError("FATAL", "57P01")}, unknown, engine.ErrCommitUnknown, engine.RetryForbidden},
		{"crash shutdown", reply{err: pgError("WARNING", "57P02")}, unknown, engine.ErrCommitUnknown, engine.RetryForbidden},
		{"fatal, of a class that rolls back", reply{err: pgError("FATAL", "40001")}, unknown, engine.ErrCommitUnknown, engine.RetryForbidden},
		{"panic", reply{err: pgError("PANIC", "XX000")}, unknown, engine.ErrCommitUnknown, engine.RetryForbidden},
		{"end of file", reply{err: io.ErrUnexpectedEOF}, unknown, engine.ErrCommitUnknown, engine.RetryForbidden},
		{"what pgx calls safe to retry", reply{err: safeToRetryError{}}, unknown, engine.ErrCommitUnknown, engine.RetryForbidden},
		{"timeout", reply{err: context.DeadlineExceeded}, unknown, engine.ErrCommitUnknown, engine.RetryForbidden},
		{"read-only", reply{err: io.EOF, readOnly: true}, rolledBack, engine.ErrConnLost, engine.RetryAsked},
		{"read-only, no tag", reply{readOnly: true}, rolledBack, engine.ErrConnLost, engine.RetryAsked},
		{"read-only, refused", reply{err: pgError("ERROR", "40001"), readOnly: true}, rolledBack, engine.ErrSerialization, engine.RetryAsked},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, failed := test.reply.outcome()
			if got != test.want {
				t.Errorf("outcome: got %d, want %d", got, test.want)
			}
			if (got == committed) != (failed == nil) {
				t.Fatalf("outcome %d with error %v", got, failed)
			}
			if failed != nil && (failed.Kind != test.kind || failed.Retry != test.retry) {
				t.Errorf("error: got kind %v, retry %d, want %v, %d", failed.Kind, failed.Retry, test.kind, test.retry)
			}
			if failed != nil && test.reply.err != nil && !errors.Is(failed, test.reply.err) {
				t.Errorf("error %v does not wrap %v", failed, test.reply.err)
			}
		})
	}
}

// safeToRetryError is an error of which pgx says that nothing was sent.
type safeToRetryError struct{ error }

func (safeToRetryError) SafeToRetry() bool { return true }

func TestCommitRefused(t *testing.T) {
	t.Parallel()
	e := open(t, maxConns(1))
	setUp(t, e,
		"create table parent (id int primary key)",
		"create table child (id int references parent deferrable initially deferred)",
	)
	s := begin(t, e, engine.Options{})
	mustExec(t, s, "insert into child values (1)")
	out, err := s.Commit(testContext(t), false)
	failed := wantKind(t, err, engine.ErrForeignKey)
	if out != engine.RolledBack || failed.Code != "23503" || failed.Constraint != "child_id_fkey" || failed.Table != "child" {
		t.Errorf("Commit = %d, %#v", out, failed)
	}
	once(t, e, "select 1")
	if got := e.pool.Stat().NewConnsCount(); got != 1 {
		t.Errorf("connections made: got %d, want 1", got)
	}
}

func TestCommitSerializationFailure(t *testing.T) {
	t.Parallel()
	e := open(t)
	setUp(t, e, "create table t (id int)")
	a := begin(t, e, engine.Options{Isolation: sql.LevelSerializable})
	b := begin(t, e, engine.Options{Isolation: sql.LevelSerializable})
	for i, s := range []*session{a, b} {
		mustQuery(t, s, "select count(*) from t")
		mustExec(t, s, "insert into t values ($1)", i)
	}
	if out, err := a.Commit(testContext(t), true); out != engine.Committed || err != nil {
		t.Errorf("first Commit = %d, %v", out, err)
	}
	out, err := b.Commit(testContext(t), true)
	if failed := wantKind(t, err, engine.ErrSerialization); out != engine.RolledBack || failed.Retry != engine.RetryAsked {
		t.Errorf("second Commit = %d, retry %d", out, failed.Retry)
	}
}

func TestCommitOfAbortedTransaction(t *testing.T) {
	t.Parallel()
	e := open(t, maxConns(1))
	setUp(t, e, "create table t (id int primary key)")
	s := begin(t, e, engine.Options{})
	mustExec(t, s, "insert into t values (1)")
	if err := s.Savepoint(testContext(t), false); err != nil {
		t.Fatal(err)
	}
	wantKind(t, exec(testContext(t), s, "insert into t values (null)"), engine.ErrNotNull)
	if err := s.RollbackTo(testContext(t)); err != nil {
		t.Fatal(err)
	}
	first := exec(testContext(t), s, "insert into t values (1)")
	wantKind(t, exec(testContext(t), s, "select 1"), engine.ErrTxAborted)
	out, err := s.Commit(testContext(t), true)
	wantKind(t, err, engine.ErrTxAborted)
	if out != engine.RolledBack || !errors.Is(err, first) || !errors.Is(err, engine.ErrUnique) {
		t.Errorf("Commit = %d, %v, want what wraps %v", out, err, first)
	}
	if got := count(t, e, "t"); got != 0 {
		t.Errorf("rows: got %d, want 0", got)
	}
}

func TestCommitUnderDoneContext(t *testing.T) {
	t.Parallel()
	e := open(t, maxConns(1))
	setUp(t, e, "create table t (id int)")
	s := begin(t, e, engine.Options{})
	mustExec(t, s, "insert into t values (1)")
	ctx, cancel := context.WithCancel(testContext(t))
	cancel()
	out, err := s.Commit(ctx, true)
	if out != engine.Committed || err != nil {
		t.Errorf("Commit = %d, %v, want %d, nil", out, err, engine.Committed)
	}
	if got := count(t, e, "t"); got != 1 {
		t.Errorf("rows: got %d, want 1", got)
	}
	if got := e.pool.Stat().NewConnsCount(); got != 1 {
		t.Errorf("connections made: got %d, want 1", got)
	}
}

// TestCommitLost has the server commit and nobody hear of it, and the other way
// round: the same error for both.
func TestCommitLost(t *testing.T) {
	t.Parallel()
	for _, answer := range []bool{false, true} {
		t.Run(fmt.Sprintf("executed %v", answer), func(t *testing.T) {
			t.Parallel()
			cut := &cutter{answer: answer}
			e := open(t, cut.configure, maxConns(1))
			setUp(t, e, "create table t (id int)")
			s := begin(t, e, engine.Options{})
			mustExec(t, s, "insert into t values (1)")
			cut.arm("commit")
			out, err := s.Commit(testContext(t), true)
			failed := wantKind(t, err, engine.ErrCommitUnknown)
			if out != engine.Unknown || failed.Retry != engine.RetryForbidden {
				t.Errorf("Commit = %d, retry %d", out, failed.Retry)
			}
			if answer && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%v does not match the error of the link", err)
			}
			if got, want := count(t, e, "t"), map[bool]int{false: 0, true: 1}[answer]; got != want {
				t.Errorf("rows: got %d, want %d", got, want)
			}
		})
	}
}

func TestCommitLostReadOnly(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		opts     engine.Options
		used     bool
		observed bool
		want     engine.Outcome
		kind     error
	}{
		{"nobody waits", engine.Options{ReadOnly: true}, true, false, engine.Committed, nil},
		{"observed", engine.Options{ReadOnly: true}, true, true, engine.RolledBack, engine.ErrConnLost},
		{
			"serializable",
			engine.Options{ReadOnly: true, Isolation: sql.LevelSerializable},
			true, false, engine.RolledBack, engine.ErrConnLost,
		},
		{"empty", engine.Options{}, false, true, engine.Committed, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			cut := &cutter{answer: true}
			e := open(t, cut.configure, maxConns(1))
			s := begin(t, e, test.opts)
			if test.used {
				mustExec(t, s, "select 1")
			}
			cut.arm("commit")
			out, err := s.Commit(testContext(t), test.observed)
			if out != test.want || (err == nil) != (test.kind == nil) {
				t.Errorf("Commit = %d, %v, want %d, %v", out, err, test.want, test.kind)
			}
			if err != nil {
				wantKind(t, err, test.kind)
			}
			once(t, e, "select 1")
		})
	}
}

// TestCommitTerminated ends the backend while COMMIT runs a deferred trigger.
func TestCommitTerminated(t *testing.T) {
	t.Parallel()
	e := open(t)
	setUp(t, e, "create table t (id int)", `
		create function die() returns trigger language plpgsql as $$
		begin perform pg_terminate_backend(pg_backend_pid()); return null; end $$`,
		"create constraint trigger die after insert on t deferrable initially deferred for each row execute function die()",
	)
	s := begin(t, e, engine.Options{})
	mustExec(t, s, "insert into t values (1)")
	out, err := s.Commit(testContext(t), true)
	if failed := wantKind(t, err, engine.ErrCommitUnknown); out != engine.Unknown || failed.Code != "57P01" {
		t.Errorf("Commit = %d, %v, want %d with 57P01", out, err, engine.Unknown)
	}
}

// TestCommitTimesOut cancels a COMMIT that waits in a deferred trigger: the
// server answers that it did not commit.
func TestCommitTimesOut(t *testing.T) {
	t.Parallel()
	e := open(t, maxConns(1))
	setUp(t, e, "create table t (id int)", `
		create function wait() returns trigger language plpgsql as $$
		begin perform pg_sleep(60); return null; end $$`,
		"create constraint trigger wait after insert on t deferrable initially deferred for each row execute function wait()",
	)
	s := begin(t, e, engine.Options{})
	mustExec(t, s, "insert into t values (1)")
	ctx, cancel := context.WithTimeout(testContext(t), 2*lastWord)
	defer cancel()
	out, err := s.Commit(ctx, true)
	wantKind(t, err, engine.ErrTimeout)
	if out != engine.RolledBack || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Commit = %d, %v", out, err)
	}
	if got := count(t, e, "t"); got != 0 {
		t.Errorf("rows: got %d, want 0", got)
	}
}

// FuzzOutcome holds the classification of a COMMIT against what must be so of
// every answer, also of one that no PostgreSQL gives: rolled back is only what
// an error of the server says that leaves the connection standing.
func FuzzOutcome(f *testing.F) {
	for _, seed := range []struct{ severity, code, tag string }{
		{"ERROR", "40001", ""},
		{"FATAL", "57P01", ""},
		{"PANIC", "XX000", ""},
		{"ERROR", "40003", ""},
		{"ERROR", "08006", ""},
		{"", "", "COMMIT"},
		{"", "", "ROLLBACK"},
		{"", "0", ""},
		{"ERREUR", "23505", ""},
		{"", "", "\xff"},
	} {
		f.Add(seed.severity, seed.code, seed.tag, false, false)
		f.Add(seed.severity, seed.code, seed.tag, true, false)
		f.Add(seed.severity, seed.code, seed.tag, true, true)
		f.Add(seed.severity, seed.code, seed.tag, false, true)
	}
	f.Fuzz(func(t *testing.T, severity, code, tag string, readOnly, unreplicated bool) {
		r := reply{tag: tag, readOnly: readOnly, unreplicated: unreplicated}
		answered := tag == "COMMIT" || tag == "ROLLBACK"
		if severity+code != "" {
			r.err = &pgconn.PgError{Severity: severity, SeverityUnlocalized: severity, Code: code}
			gone := severity == "FATAL" || severity == "PANIC" || strings.HasPrefix(code, "08") ||
				slices.Contains([]string{"40003", "57P01", "57P02", "57P03"}, code)
			answered = !gone
		}
		outcome, failed := r.outcome()
		if (outcome == engine.Committed) != (failed == nil) {
			t.Fatalf("%+v: outcome %d with error %v", r, outcome, failed)
		}
		switch {
		case outcome == engine.Committed && (tag != "COMMIT" || r.err != nil):
			t.Errorf("%+v: committed, and the server has not said so", r)
		case outcome == engine.RolledBack && !answered && !readOnly:
			t.Errorf("%+v: rolled back, and the server has not said so", r)
		case outcome == engine.Unknown && answered && !unreplicated:
			t.Errorf("%+v: unknown, and the server has answered", r)
		case outcome == engine.Unknown && (!errors.Is(failed, engine.ErrCommitUnknown) || failed.Retry != engine.RetryForbidden):
			t.Errorf("%+v: unknown, with error %v and retry %d", r, failed, failed.Retry)
		}
	})
}

package dbtest_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/engine"
	"github.com/tholedb/thole/testing/dbtest"
)

// TestB40Sessions: what is said of sessions is so of each kind.
func TestB40Sessions(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, config dbtest.Config) {
		db := config.Sandbox(t)
		log := dbtest.Sessions(t, db, func() { runSessions(t, db) })
		log.Committed(3)
		log.RolledBack(1)
		log.Unknown(0)
		log.Labelled("keep").Committed(1)
		log.Labelled("keep").Attempts(1)
		log.Labelled("undo").RolledBack(1)
		log.Labelled("read").ReadOnly()
		log.Labelled("strict").Isolation(sql.LevelSerializable)
		log.Labelled("strict").Attempts(3)
		if got := len(log.Sessions()); got != 4 {
			t.Errorf("got %d sessions, want 4, without the statement outside:\n%s", got, log)
		}
		for _, s := range log.Sessions() {
			if !strings.HasPrefix(s.Caller, "dbtest/sessions_test.go:") {
				t.Errorf("got the call site %q", s.Caller)
			}
			if (s.Label == "undo") != errors.Is(s.Err, errUndo) {
				t.Errorf("%s: got error %v", s.Label, s.Err)
			}
		}
	})
}

var errUndo = errors.New("undo")

// runSessions runs a session of each kind, and a statement outside.
func runSessions(t *testing.T, db *thole.DB) {
	t.Helper()
	ctx := t.Context()
	run := func(opts thole.SessionOptions, fn func(tx *thole.Tx) error) error {
		return db.WithSessionOptions(ctx, opts, func(tx *thole.Tx) error {
			if err := tx.WithSession(ctx, func(tx *thole.Tx) error { return tx.GetContext(ctx, new(int), "select 1") }); err != nil {
				return err
			}
			return fn(tx)
		})
	}
	keep := func(*thole.Tx) error { return nil }
	errs := []error{
		run(thole.SessionOptions{Label: "keep"}, keep),
		run(thole.SessionOptions{Label: "read", ReadOnly: true}, keep),
		run(thole.SessionOptions{Label: "strict", Isolation: sql.LevelSerializable}, func(tx *thole.Tx) error {
			if tx.Attempt() < 3 {
				return &engine.Error{Kind: thole.ErrSerialization, Message: "again", Retry: engine.RetryAsked}
			}
			return nil
		}),
		db.GetContext(ctx, new(int), "select 1"),
	}
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
	if err := run(thole.SessionOptions{Label: "undo"}, func(*thole.Tx) error { return errUndo }); !errors.Is(err, errUndo) {
		t.Error(err)
	}
}

// TestB40Aside: the sessions that thole opens to make the table of idempotency keys,
// and to ask for a key, are not counted. They stand in what a failed test prints.
func TestB40Aside(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, config dbtest.Config) {
		failed := record(t, func(tb testing.TB) {
			db := config.Sandbox(tb)
			key := thole.SessionOptions{IdempotencyKey: "request 1"}
			var log *dbtest.SessionLog
			statements := dbtest.Queries(t, db, func() {
				log = dbtest.Sessions(t, db, func() {
					err := db.WithSessionOptions(tb.Context(), key, func(tx *thole.Tx) error { return add(tb.Context(), tx, "made") })
					if err != nil {
						t.Error(err)
					}
					if err := db.WithSessionOptions(tb.Context(), key, nothing); !errors.Is(err, thole.ErrAlreadyCommitted) {
						t.Errorf("again: got %v, want ErrAlreadyCommitted", err)
					}
				})
			})
			log.Committed(1)
			if got := len(log.Sessions()); got != 2 {
				t.Errorf("got %d sessions, want 2:\n%s", got, log)
			}
			statements.None("create table")
			statements.None("select")
			tb.Fail()
		})
		if !strings.Contains(strings.ToLower(failed.output()), "create table if not exists thole_idempotency_keys") {
			t.Errorf("got no statement about keys in\n%s", failed.output())
		}
		if strings.Contains(failed.output(), "opened at ,") {
			t.Errorf("got a session without a place in\n%s", failed.output())
		}
	})
}

// TestB40Failures: what is not as it is wanted fails the test, which goes on, and
// lists the sessions.
func TestB40Failures(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, config dbtest.Config) {
		for name, test := range map[string]struct {
			check func(log *dbtest.SessionLog)
			want  string
		}{
			"committed":   {func(l *dbtest.SessionLog) { l.Committed(2) }, "got 1 session committed, want 2"},
			"rolled back": {func(l *dbtest.SessionLog) { l.RolledBack(1) }, "got 0 sessions rolled back, want 1"},
			"unknown":     {func(l *dbtest.SessionLog) { l.Unknown(1) }, "got 0 sessions unknown, want 1"},
			"attempts":    {func(l *dbtest.SessionLog) { l.Attempts(2) }, "want 2 attempts each"},
			"read-only":   {func(l *dbtest.SessionLog) { l.ReadOnly() }, "want read-only sessions alone"},
			"isolation":   {func(l *dbtest.SessionLog) { l.Isolation(sql.LevelSerializable) }, "want serializable sessions alone"},
			"label":       {func(l *dbtest.SessionLog) { l.Labelled("other").Attempts(1) }, `no session began in f with the label "other"`},
		} {
			t.Run(name, func(t *testing.T) {
				got := record(t, func(tb testing.TB) {
					tb.Helper()
					db := config.Sandbox(tb)
					test.check(dbtest.Sessions(tb, db, func() {
						err := db.WithSessionOptions(tb.Context(), thole.SessionOptions{Label: "forge"}, func(tx *thole.Tx) error {
							return add(context.WithoutCancel(tb.Context()), tx, "shield")
						})
						if err != nil {
							tb.Error(err)
						}
					}))
				})
				if !got.Failed() || !strings.Contains(got.output(), test.want) {
					t.Errorf("got %q, want %q", got.output(), test.want)
				}
				if name != "label" && !strings.Contains(got.output(), `session "forge" opened at dbtest/sessions_test.go:`) {
					t.Errorf("got %q, want the list of sessions", got.output())
				}
			})
		}
	})
}

// TestB40Unknown: so are those of which it is unknown what became.
func TestB40Unknown(t *testing.T) {
	t.Parallel()
	db := onPostgres().Database(t)
	log := dbtest.Sessions(t, db, func() {
		_ = inSession(t, db, func(ctx context.Context, tx *thole.Tx) error {
			_, err := tx.Pgx().Conn().Exec(ctx, "commit")
			return err
		})
	})
	log.Unknown(1)
	log.Committed(0)
	log.RolledBack(0)
}

// TestB40Open: a session that has not ended is none of them.
func TestB40Open(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, config dbtest.Config) {
		db := config.Sandbox(t)
		in, out, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
		log := dbtest.Sessions(t, db, func() {
			go func() {
				defer close(done)
				_ = inSession(t, db, func(ctx context.Context, tx *thole.Tx) error {
					close(in)
					<-out
					return nil
				})
			}()
			<-in
		})
		close(out)
		<-done
		log.Committed(0)
		log.RolledBack(0)
		if got := log.Sessions(); len(got) != 1 || !got[0].Open || !strings.HasSuffix(got[0].String(), ": is open") {
			t.Errorf("got %v, want one open session", got)
		}
	})
}

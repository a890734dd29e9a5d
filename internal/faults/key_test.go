package faults

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"modernc.org/sqlite"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/faults/disk"
)

// keyed is a session with a key whose COMMIT is in the log, though the disk
// failed, and is not written over, as the disk still fails.
type keyed struct {
	*faulty
	db    *thole.DB
	path  string
	armed atomic.Bool
}

// newKeyed opens a database on a disk that fails when what failed is written over:
// that begins with a look at the version of the user's.
func newKeyed(t *testing.T) *keyed {
	t.Helper()
	k := &keyed{faulty: newFaulty(t)}
	k.path = filepath.Join(k.folder, "test.db")
	judge := func(action sqlite.AuthorizerActionCode, what, _, _, _ string) sqlite.AuthorizerReturnCode {
		if action == sqlite.AuthPragma && what == "user_version" && k.armed.Swap(false) {
			k.disk.Break(disk.Fault{Op: disk.Write, At: 1, Code: disk.BadWrite, Lasting: true})
		}
		return sqlite.AuthorizerOK
	}
	k.db = openKeyed(t, k.path, func(d *sqlite.Driver) error {
		d.RegisterConnectionHook(func(conn sqlite.ExecQuerierContext, _ string) error {
			return conn.(sqlite.AuthorizerRegisterer).RegisterAuthorizer(judge)
		})
		return nil
	})
	return k
}

func openKeyed(t *testing.T, path string, driver func(*sqlite.Driver) error) *thole.DB {
	t.Helper()
	db, err := thole.OpenConfig(t.Context(), &thole.Config{
		SQLite: &thole.SQLiteConfig{Path: path, Driver: driver},
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if err := Create(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	const keys = `CREATE TABLE IF NOT EXISTS thole_idempotency_keys (
		key text NOT NULL PRIMARY KEY, attempt text NOT NULL, at timestamptz NOT NULL DEFAULT current_timestamp)`
	if _, err := db.ExecContext(t.Context(), keys); err != nil { // by the connection that writes
		t.Fatal(err)
	}
	return db
}

// wantTokens checks what stands in each list.
func wantTokens(t *testing.T, when string, db *thole.DB, want string) {
	t.Helper()
	tokens, err := thole.All[string](t.Context(), db, "SELECT DISTINCT tokens FROM lists")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(tokens, ", "); got != want {
		t.Errorf("%s: got %q, want %q", when, got, want)
	}
}

var call = thole.SessionOptions{IdempotencyKey: "call"}

// killed is the database as a process finds it that begins when this one is
// killed now.
func (k *keyed) killed(name string) *thole.DB {
	k.t.Helper()
	copied := filepath.Join(k.copies, name+".db")
	copyDatabase(k.t, k.path, copied)
	return openKeyed(k.t, copied, nil)
}

// A COMMIT of which nobody knows whether it comes back is asked about until the
// disk works. It has come back by then if the connection that failed was the only
// one, and else does so never. A process that begins before has it, and says so.
func TestKeyOnFailingDisk(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		alone bool
		again error // of the second attempt
		want  string
		hooks string
	}{
		"comes back": {true, nil, "attempt 1", "commit"},
		"commits":    {false, nil, "attempt 2", "rollback commit"},
		"fails":      {false, errOwn, "", "rollback rollback"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKeyed(t)
			if !test.alone {
				wantTokens(t, "at first", k.db, "") // with a connection that stays
			}
			var hooks []string
			ended := make(chan error, 1)
			go func() {
				ended <- k.db.WithSessionOptions(t.Context(), call, func(tx *thole.Tx) error {
					tx.OnCommit(func(context.Context) { hooks = append(hooks, "commit") })
					tx.OnRollback(func(context.Context, error) { hooks = append(hooks, "rollback") })
					if _, err := tx.ExecContext(tx.Context(), "UPDATE lists SET tokens = 'attempt ' || ?", tx.Attempt()); err != nil {
						return err
					}
					if tx.Attempt() == 2 {
						return test.again
					}
					k.fail()
					return nil
				})
			}()
			k.awaitAsked()
			before := k.killed("before")
			k.disk.Heal()
			err := before.WithSessionOptions(t.Context(), call, func(*thole.Tx) error { t.Error("fn ran"); return nil })
			if !errors.Is(err, thole.ErrAlreadyCommitted) || thole.OutcomeOf(err) != thole.Committed {
				t.Errorf("killed while it was asked: got error %v, want %v", err, thole.ErrAlreadyCommitted)
			}
			wantTokens(t, "killed while it was asked", before, "attempt 1")
			if err := <-ended; !errors.Is(err, test.again) || errors.Is(err, thole.ErrCommitUnknown) {
				t.Errorf("got error %v, want %v", err, test.again)
			}
			wantTokens(t, "at the end", k.db, test.want)
			wantTokens(t, "killed at the end", k.killed("after"), test.want)
			if got := strings.Join(hooks, " "); got != test.hooks {
				t.Errorf("hooks that ran: got %q, want %q", got, test.hooks)
			}
		})
	}
}

// fail has the next COMMIT fail when it waits for the disk, and every write from
// then on.
func (k *keyed) fail() {
	k.armed.Store(true)
	k.disk.Break(disk.Fault{Op: disk.Sync, At: 1, Code: disk.BadSync})
}

// awaitAsked waits until it was asked in vain.
func (k *keyed) awaitAsked() {
	k.t.Helper()
	for deadline := time.Now().Add(time.Minute); k.armed.Load() || k.disk.Hits() < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			k.t.Fatal("waited in vain for the disk to fail twice")
		}
	}
}

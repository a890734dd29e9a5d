package dbtest_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"
	"modernc.org/sqlite"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/testing/dbtest"
)

// shop is stock in a database of its own: other tests commit what they should not
// into that of stock.
var shop = dbtest.Config{
	Migrations: stock.Migrations,
	Fixtures:   func(context.Context, *thole.DB) error { return nil },
}

// eachShop is each with shop.
func eachShop(t *testing.T, test func(t *testing.T, config dbtest.Config)) {
	t.Helper()
	each(t, func(t *testing.T, config dbtest.Config) {
		config.Fixtures = shop.Fixtures
		test(t, config)
	})
}

// eachDB runs a test on both engines, in a Sandbox and in a Database.
func eachDB(t *testing.T, config dbtest.Config, test func(t *testing.T, db *thole.DB)) {
	t.Helper()
	for _, engine := range []thole.Engine{thole.SQLite, thole.Postgres} {
		config.Engines = []thole.Engine{engine}
		for kind, open := range map[string]func(testing.TB) *thole.DB{"sandbox": config.Sandbox, "database": config.Database} {
			t.Run(string(engine)+"/"+kind, func(t *testing.T) {
				t.Parallel()
				test(t, open(t))
			})
		}
	}
}

// story is what became of a session.
type story struct {
	Runs      int // of fn
	Committed int // OnCommit hooks that ran
	Undone    int // OnRollback hooks that ran
	Outcome   thole.Outcome
	Code      string

	err error
}

// tell runs fn in a session, in which it adds the item "made" first.
func tell(db *thole.DB, opts thole.SessionOptions, fn func(tx *thole.Tx) error) story {
	var s story
	s.err = db.WithSessionOptions(context.Background(), opts, func(tx *thole.Tx) error {
		s.Runs++
		tx.OnCommit(func(context.Context) { s.Committed++ })
		tx.OnRollback(func(context.Context, error) { s.Undone++ })
		if err := add(tx.Context(), tx, "made"); err != nil {
			return err
		}
		return fn(tx)
	})
	return s.ended()
}

// ended fills what the error says.
func (s story) ended() story {
	s.Outcome = thole.OutcomeOf(s.err)
	if failed, ok := errors.AsType[*thole.Error](s.err); ok {
		s.Code = failed.Code
	}
	return s
}

func nothing(*thole.Tx) error { return nil }

// wants compares a story with how it should be.
func (s story) wants(t *testing.T, want story) {
	t.Helper()
	if diff := cmp.Diff(want, s, cmpopts.IgnoreUnexported(story{})); diff != "" {
		t.Errorf("the session (-want +got):\n%s\nits error: %v", diff, s.err)
	}
}

// is looks for kinds of errors, one of which is wanted; the others are not.
func (s story) is(t *testing.T, want error) {
	t.Helper()
	for _, kind := range []error{thole.ErrSerialization, thole.ErrCommitUnknown, thole.ErrConnLost, thole.ErrTimeout, context.Canceled} {
		if got := errors.Is(s.err, kind); got != (kind == want) {
			t.Errorf("errors.Is(err, %v): got %t; the error: %v", kind, got, s.err)
		}
	}
}

// on is one of two values by the engine.
func on[T any](db *thole.DB, sqlite, postgres T) T {
	if db.Engine() == thole.SQLite {
		return sqlite
	}
	return postgres
}

func TestFaults(t *testing.T) {
	t.Parallel()
	for _, b := range []struct {
		name string
		test func(t *testing.T, db *thole.DB)
	}{
		{"B41/FailCommit", failCommit},
		{"B41/FailCommit at a statement", failCommitAt},
		{"B41/FailCommit read-only", failCommitReadOnly},
		{"B41/FailCommit that fails anyway", failCommitAnyway},
		{"B42/SerializationFailures cured", serializationCured},
		{"B42/SerializationFailures of all attempts", serializationExhausted},
		{"B42/SerializationFailures unasked", serializationUnasked},
		{"B42/SerializationFailures read-only", serializationReadOnly},
		{"B43/LoseConnection", loseConnection},
		{"B43/LoseConnection nested", loseConnectionNested},
		{"B43/LoseConnection retried", loseConnectionRetried},
		{"B43/LoseConnection outside", loseConnectionOutside},
		{"B43/LoseCommit", loseCommit},
		{"B43/LoseCommit with a key", loseCommitWithKey},
		{"B43/LoseCommit read-only", loseCommitReadOnly},
		{"B43/LoseCommitReply", loseCommitReply},
		{"B43/LoseCommitReply with a key", loseCommitReplyWithKey},
		{"B43/LoseCommitReply read-only", loseCommitReplyReadOnly},
		{"B44/Interrupt a write", interruptWrite},
		{"B44/Interrupt a read", interruptRead},
		{"B44/Interrupt outside", interruptOutside},
		{"B44/SlowQuery StatementTimeout", slowStatement},
		{"B44/SlowQuery deadline", slowDeadline},
		{"B44/SlowQuery outside", slowOutside},
		{"B44/SlowQuery in time", slowInTime},
		{"B45/DiskFull", diskIsFull},
		{"B45/DiskFull outside", diskIsFullOutside},
		{"B45/DiskFull with free pages", diskIsFullThoughFree},
		{"B45/FailBegin", failBegin},
		{"B45/FailRollback", failRollback},
	} {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			eachDB(t, shop, func(t *testing.T, db *thole.DB) {
				b.test(t, db)
				goesOn(t, db)
			})
		})
	}
}

// goesOn wants sessions to work after a fault.
func goesOn(t *testing.T, db *thole.DB) {
	t.Helper()
	before := names(t, db)
	err := db.WithSession(t.Context(), func(tx *thole.Tx) error { return add(t.Context(), tx, "after") })
	if err != nil {
		t.Fatalf("the session after the fault: %v", err)
	}
	wantNames(t, db, append(before, "after")...)
}

func failCommit(t *testing.T, db *thole.DB) {
	dbtest.Faults(t, db).FailCommit()
	got := tell(db, thole.SessionOptions{MaxAttempts: 3}, nothing)
	got.wants(t, story{Runs: 1, Undone: 1, Outcome: thole.RolledBack, Code: on(db, "SQLITE_CONSTRAINT_COMMITHOOK", "58030")})
	got.is(t, nil)
	wantNames(t, db)
}

func failCommitAt(t *testing.T, db *thole.DB) {
	dbtest.Faults(t, db).At("SELECT 'this one'").FailCommit()
	tell(db, thole.SessionOptions{}, nothing).wants(t, story{Runs: 1, Committed: 1, Outcome: thole.Committed})
	err := db.WithSession(t.Context(), func(tx *thole.Tx) error {
		if err := add(t.Context(), tx, "other"); err != nil {
			return err
		}
		_, err := thole.One[string](t.Context(), tx, "select 'this one'")
		return err
	})
	if err == nil || thole.OutcomeOf(err) != thole.RolledBack {
		t.Errorf("got error %v, want that of COMMIT", err)
	}
	wantNames(t, db, "made")
}

// failCommitAnyway has a COMMIT fail that would have failed without the fault. The
// next one must not.
func failCommitAnyway(t *testing.T, db *thole.DB) {
	dbtest.Faults(t, db).FailCommit()
	got := tell(db, thole.SessionOptions{}, func(tx *thole.Tx) error {
		_, err := tx.ExecContext(t.Context(), "update item set shelf = 1") // of which there is none
		return err
	})
	if got.err == nil || got.Outcome != thole.RolledBack {
		t.Errorf("got error %v with outcome %v, want one that is rolled back", got.err, got.Outcome)
	}
	wantNames(t, db)
}

// readOnly runs a session that only reads, in which a commit hook says that its
// COMMIT is waited for, or none does.
func readOnly(db *thole.DB, opts thole.SessionOptions, observed bool) story {
	var s story
	opts.ReadOnly = true
	s.err = db.WithSessionOptions(context.Background(), opts, func(tx *thole.Tx) error {
		s.Runs++
		if observed {
			tx.OnCommit(func(context.Context) { s.Committed++ })
		}
		_, err := thole.All[string](tx.Context(), tx, "select name from item")
		return err
	})
	return s.ended()
}

func failCommitReadOnly(t *testing.T, db *thole.DB) {
	dbtest.Faults(t, db).FailCommit()
	readOnly(db, thole.SessionOptions{}, false).wants(t, story{Runs: 1, Outcome: thole.Committed})
	readOnly(db, thole.SessionOptions{}, true).wants(t, story{Runs: 1, Outcome: thole.RolledBack, Code: on(db, "SQLITE_IOERR", "58030")})
}

func serializationCured(t *testing.T, db *thole.DB) {
	dbtest.Faults(t, db).SerializationFailures(2)
	got := tell(db, thole.SessionOptions{MaxAttempts: 3}, nothing)
	got.wants(t, story{Runs: 3, Committed: 1, Undone: 2, Outcome: thole.Committed})
	wantNames(t, db, "made")
}

func serializationExhausted(t *testing.T, db *thole.DB) {
	dbtest.Faults(t, db).SerializationFailures(3)
	got := tell(db, thole.SessionOptions{MaxAttempts: 3}, nothing)
	got.wants(t, story{Runs: 3, Undone: 3, Outcome: thole.RolledBack, Code: on(db, "SQLITE_BUSY_SNAPSHOT", "40001")})
	got.is(t, thole.ErrSerialization)
	wantNames(t, db)
}

// serializationUnasked shows what thole retries without being asked: on SQLite
// everything of the kind, on PostgreSQL only sessions that ask for a level at which
// it is to be expected.
func serializationUnasked(t *testing.T, db *thole.DB) {
	faults := dbtest.Faults(t, db)
	faults.SerializationFailures(1)
	got := tell(db, thole.SessionOptions{}, nothing)
	if db.Engine() == thole.SQLite {
		got.wants(t, story{Runs: 2, Committed: 1, Undone: 1, Outcome: thole.Committed})
	} else {
		got.wants(t, story{Runs: 1, Undone: 1, Outcome: thole.RolledBack, Code: "40001"})
		got.is(t, thole.ErrSerialization)
	}
	if _, err := db.ExecContext(t.Context(), "delete from item"); err != nil {
		t.Fatal(err)
	}
	faults.SerializationFailures(4)
	got = tell(db, thole.SessionOptions{Isolation: sql.LevelSerializable}, nothing)
	got.wants(t, story{Runs: 5, Committed: 1, Undone: 4, Outcome: thole.Committed})
	wantNames(t, db, "made")
}

func serializationReadOnly(t *testing.T, db *thole.DB) {
	dbtest.Faults(t, db).SerializationFailures(1)
	got := readOnly(db, thole.SessionOptions{Isolation: sql.LevelSerializable}, false)
	got.wants(t, story{Runs: 2, Outcome: thole.Committed})
}

// write adds a second item.
func write(tx *thole.Tx) error { return add(tx.Context(), tx, "second") }

func loseConnection(t *testing.T, db *thole.DB) {
	dbtest.Faults(t, db).Nth(2).LoseConnection()
	first := false
	got := tell(db, thole.SessionOptions{}, func(tx *thole.Tx) error {
		first = true
		if err := write(tx); !errors.Is(err, thole.ErrConnLost) {
			t.Errorf("the statement: got error %v, want ErrConnLost", err)
		}
		if err := write(tx); !errors.Is(err, thole.ErrConnLost) {
			t.Errorf("the statement after it: got error %v, want ErrConnLost", err)
		}
		return nil // as code that forgets an error does
	})
	if !first {
		t.Error("the first statement failed already")
	}
	got.wants(t, story{Runs: 1, Undone: 1, Outcome: thole.RolledBack})
	got.is(t, thole.ErrConnLost)
	wantNames(t, db)
}

func loseConnectionNested(t *testing.T, db *thole.DB) {
	dbtest.Faults(t, db).At("'NESTED'").LoseConnection()
	got := tell(db, thole.SessionOptions{}, func(tx *thole.Tx) error {
		_ = tx.WithSession(tx.Context(), func(tx *thole.Tx) error {
			_, err := tx.ExecContext(tx.Context(), "insert into item (name) values ('nested')")
			return err
		})
		return nil
	})
	got.wants(t, story{Runs: 1, Undone: 1, Outcome: thole.RolledBack})
	got.is(t, thole.ErrConnLost)
	wantNames(t, db)
}

func loseConnectionRetried(t *testing.T, db *thole.DB) {
	dbtest.Faults(t, db).LoseConnection()
	got := tell(db, thole.SessionOptions{MaxAttempts: 2}, write)
	if db.Engine() == thole.SQLite { // which has no connection that a retry could get anew
		got.wants(t, story{Runs: 1, Undone: 1, Outcome: thole.RolledBack})
		wantNames(t, db)
		return
	}
	got.wants(t, story{Runs: 2, Committed: 1, Undone: 1, Outcome: thole.Committed})
	wantNames(t, db, "made", "second")
}

func loseConnectionOutside(t *testing.T, db *thole.DB) {
	dbtest.Faults(t, db).LoseConnection()
	err := add(t.Context(), db, "made")
	want, outcome := thole.ErrCommitUnknown, thole.Unknown
	if db.Engine() == thole.SQLite {
		want, outcome = thole.ErrConnLost, thole.RolledBack
	}
	if !errors.Is(err, want) || thole.OutcomeOf(err) != outcome {
		t.Errorf("got error %v with outcome %v, want %v with %v", err, thole.OutcomeOf(err), want, outcome)
	}
	wantNames(t, db)
}

// lostCommit is the code of a COMMIT that got no answer.
func lostCommit(db *thole.DB) string { return on(db, "SQLITE_IOERR_FSYNC", "") }

func loseCommit(t *testing.T, db *thole.DB) {
	dbtest.Faults(t, db).LoseCommit()
	got := tell(db, thole.SessionOptions{MaxAttempts: 3}, nothing)
	got.wants(t, story{Runs: 1, Outcome: thole.Unknown, Code: lostCommit(db)})
	got.is(t, thole.ErrCommitUnknown)
	wantNames(t, db)
}

func loseCommitWithKey(t *testing.T, db *thole.DB) {
	dbtest.Faults(t, db).LoseCommit()
	got := tell(db, thole.SessionOptions{IdempotencyKey: "request 1"}, nothing)
	got.wants(t, story{Runs: 2, Committed: 1, Undone: 1, Outcome: thole.Committed})
	wantNames(t, db, "made")
}

func loseCommitReadOnly(t *testing.T, db *thole.DB) {
	dbtest.Faults(t, db).LoseCommit()
	wantLostReading(t, db)
}

func loseCommitReplyReadOnly(t *testing.T, db *thole.DB) {
	dbtest.Faults(t, db).LoseCommitReply()
	wantLostReading(t, db)
}

// wantLostReading runs a session that has changed nothing, so that it is known what
// became of it.
func wantLostReading(t *testing.T, db *thole.DB) {
	t.Helper()
	got := readOnly(db, thole.SessionOptions{}, true)
	got.wants(t, story{Runs: 1, Outcome: thole.RolledBack, Code: on(db, "SQLITE_IOERR", "")})
	got.is(t, on(db, nil, thole.ErrConnLost))
}

func loseCommitReply(t *testing.T, db *thole.DB) {
	dbtest.Faults(t, db).LoseCommitReply()
	got := tell(db, thole.SessionOptions{MaxAttempts: 3}, nothing)
	got.wants(t, story{Runs: 1, Outcome: thole.Unknown, Code: lostCommit(db)})
	got.is(t, thole.ErrCommitUnknown)
	wantNames(t, db, "made")
}

func loseCommitReplyWithKey(t *testing.T, db *thole.DB) {
	dbtest.Faults(t, db).LoseCommitReply()
	got := tell(db, thole.SessionOptions{IdempotencyKey: "request 1"}, nothing)
	got.wants(t, story{Runs: 1, Committed: 1, Outcome: thole.Committed})
	wantNames(t, db, "made")
}

func interruptWrite(t *testing.T, db *thole.DB) {
	dbtest.Faults(t, db).Nth(2).Interrupt()
	got := tell(db, thole.SessionOptions{MaxAttempts: 3}, func(tx *thole.Tx) error {
		err := tx.WithSession(tx.Context(), write)
		if err == nil {
			t.Error("the statement was not interrupted")
		}
		if db.Engine() == thole.SQLite { // has undone everything
			if again := write(tx); !errors.Is(again, thole.ErrTxAborted) {
				t.Errorf("the statement after it: got error %v, want ErrTxAborted", again)
			}
		}
		return err
	})
	got.wants(t, story{Runs: 1, Undone: 1, Outcome: thole.RolledBack, Code: on(db, "SQLITE_INTERRUPT", "57014")})
	got.is(t, context.Canceled)
	wantNames(t, db)
}

// interruptRead has a nested session end what was interrupted, and the outer one go
// on.
func interruptRead(t *testing.T, db *thole.DB) {
	dbtest.Faults(t, db).At("select count").Interrupt()
	got := tell(db, thole.SessionOptions{}, func(tx *thole.Tx) error {
		err := tx.WithSession(tx.Context(), func(tx *thole.Tx) error {
			_, err := thole.One[int](tx.Context(), tx, "SELECT count(*) FROM item")
			return err
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the statement: got error %v, want context.Canceled", err)
		}
		return write(tx)
	})
	got.wants(t, story{Runs: 1, Committed: 1, Outcome: thole.Committed})
	wantNames(t, db, "made", "second")
}

func interruptOutside(t *testing.T, db *thole.DB) {
	dbtest.Faults(t, db).At("insert").Interrupt()
	err := add(t.Context(), db, "made")
	if !errors.Is(err, context.Canceled) || thole.OutcomeOf(err) != thole.RolledBack {
		t.Errorf("got error %v with outcome %v, want context.Canceled, rolled back", err, thole.OutcomeOf(err))
	}
	wantNames(t, db)
}

// long is longer than a test waits, soon is over at once.
const (
	long = 10 * time.Second
	soon = 50 * time.Millisecond
)

func slowStatement(t *testing.T, db *thole.DB) {
	dbtest.Faults(t, db).Nth(2).SlowQuery(long)
	got := tell(db, thole.SessionOptions{StatementTimeout: soon}, write)
	got.wants(t, story{Runs: 1, Undone: 1, Outcome: thole.RolledBack, Code: on(db, "SQLITE_INTERRUPT", "57014")})
	got.is(t, thole.ErrTimeout)
	wantNames(t, db)
}

func slowDeadline(t *testing.T, db *thole.DB) {
	dbtest.Faults(t, db).At("second").SlowQuery(long)
	got := tell(db, thole.SessionOptions{}, func(tx *thole.Tx) error {
		ctx, cancel := context.WithTimeout(tx.Context(), soon)
		defer cancel()
		_, err := tx.ExecContext(ctx, "insert into item (name) values ('second')")
		return err
	})
	got.wants(t, story{Runs: 1, Undone: 1, Outcome: thole.RolledBack, Code: on(db, "SQLITE_INTERRUPT", "57014")})
	got.is(t, thole.ErrTimeout)
	if !errors.Is(got.err, context.DeadlineExceeded) {
		t.Errorf("got error %v, want context.DeadlineExceeded", got.err)
	}
	wantNames(t, db)
}

func slowOutside(t *testing.T, db *thole.DB) {
	dbtest.Faults(t, db).At("item").SlowQuery(long)
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	err := add(ctx, db, "made")
	if !errors.Is(err, context.DeadlineExceeded) || thole.OutcomeOf(err) != thole.RolledBack {
		t.Errorf("got error %v with outcome %v, want context.DeadlineExceeded, rolled back", err, thole.OutcomeOf(err))
	}
	wantNames(t, db)
}

func slowInTime(t *testing.T, db *thole.DB) {
	faults := dbtest.Faults(t, db)
	faults.SlowQuery(soon)
	began := time.Now()
	tell(db, thole.SessionOptions{}, nothing).wants(t, story{Runs: 1, Committed: 1, Outcome: thole.Committed})
	faults.SlowQuery(soon)
	if err := add(t.Context(), db, "second"); err != nil {
		t.Errorf("outside a session: %v", err)
	}
	if took := time.Since(began); took < 2*soon {
		t.Errorf("two slow statements took %s", took)
	}
	wantNames(t, db, "made", "second")
}

func diskIsFull(t *testing.T, db *thole.DB) {
	dbtest.Faults(t, db).Nth(2).DiskFull()
	got := tell(db, thole.SessionOptions{MaxAttempts: 3}, func(tx *thole.Tx) error {
		if got := names(t, tx); len(got) != 1 { // reading needs no room
			t.Errorf("got items %q", got)
		}
		return write(tx)
	})
	got.wants(t, story{Runs: 1, Undone: 1, Outcome: thole.RolledBack, Code: on(db, "SQLITE_FULL", "53100")})
	got.is(t, nil)
	wantNames(t, db)
	large := strings.Repeat("large ", 400)
	for range 20 {
		large += "."
		if err := add(t.Context(), db, large); err != nil {
			t.Fatalf("afterwards: %v", err)
		}
	}
	if _, err := db.ExecContext(t.Context(), "delete from item"); err != nil {
		t.Fatal(err)
	}
}

func diskIsFullOutside(t *testing.T, db *thole.DB) {
	dbtest.Faults(t, db).DiskFull()
	wantNames(t, db)
	err := add(t.Context(), db, "made")
	failed, ok := errors.AsType[*thole.Error](err)
	if want := on(db, "SQLITE_FULL", "53100"); !ok || failed.Code != want || thole.OutcomeOf(err) != thole.RolledBack {
		t.Errorf("got error %v with outcome %v, want code %s, rolled back", err, thole.OutcomeOf(err), want)
	}
	wantNames(t, db)
}

// Pages that a table has left are no room either.
func diskIsFullThoughFree(t *testing.T, db *thole.DB) {
	for _, text := range []string{"create table large (text text)", "insert into large values (?)", "drop table large"} {
		var args []any
		if strings.Contains(text, "?") {
			args = append(args, strings.Repeat("large ", 10_000))
		}
		if _, err := db.ExecContext(t.Context(), text, args...); err != nil {
			t.Fatal(err)
		}
	}
	faults := dbtest.Faults(t, db)
	faults.DiskFull()
	tell(db, thole.SessionOptions{}, nothing).wants(t, story{Runs: 1, Undone: 1, Outcome: thole.RolledBack, Code: on(db, "SQLITE_FULL", "53100")})
	diskIsFullOutside(t, db)
	if err := add(t.Context(), db, "made"); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// TestB45DiskFull: what a function of the program's own does in the fault's statement
// neither lets it happen nor keeps the writer.
func TestB45DiskFull(t *testing.T) {
	t.Parallel()
	for name, zeroblob := range map[string]func() []byte{
		"small":  func() []byte { return nil },
		"panics": func() []byte { panic("zeroblob") },
	} {
		config := shop
		config.Engines = []thole.Engine{thole.SQLite}
		config.Configure = func(cfg *thole.Config) {
			cfg.SQLite.Driver = func(d *sqlite.Driver) error {
				return d.RegisterScalarFunction("zeroblob", 1, func(*sqlite.FunctionContext, []driver.Value) (driver.Value, error) {
					return zeroblob(), nil
				})
			}
		}
		for kind, open := range map[string]func(testing.TB) *thole.DB{"sandbox": config.Sandbox, "database": config.Database} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				t.Parallel()
				db := open(t)
				if _, err := db.ExecContext(t.Context(), "create table free (n integer); drop table free"); err != nil {
					t.Fatal(err)
				}
				fails := func(what string, do func() error) {
					dbtest.Faults(t, db).DiskFull()
					defer func() {
						if got := recover(); (got != nil) != (name == "panics") {
							t.Errorf("%s: got panic %v", what, got)
						}
					}()
					failed, ok := errors.AsType[*thole.Error](do())
					if !ok || failed.Code != "SQLITE_FULL" || thole.OutcomeOf(failed) != thole.RolledBack {
						t.Errorf("%s: got error %v, want SQLITE_FULL, rolled back", what, failed)
					}
				}
				fails("a session", func() error { return tell(db, thole.SessionOptions{}, nothing).err })
				fails("a statement", func() error { return add(t.Context(), db, "made") })
				fails("a session that goes on", func() (failed error) {
					err := db.WithSession(t.Context(), func(tx *thole.Tx) error {
						failed = add(t.Context(), tx, "made")
						return nil
					})
					if err != nil {
						t.Errorf("a session that goes on: %v", err)
					}
					return failed
				})
				left, err := thole.One[int](t.Context(), db, "select count(*) from sqlite_schema where name = 'thole_fault'")
				if err != nil || left != 0 {
					t.Errorf("the table of the fault: got %d, %v, want none", left, err)
				}
				if err := add(t.Context(), db, "made"); err != nil {
					t.Errorf("afterwards: %v", err)
				}
			})
		}
	}
}

func failBegin(t *testing.T, db *thole.DB) {
	faults := dbtest.Faults(t, db)
	faults.FailBegin()
	got := tell(db, thole.SessionOptions{}, nothing)
	got.wants(t, story{Runs: 1, Undone: 1, Outcome: thole.RolledBack, Code: on(db, "SQLITE_CANTOPEN", "53300")})
	faults.FailBegin()
	err := db.WithSession(t.Context(), func(tx *thole.Tx) error {
		_ = tx.WithSession(tx.Context(), write) // as code that forgets an error does
		if err := write(tx); err == nil {
			t.Error("a statement ran in a session that has not begun")
		}
		return nil
	})
	if err == nil {
		t.Error("a session committed that has not begun")
	}
	wantNames(t, db)
	faults.FailBegin()
	got = tell(db, thole.SessionOptions{MaxAttempts: 2}, nothing)
	if db.Engine() == thole.SQLite {
		got.wants(t, story{Runs: 1, Undone: 1, Outcome: thole.RolledBack, Code: "SQLITE_CANTOPEN"})
		return
	}
	got.wants(t, story{Runs: 2, Committed: 1, Undone: 1, Outcome: thole.Committed})
	wantNames(t, db, "made")
}

func failRollback(t *testing.T, db *thole.DB) {
	dbtest.Faults(t, db).FailRollback()
	mine := errors.New("mine")
	got := tell(db, thole.SessionOptions{}, func(*thole.Tx) error { return mine })
	got.wants(t, story{Runs: 1, Undone: 1, Outcome: thole.RolledBack})
	if !errors.Is(got.err, mine) || !strings.Contains(got.err.Error(), "roll back: ") {
		t.Errorf("got error %q, want fn's with that of ROLLBACK", got.err)
	}
	wantNames(t, db)
}

// TestFaultsB46 has faults that don't happen as often as they were to.
func TestFaultsB46(t *testing.T) {
	t.Parallel()
	eachShop(t, func(t *testing.T, config dbtest.Config) {
		for _, c := range []struct {
			name string
			arm  func(f *dbtest.FaultSet)
			want string // "" if the test is to pass
		}{
			{
				"never", func(f *dbtest.FaultSet) { f.At("delete from ITEM").Nth(2).Interrupt() },
				`the fault Interrupt at "delete from ITEM" from point 2 on, armed at faults_test.go:`,
			},
			{
				"too few", func(f *dbtest.FaultSet) { f.SerializationFailures(2) },
				"the fault SerializationFailures, armed at faults_test.go:",
			},
			{"at a session that was not", func(f *dbtest.FaultSet) { f.At("delete from item").FailCommit() }, "never happened"},
			{"happened", func(f *dbtest.FaultSet) { f.At("INSERT into item").Nth(1).SlowQuery(0) }, ""},
			{"not armed", func(f *dbtest.FaultSet) { f.At("delete").Nth(3) }, ""},
			{"Nth(0)", func(f *dbtest.FaultSet) { f.Nth(0) }, "counted from 1"},
			{"no failures", func(f *dbtest.FaultSet) { f.SerializationFailures(0) }, "one at least"},
		} {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				got := record(t, func(tb testing.TB) {
					db := config.Sandbox(tb)
					c.arm(dbtest.Faults(tb, db))
					_ = tell(db, thole.SessionOptions{MaxAttempts: 1}, nothing).err
				})
				if got.Failed() != (c.want != "") || !strings.Contains(got.output(), c.want) {
					t.Errorf("failed: %t, saying:\n%s\nwant: %q", got.Failed(), got.output(), c.want)
				}
			})
		}
	})
}

func TestFaultsOfTheTestAlone(t *testing.T) {
	t.Parallel()
	eachShop(t, func(t *testing.T, config dbtest.Config) {
		db := config.Sandbox(t)
		if got := record(t, func(tb testing.TB) { dbtest.Faults(tb, db).FailCommit() }); !got.Failed() {
			t.Error("the subtest passed, whose fault never happened")
		}
		tell(db, thole.SessionOptions{}, nothing).wants(t, story{Runs: 1, Committed: 1, Outcome: thole.Committed})
		if got := record(t, func(tb testing.TB) { dbtest.Faults(tb, &thole.DB{}) }); !strings.Contains(got.output(), "not one of dbtest's") {
			t.Errorf("a DB of somebody else's: %s", got.output())
		}
	})
}

// TestFaultsInOrder has several faults at one point happen one after the other.
func TestFaultsInOrder(t *testing.T) {
	t.Parallel()
	eachDB(t, shop, func(t *testing.T, db *thole.DB) {
		faults := dbtest.Faults(t, db)
		faults.SerializationFailures(2)
		faults.LoseCommitReply()
		got := tell(db, thole.SessionOptions{MaxAttempts: 5}, nothing)
		got.wants(t, story{Runs: 3, Undone: 2, Outcome: thole.Unknown, Code: lostCommit(db)})
		wantNames(t, db, "made")
	})
}

func TestRerun(t *testing.T) {
	t.Parallel()
	config := shop
	config.Rerun = true
	for name, opts := range map[string]thole.SessionOptions{
		"plain":        {},
		"key":          {IdempotencyKey: "request 1"},
		"serializable": {Isolation: sql.LevelSerializable},
		"three":        {MaxAttempts: 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachDB(t, config, func(t *testing.T, db *thole.DB) {
				impure := 0
				got := tell(db, opts, func(tx *thole.Tx) error { // which a test of the user's finds out about
					impure++
					return add(tx.Context(), tx, fmt.Sprint("impure ", impure))
				})
				got.wants(t, story{Runs: 2, Committed: 1, Undone: 1, Outcome: thole.Committed})
				wantNames(t, db, "made", "impure 2")
				again, err := thole.WithSession(t.Context(), db, func(tx *thole.Tx) (string, error) {
					return "pure", add(tx.Context(), tx, "pure")
				})
				if err != nil || again != "pure" {
					t.Errorf("a pure fn: got %q and error %v", again, err)
				}
				wantNames(t, db, "made", "impure 2", "pure")
			})
		})
	}
}

func TestRerunReadOnly(t *testing.T) {
	t.Parallel()
	config := shop
	config.Rerun = true
	eachDB(t, config, func(t *testing.T, db *thole.DB) {
		readOnly(db, thole.SessionOptions{}, false).wants(t, story{Runs: 2, Outcome: thole.Committed})
		readOnly(db, thole.SessionOptions{}, true).wants(t, story{Runs: 2, Committed: 1, Outcome: thole.Committed})
	})
}

// TestRerunLeavesAlone has what can't run twice, or is nobody's fn, run once.
func TestRerunLeavesAlone(t *testing.T) {
	t.Parallel()
	config := shop
	config.Rerun = true
	eachDB(t, config, func(t *testing.T, db *thole.DB) {
		tell(db, thole.SessionOptions{MaxAttempts: 1}, func(tx *thole.Tx) error {
			return tx.WithSession(tx.Context(), write)
		}).wants(t, story{Runs: 1, Committed: 1, Outcome: thole.Committed})
		if err := add(t.Context(), db, "outside"); err != nil {
			t.Error(err)
		}
		more := maps.Clone(stock.Migrations.(fstest.MapFS))
		more[string(db.Engine())+"/2_more.up.sql"] = &fstest.MapFile{Data: []byte("create table more (n integer)")}
		more[string(db.Engine())+"/2_more.down.sql"] = &fstest.MapFile{Data: []byte("drop table more")}
		if err := db.Migrate(t.Context(), more); err != nil {
			t.Errorf("migrate: %v", err)
		}
		wantNames(t, db, "made", "second", "outside")
	})
	eachShop(t, func(t *testing.T, engines dbtest.Config) {
		config := config
		config.Engines = engines.Engines
		tx := config.Session(t)
		t.Run("Sub", func(t *testing.T) {
			if err := add(t.Context(), dbtest.Sub(t, tx), "in a subtest"); err != nil {
				t.Error(err)
			}
		})
		if err := add(t.Context(), tx, "in the session"); err != nil {
			t.Error(err)
		}
		wantNames(t, tx, "in the session")
	})
}

// TestFaultsEverywhere has faults happen in each way in which a statement can run.
func TestFaultsEverywhere(t *testing.T) {
	t.Parallel()
	type item struct{ Name string }
	eachDB(t, shop, func(t *testing.T, db *thole.DB) {
		faults := dbtest.Faults(t, db)
		ways := map[string]func(q thole.Querier) error{
			"ExecContext":  func(q thole.Querier) error { return add(t.Context(), q, "made") },
			"QueryContext": func(q thole.Querier) error { return readAll(t.Context(), q) },
			"PrepareContext": func(q thole.Querier) error {
				prepared, err := q.PrepareContext(t.Context(), "insert into item (name) values ('made')")
				if err != nil {
					return err
				}
				defer prepared.Close()
				_, err = prepared.ExecContext(t.Context())
				return err
			},
			"InsertAll": func(q thole.Querier) error { return thole.InsertAll(t.Context(), q, []item{{"made"}}) },
		}
		for name, run := range ways {
			faults.At("item").Interrupt()
			if err := run(db); !errors.Is(err, context.Canceled) {
				t.Errorf("%s on the DB: got error %v, want context.Canceled", name, err)
			}
			faults.At("item").Interrupt()
			if err := db.WithSession(t.Context(), func(tx *thole.Tx) error { return run(tx) }); !errors.Is(err, context.Canceled) {
				t.Errorf("%s on a Tx: got error %v, want context.Canceled", name, err)
			}
		}
		wantNames(t, db)
	})
}

func readAll(ctx context.Context, q thole.Querier) error {
	_, err := thole.All[string](ctx, q, "select name from item")
	return err
}

// TestFaultsPgx has them happen to code that is written for pgx.
func TestFaultsPgx(t *testing.T) {
	t.Parallel()
	eachDB(t, shop, func(t *testing.T, db *thole.DB) {
		if db.Engine() == thole.SQLite {
			t.Skip("it has no view for pgx")
		}
		faults := dbtest.Faults(t, db)
		const insert = "insert into item (name) values ('made')"
		faults.DiskFull()
		if _, err := db.Pgx().Exec(t.Context(), insert); !hasCode(err, "53100") {
			t.Errorf("Exec: got error %v, want 53100", err)
		}
		faults.FailCommit()
		tx, err := db.Pgx().Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), insert); err != nil {
			t.Error(err)
		}
		if err := tx.Commit(t.Context()); !hasCode(err, "58030") {
			t.Errorf("Commit: got error %v, want 58030", err)
		}
		batch := new(pgx.Batch)
		batch.Queue(insert)
		faults.At("insert into item").LoseConnection()
		if err := db.Pgx().SendBatch(t.Context(), batch).Close(); err == nil {
			t.Error("SendBatch: got no error")
		}
		faults.LoseConnection()
		rows := pgx.CopyFromRows([][]any{{"made"}})
		if _, err := db.Pgx().CopyFrom(t.Context(), pgx.Identifier{"item"}, []string{"name"}, rows); err == nil {
			t.Error("CopyFrom: got no error")
		}
		wantNames(t, db)
	})
}

func hasCode(err error, code string) bool {
	failed, ok := errors.AsType[*thole.Error](err)
	return ok && failed.Code == code
}

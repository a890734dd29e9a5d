package thole

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"log/slog"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tholedb/thole/internal/engine"
)

// This file is about [SessionOptions.IdempotencyKey]. A session with a key
// writes it, by a plain INSERT, before fn runs, so that the key is in the
// database when the session is committed, and only then. Who writes it a second
// time waits for a session that is still running and then fails. The same
// question tells what became of a COMMIT that nobody answered, also after a
// crash or a failover.

// keyTable makes the table, on both engines. The comment of IdempotencyKey has
// it too.
const keyTable = `CREATE TABLE IF NOT EXISTS thole_idempotency_keys (
	key     text        NOT NULL PRIMARY KEY,
	attempt text        NOT NULL,
	at      timestamptz NOT NULL DEFAULT current_timestamp
);
CREATE INDEX IF NOT EXISTS thole_idempotency_keys_at ON thole_idempotency_keys (at)`

const (
	writeKey = "INSERT INTO thole_idempotency_keys (key, attempt) VALUES (?, ?)"

	// askKey returns the attempt whose key is there, or else the one that it is
	// given, whose key is there now. It waits for sessions that are still
	// running, which a SELECT would not.
	askKey = writeKey + " ON CONFLICT (key) DO UPDATE SET attempt = thole_idempotency_keys.attempt RETURNING attempt"

	dropKey = "DELETE FROM thole_idempotency_keys WHERE key = ?"
)

// keyed is the idempotency key of an attempt.
type keyed struct {
	attempt   string // stands beside the key: a row with it is this attempt's own
	unwritten error  // why the key could not be written; fn did not run then
	undone    bool   // COMMIT got no answer, and the key is not there
}

// longestKey is in bytes.
const longestKey = 512

// checkKey refuses a key that can't be one.
func (o SessionOptions) checkKey() error {
	switch key := o.IdempotencyKey; {
	case key == "":
	case o.ReadOnly:
		return because(nil, errors.ErrUnsupported, "open session: with IdempotencyKey it writes, and can't be ReadOnly")
	case len(key) > longestKey:
		return failure(nil, "open session: IdempotencyKey has %d bytes, and at most %d are allowed", len(key), longestKey)
	case strings.IndexByte(key, 0) >= 0 || !utf8.ValidString(key):
		return failure(nil, "open session: IdempotencyKey has a NUL byte, or is not UTF-8")
	}
	return nil
}

// once is attempt for a session with an idempotency key. It begins again by
// itself where the key can't be written but will be, and where an attempt is
// known to have been lost in COMMIT. It returns the number of its last attempt.
func (db *DB) once(ctx context.Context, opts SessionOptions, info *engine.Info, attempt int, fn func(tx *Tx) error) (int, error) {
	most := max(defaultAttempts, opts.MaxAttempts)
	for cleared := 0; ; {
		key := &keyed{attempt: rand.Text()}
		err := db.attempt(ctx, opts, info, attempt, func(tx *Tx) error {
			tx.session.key = key
			if key.unwritten = tx.write(key); key.unwritten != nil {
				return key.unwritten
			}
			return fn(tx)
		})
		switch {
		case err == nil:
			db.purgeKeys(opts)
			return attempt, nil
		case errors.Is(key.unwritten, ErrUnique) && cleared < defaultAttempts:
			if err := db.checkOwner(ctx, opts); err != nil {
				return attempt, err
			}
			cleared++
		case key.unwritten != nil && cleared == 0 && kindOf(key.unwritten) == nil:
			if err := db.ensureKeyTable(ctx, opts, err); err != nil {
				return attempt, err
			}
			cleared++
		case !key.undone:
			return attempt, err
		case attempt >= most || !pause(ctx, attempt):
			return attempt, gaveUp(err, attempt, time.Since(info.Began))
		default:
			attempt++
			db.logSession(ctx, slog.LevelDebug, "thole: a session runs again", info, err, slog.Int("attempt", attempt))
		}
	}
}

// write writes the key of the session.
func (tx *Tx) write(key *keyed) error {
	_, err := tx.ExecContext(tx.ctx, writeKey, tx.opts.IdempotencyKey, key.attempt)
	return err
}

// checkOwner is what the caller is told whose key was there, or nil where it is
// not there any more: it was lost with a server, or purged.
func (db *DB) checkOwner(ctx context.Context, opts SessionOptions) error {
	owner, err := db.keyOwner(ctx, opts, defaultAttempts)
	if err == nil && owner != "" {
		err = alreadyCommitted()
	}
	return err
}

func alreadyCommitted() error {
	return withOutcome(Committed, failure(ErrAlreadyCommitted, "open session: an earlier call with its IdempotencyKey has committed"))
}

// resolve ends a session whose COMMIT got no answer, by what has become of its
// key.
func (tx *Tx) resolve(failed *Error) error {
	ctx, cancel := patient(tx.ctx)
	defer cancel()
	key := tx.session.key
	owner, err := tx.db.keyOwner(ctx, tx.opts, math.MaxInt)
	switch owner {
	case key.attempt:
		return tx.committed()
	case "":
		if err != nil {
			return tx.unknown(errors.Join(failed, err))
		}
		key.undone = true
	}
	lost := tx.orContext(because(ErrTxAborted, engine.Foreign(failed), "commit session: it is rolled back, says its IdempotencyKey"))
	tx.rolledBack(lost)
	if !key.undone {
		return alreadyCommitted()
	}
	return withOutcome(RolledBack, lost)
}

// How long it is asked what became of a COMMIT, see patient.
const (
	shortestDoubt = 5 * time.Second
	longestDoubt  = time.Minute
)

// patient is ctx for the question what became of a COMMIT. It lasts until ctx
// ends, but five seconds at least, as COMMIT itself may; and a minute where ctx
// has no deadline.
func patient(ctx context.Context) (context.Context, context.CancelFunc) {
	least, until := time.Now().Add(shortestDoubt), time.Now().Add(longestDoubt)
	if deadline, ok := ctx.Deadline(); ok {
		until = deadline
	}
	if until.Before(least) {
		until = least
	}
	asking, cancel := context.WithDeadline(context.WithoutCancel(ctx), until)
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(time.Until(least), cancel) })
	return asking, func() { stop(); cancel() }
}

// keyOwner tells which attempt has committed with the key of a session, or ""
// if none has; then none that has begun before will. It asks again, at most so
// often, while it gets no answer.
func (db *DB) keyOwner(ctx context.Context, opts SessionOptions, most int) (string, error) {
	for asked := 1; ; asked++ {
		owner, err := db.askForKey(ctx, opts)
		if err == nil {
			return owner, nil
		}
		if asked >= most || errors.Is(err, ErrClosed) || !pause(ctx, asked) {
			return "", because(nil, engine.Foreign(err), "ask what has committed with the IdempotencyKey of the session")
		}
	}
}

// askForKey asks once. The answer holds when a change that was made after it is
// committed: a server can show what its standbys don't have yet, and the log of a
// disk that fails can have a COMMIT of SQLite's that has failed, until the next
// one takes its place. It is a key that comes and goes.
func (db *DB) askForKey(ctx context.Context, opts SessionOptions) (owner string, err error) {
	err = db.aside(ctx, opts, func(tx *Tx) error {
		own, fleeting := rand.Text(), opts.IdempotencyKey
		if err := tx.GetContext(tx.Context(), &owner, askKey, opts.IdempotencyKey, own); err != nil {
			return err
		}
		if owner == own {
			owner = ""
		} else {
			fleeting = own
			if _, err := tx.ExecContext(tx.Context(), writeKey, fleeting, own); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(tx.Context(), dropKey, fleeting)
		return err
	})
	return owner, err
}

// aside runs fn in a session of its own about the key of another, in the same
// table. At a stricter level it could fail on what it is to see.
func (db *DB) aside(ctx context.Context, opts SessionOptions, fn func(tx *Tx) error) error {
	return db.run(engine.Aside(ctx), SessionOptions{
		ReadOnly: opts.ReadOnly, Isolation: sql.LevelReadCommitted, MaxAttempts: 1, Settings: opts.Settings, Label: opts.Label,
	}, fn)
}

// ensureKeyTable makes the table if there is none. That may be why a session has
// failed: SQLite has no code for it. Of several who make it at once PostgreSQL
// lets one, and others may be told that it is there.
func (db *DB) ensureKeyTable(ctx context.Context, opts SessionOptions, failed error) error {
	switch lacks, err := db.lacksKeyTable(ctx, opts); {
	case err != nil:
		return failed
	case !lacks:
		return nil
	}
	making := db.aside(ctx, opts, func(tx *Tx) error {
		_, err := tx.ExecContext(tx.Context(), keyTable)
		return err
	})
	if making == nil {
		return nil
	}
	if lacks, err := db.lacksKeyTable(ctx, opts); err == nil && !lacks {
		return nil
	}
	return because(nil, engine.Foreign(making), "open session: make the table of its IdempotencyKey, which a migration can do (%s)",
		strings.Join(strings.Fields(keyTable), " "))
}

func (db *DB) lacksKeyTable(ctx context.Context, opts SessionOptions) (lacks bool, err error) {
	opts.ReadOnly = true // its outcome is never unknown
	err = db.aside(ctx, opts, func(tx *Tx) error {
		return tx.GetContext(tx.Context(), &lacks, db.engine.Keys().Missing)
	})
	return lacks, err
}

// How often keys are purged, and how long that may take.
const (
	betweenPurges = time.Hour
	purging       = 10 * time.Second
)

// purgeKeys deletes keys that are older than a week, once in a while, in the
// background. Close waits for it.
func (db *DB) purgeKeys(opts SessionOptions) {
	info := &engine.Info{Label: "purge of idempotency keys", Caller: engine.Here(), Began: time.Now()}
	if !db.purges.Every(betweenPurges) || db.enter(info) != nil {
		return
	}
	go func() {
		defer db.leave(info)
		ctx, cancel := context.WithTimeout(engine.At(context.Background(), info.Caller), purging)
		defer cancel()
		err := db.aside(ctx, opts, func(tx *Tx) error {
			_, err := tx.ExecContext(tx.Context(), db.engine.Keys().Expired)
			return err
		})
		if err != nil {
			db.logSession(ctx, slog.LevelDebug, "thole: idempotency keys were not purged", info, err)
		}
	}()
}

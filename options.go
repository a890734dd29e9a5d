package thole

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"time"
)

// SessionOptions are the options of a session. The zero value is a read-write
// session at the engine's defaults. What the engine can't honour is an error
// that matches [errors.ErrUnsupported], before anything is sent. A field that
// is zero takes its value from [Config.Session], but for IdempotencyKey.
type SessionOptions struct {
	// ReadOnly makes the engine refuse to write ([ErrReadOnly]). On SQLite the
	// session does not wait for the writer. PostgreSQL does not count NOTIFY,
	// nor before version 16 large objects, as writing, and of those in a
	// ReadOnly session a commit that gets lost is not told; nor is its end waited
	// for, so that an advisory lock may outlive the call. Default: read-write.
	ReadOnly bool

	// Isolation is the level as PostgreSQL means it
	// (https://www.postgresql.org/docs/current/transaction-iso.html);
	// LevelSnapshot is REPEATABLE READ. SQLite is serializable whatever is
	// asked (https://www.sqlite.org/isolation.html). Default: the server's,
	// which is READ COMMITTED unless it is configured otherwise.
	Isolation sql.IsolationLevel

	// Deferrable lets a ReadOnly session at LevelSerializable wait for a
	// snapshot in which it can't fail. Default: false.
	Deferrable bool

	// MaxAttempts is how often fn may run when it fails with what a new
	// attempt can cure: [ErrSerialization], [ErrDeadlock], [ErrLocked],
	// [ErrConnLost]. Attempts are 5 ms to 500 ms apart, at random, and hold
	// nothing meanwhile. Default: 5 when Isolation asks for REPEATABLE READ or
	// SERIALIZABLE, and for SQLite's lock held by another process; else 1.
	MaxAttempts int

	// Timeout bounds the session with all its attempts, but for COMMIT and
	// ROLLBACK. On SQLite the session then shares no COMMIT with others
	// ([SQLiteConfig]); a deadline of ctx lets it. Default: none but ctx's own.
	Timeout time.Duration

	// LockTimeout bounds each wait for a lock. On SQLite that is the wait for
	// the one writer, in this process and for other ones, or for a reader that
	// is free. Default: 5 s on SQLite, the server's lock_timeout on PostgreSQL.
	LockTimeout time.Duration

	// StatementTimeout bounds each statement. Default: none on SQLite, the
	// server's statement_timeout on PostgreSQL.
	StatementTimeout time.Duration

	// Settings are PostgreSQL's, like "app.tenant" for row-level security or
	// "role", set for the session alone by set_config(name, value, true)
	// (https://www.postgresql.org/docs/current/functions-admin.html). A nested
	// session can't have others than the outermost. SQLite has none. Default:
	// none. What SET SESSION, LISTEN, a temporary table or a session's advisory
	// lock leave on the connection is not undone.
	Settings map[string]string

	// IdempotencyKey has the session's effects happen once for each key, over
	// retries, lost connections, crashes and failovers. It is the caller's own,
	// and the same whenever the same thing is asked for: the id of a request or
	// a message, not one made for the call. It has at most 512 bytes.
	//
	// Where an earlier call with the key has committed, fn does not run, and the
	// error is [ErrAlreadyCommitted]; one that is still running is waited for, by
	// LockTimeout before fn and without it when a COMMIT is asked about. A
	// COMMIT that got no answer is asked about: nil if it has happened, else fn
	// runs again, up to five times or MaxAttempts. While nobody answers that goes
	// on until ctx ends, but for five seconds at least, and for a minute where
	// ctx has no deadline; then the error is [ErrCommitUnknown], and to call
	// again with the same key is safe.
	//
	// The key is written before fn runs, which is one round trip more on
	// PostgreSQL, and on SQLite the session has the writer from then on. It is
	// kept for a week in a table, by the session's Settings, so that each
	// search_path has its own. The first session that needs the table makes it,
	// or a migration does, for users that may SELECT, INSERT, UPDATE and DELETE
	// there; the same on both engines:
	//
	//	CREATE TABLE IF NOT EXISTS thole_idempotency_keys (
	//		key     text        NOT NULL PRIMARY KEY,
	//		attempt text        NOT NULL,
	//		at      timestamptz NOT NULL DEFAULT current_timestamp
	//	);
	//	CREATE INDEX IF NOT EXISTS thole_idempotency_keys_at ON thole_idempotency_keys (at)
	//
	// Older keys are deleted in the background, from the table of a session that
	// has just committed, at most once an hour for each DB: who has a search_path
	// for each of many tenants sees to that himself. The option goes with neither
	// ReadOnly nor a nested session, and [Config.Session] can't have it. Default:
	// none.
	IdempotencyKey string

	// Label names the session in messages, for logs and errors. Default: none.
	Label string

	// Nested says what the session is inside another. Default:
	// NestedSavepoint.
	//
	// Of [Config.Session], Nested, Label and Timeout hold for nested sessions
	// too.
	Nested Nesting
}

// Nesting is what a session is when it is opened inside another.
type Nesting uint8

const (
	// NestedSavepoint makes it a savepoint: its error undoes what it did, and
	// the outer session goes on.
	NestedSavepoint Nesting = iota

	// NestedJoin makes it a part of the outer session, without a savepoint:
	// its error makes the outer session fail, whatever fn makes of it. It can't
	// be ReadOnly in a session that writes.
	NestedJoin

	// NestedForbidden makes it an error ([ErrNested]): the session must be the
	// outermost, so that nil means committed.
	NestedForbidden
)

// or takes from defaults what o leaves zero.
func (o SessionOptions) or(defaults SessionOptions) SessionOptions {
	o.ReadOnly = o.ReadOnly || defaults.ReadOnly
	o.Isolation = cmp.Or(o.Isolation, defaults.Isolation)
	o.Deferrable = o.Deferrable || defaults.Deferrable
	o.MaxAttempts = cmp.Or(o.MaxAttempts, defaults.MaxAttempts)
	o.Timeout = cmp.Or(o.Timeout, defaults.Timeout)
	o.LockTimeout = cmp.Or(o.LockTimeout, defaults.LockTimeout)
	o.StatementTimeout = cmp.Or(o.StatementTimeout, defaults.StatementTimeout)
	if o.Settings == nil {
		o.Settings = defaults.Settings
	}
	o.Label = cmp.Or(o.Label, defaults.Label)
	o.Nested = cmp.Or(o.Nested, defaults.Nested)
	return o
}

// inner takes from defaults what o leaves zero and what a nested session can
// have of its own.
func (o SessionOptions) inner(defaults SessionOptions) SessionOptions {
	return o.or(SessionOptions{Timeout: defaults.Timeout, Label: defaults.Label, Nested: defaults.Nested})
}

// bound is ctx with the end that Timeout sets.
func (o SessionOptions) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if o.Timeout <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, o.Timeout)
}

// checkDefaults refuses what can't stand in for each session's own options.
func (db *DB) checkDefaults(o SessionOptions) error {
	if o.IdempotencyKey != "" {
		return failure(nil, "open database: Config.Session has an IdempotencyKey, which is one session's own")
	}
	return db.check(o)
}

// check refuses options that have no meaning or that the engine can't honour.
func (db *DB) check(o SessionOptions) error {
	switch {
	case min(o.Timeout, o.LockTimeout, o.StatementTimeout) < 0, o.MaxAttempts < 0:
		return failure(nil, "open session: a timeout or MaxAttempts is negative; 0 is the default")
	case o.Nested > NestedForbidden:
		return failure(nil, "open session: Nested is %d; it is one of NestedSavepoint, NestedJoin, NestedForbidden", o.Nested)
	case o.Deferrable && (!o.ReadOnly || o.Isolation != sql.LevelSerializable):
		return because(nil, errors.ErrUnsupported, "open session: Deferrable goes with ReadOnly and sql.LevelSerializable")
	}
	if _, err := db.engine.Isolation(o.Isolation); err != nil {
		return because(nil, err, "open session")
	}
	return o.checkKey()
}

// checkNested refuses options that the outer session rules out.
func (tx *Tx) checkNested(o SessionOptions) error {
	if err := tx.db.check(o); err != nil {
		return err
	}
	given, _ := tx.db.engine.Isolation(tx.opts.Isolation)
	asked, _ := tx.db.engine.Isolation(o.Isolation)
	switch outer := tx.session.info; {
	case o.IdempotencyKey != "":
		return because(ErrNested, errors.ErrUnsupported, "open session: IdempotencyKey belongs to the outermost, which is the %s", outer)
	case o.Nested == NestedForbidden:
		return failure(ErrNested, "open session: it must be the outermost, and is inside the %s", outer)
	case o.Nested == NestedJoin && o.ReadOnly && !tx.opts.ReadOnly:
		return because(ErrNested, errors.ErrUnsupported, "open session: joined to the %s, which writes, it can't be read-only; use NestedSavepoint", outer)
	case tx.opts.ReadOnly && !o.ReadOnly:
		return failure(ErrNested, "open session: it asks to write, inside the read-only %s", outer)
	case o.Isolation != sql.LevelDefault && asked > given:
		return failure(ErrNested, "open session: it asks for %s, inside the %s at %s", o.Isolation, outer, given)
	case o.Deferrable && !tx.opts.Deferrable:
		return failure(ErrNested, "open session: it asks for Deferrable, inside the %s without", outer)
	case !subset(o.Settings, tx.opts.Settings):
		return because(ErrNested, errors.ErrUnsupported, "open session: it asks for Settings that the %s does not have", outer)
	case o.LockTimeout != 0 || o.StatementTimeout != 0 || o.MaxAttempts > 1:
		return because(ErrNested, errors.ErrUnsupported, "open session: LockTimeout, StatementTimeout and MaxAttempts belong to the outermost, which is the %s", outer)
	}
	return nil
}

// subset reports whether all settings are among those of the outer session.
func subset(settings, outer map[string]string) bool {
	for name, value := range settings {
		if has, ok := outer[name]; !ok || has != value {
			return false
		}
	}
	return true
}

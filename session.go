package thole

import (
	"context"
	"log/slog"
	"time"

	"github.com/tholedb/thole/internal/engine"
)

// WithSession runs fn in a session. A session is one transaction: it commits
// when fn returns nil, and rolls back when fn returns an error, panics, leaves
// by [runtime.Goexit] (as t.FailNow does), or when ctx is done.
//
// Nil means committed. An error means that nothing happened, but for
// [ErrCommitUnknown] (COMMIT was sent and no answer came, or the disk failed),
// for [ErrAlreadyCommitted] (an earlier call with the same
// [SessionOptions.IdempotencyKey] has done it), and for SQL of fn's own that
// ended the transaction ([ErrTxControl]); [OutcomeOf] tells. fn's error comes
// back unchanged where there is nothing to add to it.
//
// Inside a session, that is with the ctx of [Tx.Context] or one made from it,
// WithSession is a savepoint: an error undoes what the nested session did and
// leaves the outer one usable.
//
// Inside fn use tx, or the ctx of [Tx.Context]. With the ctx from outside, db
// knows nothing of the session: what runs on it is not part of the session, and
// on SQLite a write, once the session has begun, waits for it in vain
// ([ErrNested], when LockTimeout has passed or ctx has ended).
//
// fn runs once, except that it is run again, up to five times in all, when
// another process held SQLite's lock, and, in sessions whose options ask for
// REPEATABLE READ or SERIALIZABLE, after a failure that a new attempt can cure;
// see [SessionOptions.MaxAttempts]; and, with an IdempotencyKey, after a COMMIT
// that got lost. Return what fn made rather than fill variables outside, or use
// the function [WithSession].
//
// A session begins with its first statement, and one without statements sends
// nothing. On SQLite that statement waits for the writer, and sessions that wait
// for each other share a COMMIT, see [SQLiteConfig]. On PostgreSQL it takes a
// connection, and BEGIN, the options and savepoints travel with it: N statements
// that the connection knows are N + 1 round trips, and it is sent once more, on
// another connection, where the first one turns out to be dead.
//
// COMMIT and ROLLBACK do not end with ctx: they may take until its deadline or
// five seconds, whichever is later; on SQLite both are waited for, with the
// sessions that share the transaction. On PostgreSQL nobody waits for the COMMIT
// of a ReadOnly session below SERIALIZABLE that has no OnCommit hook, nor for the
// ROLLBACK of one that is ReadOnly or whose ctx has ended: its connection, and
// what it has locked, are free a moment later. After that the hooks run, see
// [Tx.OnCommit].
func (db *DB) WithSession(ctx context.Context, fn func(tx *Tx) error) error {
	if tx := db.current(ctx); tx != nil {
		return tx.WithSession(ctx, fn)
	}
	return db.run(ctx, SessionOptions{}, fn)
}

// WithSessionOptions is [DB.WithSession] with options. Inside a session they
// must not ask for what the outer one rules out: a stricter isolation level, or
// to write in a read-only one ([ErrNested]).
func (db *DB) WithSessionOptions(ctx context.Context, opts SessionOptions, fn func(tx *Tx) error) error {
	if tx := db.current(ctx); tx != nil {
		return tx.WithSessionOptions(ctx, opts, fn)
	}
	return db.run(ctx, opts, fn)
}

// WithSession is [DB.WithSession] or [Tx.WithSession] for a fn that makes a
// value. It returns fn's value when the error is nil, else the zero T: also with
// [ErrAlreadyCommitted], for the value was the earlier call's.
func WithSession[T any](ctx context.Context, q Querier, fn func(tx *Tx) (T, error)) (T, error) {
	return value(fn, func(run func(tx *Tx) error) error { return q.WithSession(ctx, run) })
}

// WithSessionOptions is [WithSession] with options.
func WithSessionOptions[T any](ctx context.Context, q Querier, opts SessionOptions, fn func(tx *Tx) (T, error)) (T, error) {
	return value(fn, func(run func(tx *Tx) error) error { return q.WithSessionOptions(ctx, opts, run) })
}

func value[T any](fn func(tx *Tx) (T, error), session func(func(tx *Tx) error) error) (T, error) {
	var made, zero T
	if fn == nil {
		return zero, session(nil)
	}
	err := session(func(tx *Tx) (err error) {
		made, err = fn(tx)
		return err
	})
	if err != nil {
		return zero, err
	}
	return made, nil
}

// From returns the session that ctx carries for db, or db itself, so that code
// which is given a *DB and a ctx joins the session of its caller.
func From(ctx context.Context, db *DB) Querier {
	if tx := db.current(ctx); tx != nil {
		return tx
	}
	return db
}

// run makes the attempts of an outermost session.
func (db *DB) run(ctx context.Context, opts SessionOptions, fn func(tx *Tx) error) error {
	if err := checkCall(ctx, fn); err != nil {
		return err
	}
	opts = opts.or(db.defaults)
	if err := db.check(opts); err != nil {
		return err
	}
	ctx, cancel := opts.bound(ctx)
	defer cancel()
	info := &engine.Info{Label: opts.Label, Caller: engine.HereOr(ctx), Began: time.Now()}
	for attempt := 1; ; attempt++ {
		var err error
		if opts.IdempotencyKey != "" {
			attempt, err = db.once(ctx, opts, info, attempt, fn)
		} else {
			err = db.attempt(ctx, opts, info, attempt, fn)
		}
		if err == nil {
			return nil
		}
		most := opts.attempts(err)
		if most == 1 {
			return err
		}
		if attempt >= most || !pause(ctx, attempt) {
			return gaveUp(err, attempt, time.Since(info.Began))
		}
		db.logSession(ctx, slog.LevelDebug, "thole: a session runs again", info, err, slog.Int("attempt", attempt+1))
	}
}

// attempt is one transaction: COMMIT stands on the straight line, and whatever
// leaves it otherwise, a panic and Goexit included, meets the deferred
// rollback.
func (db *DB) attempt(ctx context.Context, opts SessionOptions, info *engine.Info, attempt int, fn func(tx *Tx) error) error {
	tx, err := db.begin(ctx, opts, info, attempt)
	if err != nil {
		return err
	}
	defer tx.abandon()
	err = fn(tx)
	if err == nil {
		err = tx.keepable()
	}
	if err == nil {
		err = tx.runBeforeCommit()
	}
	return tx.end(err)
}

// WithSession runs fn in a session nested in tx: a savepoint, which is undone
// when fn fails and kept when it returns nil; only the outermost session
// commits. It takes over tx's read-only mode. While it is open tx itself can't
// be used ([ErrNested]), and when it has ended its Tx is dead. A failure is not
// tried again here: it belongs to the outermost session, which can.
//
// The nested session's Context has the values of ctx, and ends with ctx or with
// tx.
func (tx *Tx) WithSession(ctx context.Context, fn func(tx *Tx) error) error {
	return tx.WithSessionOptions(ctx, SessionOptions{ReadOnly: tx.opts.ReadOnly}, fn)
}

// WithSessionOptions is [Tx.WithSession] with options. LockTimeout,
// StatementTimeout, MaxAttempts and IdempotencyKey belong to the outermost
// session and are refused here.
func (tx *Tx) WithSessionOptions(ctx context.Context, opts SessionOptions, fn func(tx *Tx) error) error {
	if err := checkCall(ctx, fn); err != nil {
		return err
	}
	inner, err := tx.nest(ctx, opts)
	if err != nil {
		return err
	}
	defer inner.abandon()
	return inner.end(fn(inner))
}

// nest opens a session nested in tx, with the options that it can have there.
func (tx *Tx) nest(ctx context.Context, opts SessionOptions) (*Tx, error) {
	opts = opts.inner(tx.db.defaults)
	if err := tx.checkNested(opts); err != nil {
		return nil, err
	}
	return tx.open(ctx, opts)
}

// checkCall refuses what no session can be made of.
func checkCall(ctx context.Context, fn func(tx *Tx) error) error {
	if ctx != nil && fn == nil {
		return failure(nil, "open session: fn is nil")
	}
	return checkContext(ctx)
}

func checkContext(ctx context.Context) error {
	switch {
	case ctx == nil:
		return failure(nil, "open session: ctx is nil")
	case ctx.Err() != nil:
		return contextError(ctx, "open session")
	}
	return nil
}

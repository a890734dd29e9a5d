package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tholedb/thole/internal/engine"
)

// endTimeout bounds what is said to the server on behalf of nobody: the end of a
// transaction that nobody waits for, the farewell to a connection that is given up.
const endTimeout = 5 * time.Second

// conn is a connection that was taken from the pool: what session and auto have
// in common.
type conn struct {
	pooled *pgxpool.Conn
	pgx    *pgx.Conn
	wire   *pgconn.PgConn

	tracer   pgx.QueryTracer // the pool's, or nil
	protocol protocol        // of statements with arguments or rows
	known    *statements     // to this connection
	scope    string          // of the session: the settings that statements are read by
	ahead    *ahead          // what the next statement brings along; nil outside a session
	builder  pgx.ExtendedQueryBuilder

	autocommits bool // the end of a statement is that of a transaction

	// Of the statement that ran last.
	query  string
	result *result // nil if it was no query
	sent   bool    // it may have been executed
	stale  bool    // it failed because what was known of it is out of date

	used       bool          // a statement of the caller's may have been executed
	reshaped   bool          // a statement changed the schema
	once       bool          // nobody else gets the connection
	controlled bool          // a statement ended or began a transaction
	lost       *engine.Error // the error that lost the connection
}

var errBusy = errors.New("rows of an earlier statement are open")

func (c *conn) types() *pgtype.Map { return c.pgx.TypeMap() }

// start notes the statement that is about to run. It returns an error if
// nothing may be sent.
func (c *conn) start(ctx context.Context, query string) error {
	if c.wire.IsBusy() {
		return errBusy
	}
	c.query, c.result, c.sent, c.stale = query, nil, false, false
	switch {
	case c.wire.IsClosed():
		return pgconn.ErrConnClosed
	case c.controlled:
		return errControlled
	case copiesOverConnection(query):
		return errCopy
	}
	return ctx.Err()
}

// say executes a text of our own by the simple protocol, in one round trip.
func (c *conn) say(ctx context.Context, text string) error {
	if err := c.start(ctx, text); err != nil {
		return err
	}
	if err := c.catchUp(ctx); err != nil {
		return err
	}
	return c.wire.Exec(ctx, text).Close()
}

// explain says what the error of a statement means, the connection considered.
func (c *conn) explain(ctx context.Context, err error) *engine.Error {
	if c.lost != nil {
		return &engine.Error{
			Kind:    engine.ErrConnLost,
			Message: "connection lost earlier: " + c.lost.Message,
			Retry:   c.lost.Retry,
			Aborts:  engine.AbortsSession,
			Err:     c.lost.Err,
		}
	}
	if told, ok := errors.AsType[*engine.Error](err); ok {
		own := *told
		return &own
	}
	failed := explain(err, c.query)
	if ctx.Err() != nil && (failed.Code == "" || failed.Code == queryCanceled) {
		failed = byContext(ctx, failed)
	}
	switch {
	case c.wire.IsClosed():
		c.lost = lostBy(failed)
		return c.lost
	case c.status() == 'E':
		failed.Aborts = engine.AbortsLevel
		if c.stale {
			failed.Kind, failed.Retry = nil, engine.RetryAsked // it is described anew
		}
	}
	return failed
}

// status is what the server said of the transaction when it was last ready; 0
// while it is not.
func (c *conn) status() byte {
	if c.wire.IsBusy() {
		return 0
	}
	return c.wire.TxStatus()
}

// lastWord is how long before its bound an unanswered COMMIT or ROLLBACK is
// cancelled, so that a server which is only slow says what became of it.
const lastWord = time.Second

// end sends COMMIT or ROLLBACK and returns the tag of the answer. It does not end
// with ctx, and gives up at its bound, see [engine.Bound], also on a server that is
// frozen: pgx itself would wait until the cancel request has had its time.
func (c *conn) end(ctx context.Context, text string) (string, error) {
	until := engine.Bound(ctx)
	left := time.Until(until)
	giveUp := time.AfterFunc(left, func() {
		_ = c.wire.Conn().SetDeadline(time.Unix(0, 1)) // fails only on a connection that is closed
	})
	defer func() { c.once = c.once || !giveUp.Stop() }()
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), until.Add(-min(lastWord, left/2)))
	defer cancel()
	tag, err := c.wire.ExecParams(ctx, text, nil, nil, nil, nil).Close()
	if err != nil && ctx.Err() != nil {
		err = withContext(ctx, err)
	}
	return tag.String(), err
}

// endAlone is end where nobody waits: after a while the connection is given up.
func (c *conn) endAlone(text string) error {
	_ = c.wire.Conn().SetDeadline(time.Now().Add(endTimeout)) // fails only on a connection that is closed
	_, err := c.wire.ExecParams(context.Background(), text, nil, nil, nil, nil).Close()
	_ = c.wire.Conn().SetDeadline(time.Time{}) // as above
	return err
}

// giveBack gives the connection to the pool, rolled back and with no rows open.
// The pool destroys it where that doesn't work.
func (c *conn) giveBack() {
	if c.result != nil {
		_ = c.result.close() // what it fails with was told, or is of no interest any more
	}
	if !c.wire.IsClosed() && c.wire.TxStatus() != 'I' {
		if _, err := c.end(context.Background(), "rollback"); err != nil {
			c.destroy()
			return
		}
	}
	c.release()
}

// release gives the connection to the pool, or ends it where the next one must
// not have it.
func (c *conn) release() {
	if c.once || c.controlled || c.wire.CustomData()[cancelUnderWay] != nil {
		c.destroy()
		return
	}
	own(c.wire, false)
	c.pooled.Release()
}

// destroy closes the connection and tells the pool.
func (c *conn) destroy() {
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	_ = c.pgx.Close(ctx) // it is given up
	c.pooled.Release()
}

package postgres

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
)

// cancelTimeout is how long a cancelled statement may take to come back before
// its connection is given up.
const cancelTimeout = 5 * time.Second

// firstCancelPause is the pause after the first cancel request; each is twice
// the one before.
const firstCancelPause = 10 * time.Millisecond

// cancelUnderWay is the key in a connection's data that says that a cancel
// request may still reach it.
const cancelUnderWay = "thole: cancel under way"

// canceller makes a done context cancel its statement on the server, where pgx
// would close the connection. In two ways it is stricter than
// [pgconn.CancelRequestContextWatcherHandler]:
//
//   - The server ignores a cancel that comes before it has read the statement,
//     which then would run on: so the request is repeated until the statement
//     comes back.
//   - A request that is under way is waited for. The server closes its
//     connection after it has sent the signal, so no cancel is left that could
//     hit the next statement. Where that is waited for in vain nobody else gets
//     the connection.
//
// A connection that somebody else took from the pool is left to pgx's own way: it
// may wait for a notification, which no request ends.
//
// https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-CANCELING-REQUESTS
type canceller struct {
	conn *pgconn.PgConn
	ours atomic.Bool // thole has taken it from the pool
	stop context.CancelFunc
	done chan struct{}
}

// cancels is the key in a connection's data of its canceller.
const cancels = "thole: canceller"

func newCanceller(conn *pgconn.PgConn) ctxwatch.Handler {
	c := &canceller{conn: conn}
	conn.CustomData()[cancels] = c
	return c
}

// own says whether a connection is thole's, from when it is taken from the pool to
// when it is given back.
func own(conn *pgconn.PgConn, ours bool) {
	if c, ok := conn.CustomData()[cancels].(*canceller); ok { // none is in a pool of the caller's
		c.ours.Store(ours)
	}
}

// HandleCancel implements [ctxwatch.Handler].
func (c *canceller) HandleCancel(context.Context) {
	if !c.ours.Load() {
		_ = c.conn.Conn().SetDeadline(time.Now()) // fails only on a connection that is closed
		return
	}
	deadline := time.Now().Add(cancelTimeout)
	_ = c.conn.Conn().SetDeadline(deadline) // fails only on a connection that is closed
	var returned context.Context
	returned, c.stop = context.WithDeadline(context.Background(), deadline)
	c.done = make(chan struct{})
	go func() {
		defer close(c.done)
		for pause := firstCancelPause; returned.Err() == nil; pause *= 2 {
			c.request(deadline)
			select {
			case <-returned.Done():
			case <-time.After(pause):
			}
		}
	}()
}

// request sends one cancel request and waits until the server has dealt with it.
func (c *canceller) request(deadline time.Time) {
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	// An error leaves the statement to the next request, or to the deadline.
	_ = c.conn.CancelRequest(ctx)
	if ctx.Err() != nil {
		c.conn.CustomData()[cancelUnderWay] = true
	}
}

// HandleUnwatchAfterCancel implements [ctxwatch.Handler]. The statement has come
// back.
func (c *canceller) HandleUnwatchAfterCancel() {
	if c.stop != nil {
		c.stop()
		<-c.done
		c.stop = nil
	}
	_ = c.conn.Conn().SetDeadline(time.Time{}) // fails only on a connection that is closed
}

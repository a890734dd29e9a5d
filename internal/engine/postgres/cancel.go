package postgres

import (
	"context"
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
// https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-CANCELING-REQUESTS
type canceller struct {
	conn *pgconn.PgConn
	stop context.CancelFunc
	done chan struct{}
}

func newCanceller(conn *pgconn.PgConn) ctxwatch.Handler { return &canceller{conn: conn} }

// HandleCancel implements [ctxwatch.Handler].
func (c *canceller) HandleCancel(context.Context) {
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
	c.stop()
	<-c.done
	_ = c.conn.Conn().SetDeadline(time.Time{}) // fails only on a connection that is closed
}

package postgres

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tholedb/thole/internal/engine"
)

// TestCancelHitsItsOwnStatement cancels at every moment of a statement's life,
// and has the next statement of the connection live.
func TestCancelHitsItsOwnStatement(t *testing.T) {
	t.Parallel()
	e := open(t, maxConns(1))
	once(t, e, "select 1")
	for range 300 {
		c := take(t, e)
		ctx, cancel := randomTimeout(t)
		if _, err := query(ctx, c, "select pg_sleep(0.002)"); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("cancelled statement outside a session: %v", err)
		}
		cancel()
		c.Close()
		once(t, e, "select pg_sleep(0.001)")

		s := begin(t, e, engine.Options{})
		ctx, cancel = randomTimeout(t)
		if _, err := query(ctx, s, "select pg_sleep(0.002)"); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("cancelled statement: %v", err)
		}
		cancel()
		if s.conn.wire.TxStatus() == 'T' { // it was faster
			mustExec(t, s, "select pg_sleep(0.001)")
		}
		if _, err := s.Rollback(testContext(t), nil); err != nil {
			t.Fatal(err)
		}
		once(t, e, "select pg_sleep(0.001)")
	}
	if got := e.pool.Stat().NewConnsCount(); got != 1 {
		t.Errorf("connections made: got %d, want 1", got)
	}
}

func randomTimeout(tb testing.TB) (context.Context, context.CancelFunc) {
	tb.Helper()
	return context.WithTimeout(testContext(tb), rand.N(4*time.Millisecond))
}

// TestCancelIsRepeated has the first request come before its statement, which
// the server would run to the end.
func TestCancelIsRepeated(t *testing.T) {
	t.Parallel()
	dealtWith := make(chan struct{}, 100)
	e := open(t, maxConns(1), func(cfg *pgxpool.Config) {
		cfg.ConnConfig.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			return &closeTeller{conn, dealtWith}, err
		}
	})
	c, err := e.connect(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.giveBack()
	handler := newCanceller(c.wire)
	own(c.wire, true)
	handler.HandleCancel(testContext(t))
	<-dealtWith
	err = c.say(testContext(t), "select pg_sleep(60)")
	handler.HandleUnwatchAfterCancel()
	if failed := wantKind(t, c.explain(testContext(t), err), engine.ErrTimeout); failed.Code != queryCanceled {
		t.Errorf("got %v, want SQLSTATE %s", failed, queryCanceled)
	}
}

// closeTeller tells when it is closed.
type closeTeller struct {
	net.Conn
	closed chan<- struct{}
}

func (c *closeTeller) Close() error {
	defer func() { c.closed <- struct{}{} }()
	return c.Conn.Close()
}

// TestCancelGivesUp has a server to which no cancel request gets through.
func TestCancelGivesUp(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes as long as cancelTimeout")
	}
	cut := &cutter{}
	e := open(t, cut.configure, maxConns(1))
	s := begin(t, e, engine.Options{})
	cut.refuse.Store(true)
	ctx, cancel := context.WithTimeout(testContext(t), time.Millisecond)
	defer cancel()
	err := exec(ctx, s, "select pg_sleep(60)")
	failed := wantKind(t, err, engine.ErrConnLost)
	if !errors.Is(err, context.DeadlineExceeded) || failed.Retry != engine.RetryNever {
		t.Errorf("got %v, retry %d, want context.DeadlineExceeded and no retry", err, failed.Retry)
	}
	cut.refuse.Store(false)
	terminate(t, e, s.conn.wire.PID()) // for which pgx waits up to 15 seconds
	s.Rollback(testContext(t), err)
	once(t, e, "select 1")
}

// TestCancelLeavesOthersAlone has somebody else wait for a notification on a
// connection of the pool: it is not asked of the server, and the connection stays.
func TestCancelLeavesOthersAlone(t *testing.T) {
	t.Parallel()
	var dialled atomic.Int32 // by cancel requests too
	e := open(t, maxConns(1), func(cfg *pgxpool.Config) {
		dial := cfg.ConnConfig.DialFunc
		cfg.ConnConfig.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
			dialled.Add(1)
			return dial(ctx, network, address)
		}
	})
	once(t, e, "select 1")
	taken, err := e.Pool().Acquire(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Release()
	ctx, cancel := context.WithCancel(testContext(t))
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := taken.Conn().WaitForNotification(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want %v", err, context.Canceled)
	}
	if n := dialled.Load(); n != 1 {
		t.Errorf("connections: got %d, want 1 and no cancel request", n)
	}
	if _, err := taken.Exec(testContext(t), "select 1"); err != nil {
		t.Errorf("the connection is gone: %v", err)
	}
}

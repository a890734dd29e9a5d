package dbtest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/tholedb/thole/internal/pgclone"
	"github.com/tholedb/thole/internal/pgserver"
	"github.com/tholedb/thole/internal/testdb"
)

// server is the PostgreSQL server of this test binary, with the connections that
// its tests may have.
type server struct {
	*pgclone.Server
	most     int // connections
	slots    *semaphore.Weighted
	released atomic.Int64 // when one was given back last, in nanoseconds
	isStuck  atomic.Bool  // and nobody has given one back since
}

var found struct {
	sync.Mutex
	*server
}

// findServer returns the server, or skips or fails the test. The first test to ask
// logs which one it is.
func findServer(tb testing.TB) *server {
	tb.Helper()
	at := testdb.Server(tb)
	found.Lock()
	defer found.Unlock()
	if found.server != nil {
		return found.server
	}
	tb.Logf("dbtest: PostgreSQL from %s", provenance(at))
	on, err := pgclone.On(context.WithoutCancel(tb.Context()), at.URL)
	if err != nil {
		tb.Fatalf("dbtest: %v", err)
	}
	most := on.Connections(at.Private)
	found.server = &server{Server: on, most: most, slots: semaphore.NewWeighted(int64(most))}
	return found.server
}

// provenance says where a server comes from, and why others were passed over.
func provenance(at *pgserver.Server) string {
	if len(at.Passed) == 0 {
		return at.Provider
	}
	reasons := make([]string, len(at.Passed))
	for i, p := range at.Passed {
		reasons[i] = p.Provider + ": " + p.Reason
	}
	return fmt.Sprintf("%s (%s)", at.Provider, strings.Join(reasons, "; "))
}

// stuck is how long nobody gives a connection back before it is taken that those who
// have them wait for those who want them: tests for their parallel subtests.
const stuck = time.Second

// reserve waits for connections, which the end of the test gives back.
func (s *server) reserve(tb testing.TB, n int) {
	tb.Helper()
	if !s.slots.TryAcquire(int64(n)) && !s.queue(int64(n)) {
		return
	}
	tb.Cleanup(func() {
		s.slots.Release(int64(n))
		s.released.Store(time.Now().UnixNano())
		s.isStuck.Store(false)
	})
}

// queue waits for connections that others have. It is false where they would wait
// for ever: then there are more than there should be.
func (s *server) queue(n int64) bool {
	for began := time.Now(); !s.isStuck.Load(); {
		ctx, cancel := context.WithTimeout(context.Background(), stuck)
		err := s.slots.Acquire(ctx, n)
		cancel()
		if err == nil {
			return true
		}
		if time.Since(began) >= stuck && time.Since(time.Unix(0, s.released.Load())) >= stuck {
			s.isStuck.Store(true)
		}
	}
	return false
}

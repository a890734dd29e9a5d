package dbtest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
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
	most  int // connections
	slots *semaphore.Weighted

	mu      sync.Mutex
	holders []string // tests that have some
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

// queueing is how long a test waits for connections that others have, where it has
// no deadline.
const queueing = 10 * time.Minute

// reserve waits for connections, which the end of the test gives back.
func (s *server) reserve(tb testing.TB, n int) {
	tb.Helper()
	if !s.slots.TryAcquire(int64(n)) {
		s.queue(tb, n)
	}
	s.mu.Lock()
	s.holders = append(s.holders, tb.Name())
	s.mu.Unlock()
	tb.Cleanup(func() {
		s.slots.Release(int64(n))
		s.mu.Lock()
		defer s.mu.Unlock()
		if i := slices.Index(s.holders, tb.Name()); i >= 0 {
			s.holders = slices.Delete(s.holders, i, i+1)
		}
	})
}

// queue waits for connections that others have.
func (s *server) queue(tb testing.TB, n int) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), queueing)
	defer cancel()
	if t, ok := tb.(interface{ Deadline() (time.Time, bool) }); ok {
		if deadline, ok := t.Deadline(); ok {
			ctx, cancel = context.WithDeadline(ctx, deadline.Add(-max(time.Until(deadline)/10, time.Second)))
			defer cancel()
		}
	}
	if err := s.slots.Acquire(ctx, int64(n)); err != nil {
		tb.Fatalf("dbtest: wait for %d of the %d connections that tests may have: %v; they are used by %s",
			n, s.most, err, s.who())
	}
}

// who are the tests that have connections.
func (s *server) who() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.holders, ", ")
}

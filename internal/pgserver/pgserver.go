// Package pgserver finds a PostgreSQL server for the tests of one process.
//
// [Find] takes the server that DBTEST_URL names. Without one it starts a
// private server from PostgreSQL's programs on this machine, which ends, and
// whose files vanish, when the process does, however it ends: a watching
// process sees the end of a pipe that only we hold. There is nothing to close,
// no goroutine stays behind, and two processes never share such a server. Where
// there are no programs it asks Docker, if the test imports package dockerpg;
// processes share that server.
//
// [FindPooler] puts a private PgBouncer before that server, which ends as a
// private server does.
//
// DATABASE_URL is never read: it may name a database that somebody needs.
package pgserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"
)

// startLimit bounds the start of a local server, which takes a second at most
// on an idle machine.
const startLimit = 2 * time.Minute

// ImageVariable names the image of the server that Docker starts. One who sets
// it has chosen Docker before the programs on this machine.
const ImageVariable = "DBTEST_PG_IMAGE"

// Server is a PostgreSQL server that tests may fill with databases.
type Server struct {
	// URL names the database to connect to first. On a local server the user
	// is a superuser, and the server listens twice at the same port: on a Unix
	// socket, which the URL names where its path is short enough, and on
	// 127.0.0.1, where it asks for the URL's password.
	URL string

	// Provider is "DBTEST_URL", the folder of the programs that were started,
	// or "Docker" and the image.
	Provider string

	// Passed are the providers that were asked before.
	Passed []Passed

	// Private says that no other process uses the server.
	Private bool

	// lifeline keeps a local server alive until it is closed, which happens at
	// the end of the process, or when nothing refers to it.
	lifeline *os.File

	// pidFile is where a local server says that it is ready.
	pidFile string

	// Lease is the connection to a server in a container that keeps it alive:
	// the container ends some time after the last such connection. Nothing is
	// sent on it, and it is never closed but by the end of the process.
	Lease net.Conn
}

// Passed says why a provider of servers was passed over.
type Passed struct{ Provider, Reason string }

// NotFoundError is the error of [Find], [URL] and [FindPooler] when there is
// neither what they look for nor a way to start it. A server that is there but
// fails is another error.
type NotFoundError struct {
	// What is what was looked for: "a PostgreSQL server".
	What string

	// Passed are all providers, in the order in which they were asked.
	Passed []Passed
}

// Error lists the providers with the reasons.
func (e *NotFoundError) Error() string {
	reasons := make([]string, len(e.Passed))
	for i, p := range e.Passed {
		reasons[i] = p.Provider + ": " + p.Reason
	}
	return "find " + e.What + ": " + strings.Join(reasons, "; ")
}

// shared is a server that is looked for once in a process.
type shared struct {
	once   sync.Once
	done   chan struct{}
	server *Server
	err    error
}

// get returns what find found. The first call runs it, and find bounds itself;
// all others wait for that. The end of ctx ends the waiting alone.
func (s *shared) get(ctx context.Context, what string, find func(context.Context) (*Server, error)) (*Server, error) {
	s.once.Do(func() {
		s.done = make(chan struct{})
		go func() {
			defer close(s.done)
			s.server, s.err = find(context.WithoutCancel(ctx))
		}()
	})
	select {
	case <-s.done:
		return s.server, s.err
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for %s: %w", what, context.Cause(ctx))
	}
}

var found shared

// Find returns the server of this process. The first call looks for it and
// starts it if need be; all others wait for that and return the same. The end
// of ctx ends the waiting, not the start, which other callers may wait for.
func Find(ctx context.Context) (*Server, error) { return found.get(ctx, aServer, find) }

const aServer = "a PostgreSQL server"

// URL returns the URL of the server that [Find] returns.
func URL(ctx context.Context) (string, error) {
	s, err := Find(ctx)
	if err != nil {
		return "", err
	}
	return s.URL, nil
}

func find(ctx context.Context) (*Server, error) {
	s, first, err := fromEnv()
	if s != nil || err != nil {
		return s, err
	}
	passed := []Passed{first}
	for _, ask := range providers() {
		s, more, err := ask(ctx)
		if err != nil {
			return nil, err
		}
		passed = append(passed, more...)
		if s != nil {
			s.Passed = passed
			return s, nil
		}
	}
	return nil, &NotFoundError{What: aServer, Passed: passed}
}

// fromEnv returns the server that DBTEST_URL names, or why there is none.
func fromEnv() (*Server, Passed, error) {
	const name = "DBTEST_URL"
	raw := os.Getenv(name)
	switch {
	case raw == "":
		return nil, Passed{name, "not set"}, nil
	case !strings.HasPrefix(raw, "postgres://") && !strings.HasPrefix(raw, "postgresql://"):
		return nil, Passed{name, "not a PostgreSQL URL"}, nil
	}
	if err := checkTestURL(raw); err != nil && os.Getenv("DBTEST_UNSAFE") != "1" {
		return nil, Passed{}, fmt.Errorf("use %s: %w", name, err)
	}
	return &Server{URL: raw, Provider: name}, Passed{}, nil
}

// testName matches app_test and testdb, but neither latest nor contest.
var testName = regexp.MustCompile(`(?i)(^|[^a-z])test`)

// checkTestURL refuses the URL of a database that may not be one for tests.
// "postgres" is refused too: hosting services use it for the real data.
func checkTestURL(raw string) error {
	u, err := url.Parse(raw)
	if err != nil {
		// The cause would quote the URL, and so its password.
		return errors.New("not a valid URL")
	}
	name := strings.TrimPrefix(u.Path, "/")
	for _, key := range []string{"dbname", "database"} {
		if q := u.Query(); q.Has(key) {
			name = q.Get(key)
		}
	}
	if !testName.MatchString(name) {
		return fmt.Errorf("database %q does not look like a test database: no word of its name begins with \"test\" (DBTEST_UNSAFE=1 allows it)", name)
	}
	return nil
}

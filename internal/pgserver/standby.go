package pgserver

import "context"

var waiting shared

// FindWaiting returns a private server of this process that has every COMMIT
// with synchronous_commit=on wait for a standby, which never comes. By itself
// synchronous_commit is off there. The first call starts it; all others wait for
// that and return the same.
func FindWaiting(ctx context.Context) (*Server, error) {
	return waiting.get(ctx, aServer, func(ctx context.Context) (*Server, error) {
		return Start(ctx, "synchronous_standby_names=nobody")
	})
}

// Start starts a private server for the caller alone, with settings besides those
// that every server has here. It ends when nothing refers to it any more.
func Start(ctx context.Context, settings ...string) (*Server, error) {
	s, passed, err := local(ctx, settings...)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return nil, &NotFoundError{What: aServer, Passed: passed}
	}
	s.Passed = passed
	return s, nil
}

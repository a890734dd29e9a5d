package pgserver

import "context"

var waiting shared

// FindWaiting returns a private server of this process that has every COMMIT
// with synchronous_commit=on wait for a standby, which never comes. By itself
// synchronous_commit is off there. The first call starts it; all others wait for
// that and return the same.
func FindWaiting(ctx context.Context) (*Server, error) {
	return waiting.get(ctx, aServer, func(ctx context.Context) (*Server, error) {
		s, passed, err := local(ctx, "synchronous_standby_names=nobody")
		if err != nil {
			return nil, err
		}
		if s == nil {
			return nil, &NotFoundError{What: aServer, Passed: passed}
		}
		s.Passed = passed
		return s, nil
	})
}

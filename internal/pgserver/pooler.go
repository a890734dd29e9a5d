package pgserver

import "context"

var pooled shared

// FindPooler returns the PgBouncer of this process, in transaction mode before
// the server that [Find] returns: there every transaction may run on another
// connection to the server. The first call starts it; all others wait for that
// and return the same. Its URL leads to the same database as the server's, and
// any other database can be named in its place.
//
// What a session sees as its application_name ends with the address of the
// connection to PgBouncer ("app - 127.0.0.1:54321"), which tells whose it is.
func FindPooler(ctx context.Context) (*Server, error) {
	return pooled.get(ctx, "PgBouncer", startPooler)
}

func startPooler(ctx context.Context) (*Server, error) {
	server, err := Find(ctx)
	if err != nil {
		return nil, err
	}
	s, passed, err := localPooler(ctx, server.URL)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return nil, &NotFoundError{What: "PgBouncer", Passed: passed}
	}
	s.Passed = passed
	return s, nil
}

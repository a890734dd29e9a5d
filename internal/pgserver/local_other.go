//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package pgserver

import (
	"context"
	"runtime"
)

// local finds nothing: a server that ends with its process needs Unix.
func local(context.Context, ...string) (*Server, []Passed, error) {
	return nil, []Passed{{"local programs", "not on " + runtime.GOOS + ": set DBTEST_URL to a server's URL"}}, nil
}

// localPooler finds nothing, as local does.
func localPooler(context.Context, string) (*Server, []Passed, error) {
	return nil, []Passed{{"local programs", "not on " + runtime.GOOS}}, nil
}

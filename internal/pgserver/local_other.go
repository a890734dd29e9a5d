//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package pgserver

import (
	"context"
	"errors"
	"runtime"
)

// local finds nothing: a server that ends with its process needs Unix.
func local(context.Context, ...string) (*Server, []Passed, error) {
	return nil, []Passed{{"local programs", "not on " + runtime.GOOS}}, nil
}

// Kill kills nothing: there is no server of our own.
func (*Server) Kill() error { return errors.ErrUnsupported }

// Restart starts nothing.
func (*Server) Restart(context.Context) error { return errors.ErrUnsupported }

// localPooler finds nothing, as local does.
func localPooler(context.Context, string) (*Server, []Passed, error) {
	return nil, []Passed{{"local programs", "not on " + runtime.GOOS}}, nil
}

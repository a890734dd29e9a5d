// Package dockerpg has the tests of a program take PostgreSQL from Docker where
// there is no other. It is imported for that alone, in a _test.go file:
//
//	import _ "github.com/tholedb/thole/testing/dbtest/dockerpg"
//
// Docker is asked after DBTEST_URL and the programs of PostgreSQL on this
// machine, or before those programs if DBTEST_PG_IMAGE names an image. Without
// that the image is [Image]. It is pulled where the engine does not have it,
// which is said on standard error and may take five minutes; from a registry
// that asks for a password pull it before. Any image serves that has sh, sleep
// and psql and obeys POSTGRES_PASSWORD, POSTGRES_INITDB_ARGS and PGDATA as the
// official one does, such as PostGIS's.
//
// All test binaries share one container for each image and version of this
// package. It has its data in memory, and ends by itself when for a minute
// nobody has been connected to it: that is more than the go command needs
// between two test binaries, and the next run begins at once. So nothing
// outlives the tests for longer, however they end. What such a server holds for
// a test has a name of its own.
//
// The engine is the docker command's: DOCKER_HOST, DOCKER_CONTEXT, the current
// context, or the usual socket. The port is chosen by the engine, on the host
// that the engine runs on, and on a local engine open to this machine alone. The
// password is random. A test that runs in a container itself needs a DOCKER_HOST
// whose host it reaches.
package dockerpg

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/tholedb/thole/internal/pgserver"
)

// Image is the image that runs when DBTEST_PG_IMAGE is not set.
const Image = "postgres:17-alpine"

func init() {
	pgserver.RegisterDocker(func(ctx context.Context, image string) (*pgserver.Server, string, error) {
		return server{image: cmp.Or(image, Image), idle: time.Minute, progress: os.Stderr}.find(ctx)
	})
}

// server says which container to find or to start.
type server struct {
	image    string
	idle     time.Duration // after which the container ends, in whole seconds
	progress io.Writer
}

// find returns the server with a lease on it, or why no engine can be reached.
func (s server) find(ctx context.Context) (*pgserver.Server, string, error) {
	e, err := connect(ctx)
	if err != nil {
		return nil, err.Error(), nil //nolint:nilerr // it is a reason to pass Docker over
	}
	id, entrypoint, err := e.image(ctx, s.image, s.progress)
	if err != nil {
		return nil, "", err
	}
	starting := starter{engine: e, image: s.image, options: s.options(e, id, entrypoint)}
	found, err := starting.lease(ctx)
	if err != nil {
		return nil, "", fmt.Errorf("run image %s in Docker: %w", s.image, err)
	}
	return found, "", nil
}

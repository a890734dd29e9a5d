package pgserver

import (
	"context"
	"os"
)

// provider returns a server, or none and why; an error says that there should
// have been one.
type provider func(ctx context.Context) (*Server, []Passed, error)

// docker is what [RegisterDocker] was given.
var docker func(ctx context.Context, image string) (s *Server, reason string, err error)

// RegisterDocker has [Find] ask in, which returns a server that runs the image,
// or its own choice where image is empty; or no server, and why no engine can
// be reached. It is called by the init function of package dockerpg, which so
// alone decides whether a test links Docker's packages.
func RegisterDocker(in func(ctx context.Context, image string) (s *Server, reason string, err error)) {
	docker = in
}

// providers are those that start a server, in the order to ask them.
func providers() []provider {
	onMachine := func(ctx context.Context) (*Server, []Passed, error) { return local(ctx) }
	if os.Getenv(ImageVariable) != "" {
		return []provider{inDocker, onMachine}
	}
	return []provider{onMachine, inDocker}
}

func inDocker(ctx context.Context) (*Server, []Passed, error) {
	image := os.Getenv(ImageVariable)
	if docker == nil {
		reason := `not imported: import _ "github.com/tholedb/thole/testing/dbtest/dockerpg"`
		if image != "" {
			reason = ImageVariable + " is set, but Docker is " + reason
		}
		return nil, []Passed{{"Docker", reason}}, nil
	}
	s, reason, err := docker(ctx, image)
	if s != nil || err != nil {
		return s, nil, err
	}
	return nil, []Passed{{"Docker", reason}}, nil
}

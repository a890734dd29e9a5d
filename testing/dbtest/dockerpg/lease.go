package dockerpg

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/ory/dockertest/v3/docker"

	"github.com/tholedb/thole/internal/pgserver"
)

const (
	startLimit = 2 * time.Minute
	pause      = 50 * time.Millisecond // between two looks at a server that starts
)

// starter gets a lease on the server of one container. Of several that do so at
// once, and may be killed while they do, any goes on where another left off: it
// takes the container as it is, whoever created it.
type starter struct {
	*engine
	image   string // as the user named it
	options docker.CreateContainerOptions
	own     *serverLog // nil: somebody else started the container
}

// notYetError says what was in the way of a lease that may be had soon.
type notYetError struct{ cause error }

func (e notYetError) Error() string { return e.cause.Error() }
func (e notYetError) Unwrap() error { return e.cause }

// lease returns the server, which it starts if need be.
func (s *starter) lease(ctx context.Context) (*pgserver.Server, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("it took more than %s", startLimit))
	defer cancel()
	defer func() { s.own.close() }()
	s.sweep(ctx)
	for {
		found, err := s.try(ctx)
		if !errors.As(err, new(notYetError)) {
			return found, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w: %s", context.Cause(ctx), err, s.own.text())
		}
	}
}

// try takes one step towards the lease.
func (s *starter) try(ctx context.Context) (*pgserver.Server, error) {
	c, err := s.Client.InspectContainerWithContext(s.options.Name, ctx)
	missing := errors.As(err, new(*docker.NoSuchContainer))
	switch {
	case err != nil && !missing:
		return nil, err
	case !missing && c.State.Running:
		return s.join(ctx, c)
	case s.own != nil:
		return nil, fmt.Errorf("the server ended: %s", s.own.text())
	case !missing:
		return nil, s.start(ctx, c.ID)
	}
	return nil, s.create(ctx)
}

// create creates the container, with a new password, unless somebody else just
// did.
func (s *starter) create(ctx context.Context) error {
	options, config := s.options, *s.options.Config
	config.Env = append(slices.Clip(config.Env), passwordEnv+rand.Text())
	options.Config, options.Context = &config, ctx
	c, err := s.Client.CreateContainer(options)
	if errors.Is(err, docker.ErrContainerAlreadyExists) {
		return notYetError{err}
	}
	if err != nil {
		return fmt.Errorf("create container: %w", err)
	}
	return s.start(ctx, c.ID)
}

// start starts the container, unless somebody else did, or removes it.
func (s *starter) start(ctx context.Context, id string) error {
	err := s.Client.StartContainerWithContext(id, nil, ctx)
	var refused *docker.Error
	switch {
	case err == nil:
		s.own = s.follow(ctx, id)
		return notYetError{errors.New("it has just been started")}
	case errors.As(err, new(*docker.ContainerAlreadyRunning)),
		errors.As(err, new(*docker.NoSuchContainer)),
		errors.As(err, &refused) && refused.Status == http.StatusConflict: // it is being removed
		return notYetError{err}
	}
	return fmt.Errorf("start container: %w", err)
}

// sweep removes the other containers of ours that do not run: a process was
// killed between creating and starting them. Whoever is between the two at this
// moment creates another. What cannot be removed is left to the next run.
func (s *starter) sweep(ctx context.Context) {
	left, _ := s.Client.ListContainers(docker.ListContainersOptions{ // the next call says what is wrong
		All:     true,
		Filters: map[string][]string{"label": {label}, "status": {"created", "exited", "dead"}},
		Context: ctx,
	})
	for _, c := range left {
		if c.Labels[label] == s.options.Name {
			continue
		}
		_ = s.Client.RemoveContainer(docker.RemoveContainerOptions{ID: c.ID, RemoveVolumes: true, Context: ctx})
	}
}

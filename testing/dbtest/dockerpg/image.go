package dockerpg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ory/dockertest/v3/docker"
)

const (
	pullLimit   = 5 * time.Minute
	pullMessage = 5 * time.Second // between two lines about a pull
)

// image returns the id and the entrypoint of an image, and pulls it where the
// engine does not have it.
func (e *engine) image(ctx context.Context, name string, progress io.Writer) (id string, entrypoint []string, err error) {
	found, err := e.Client.InspectImage(name)
	if errors.Is(err, docker.ErrNoSuchImage) {
		ctx, cancel := context.WithTimeoutCause(ctx, pullLimit, fmt.Errorf("it took more than %s", pullLimit))
		defer cancel()
		if err := e.pull(ctx, name, progress, pullMessage); err != nil {
			return "", nil, fmt.Errorf("pull image %s: %w", name, err)
		}
		found, err = e.Client.InspectImage(name)
	}
	if err != nil {
		return "", nil, fmt.Errorf("inspect image %s: %w", name, err)
	}
	return found.ID, found.Config.Entrypoint, nil
}

// pull has the engine pull an image, and says so at once, after each interval
// and at the end. Of processes that pull the same, each waits for one pull.
func (e *engine) pull(ctx context.Context, name string, progress io.Writer, interval time.Duration) error {
	begin, done := time.Now(), make(chan error, 1)
	say := func(what string) {
		fmt.Fprintf(progress, "dbtest: image %s: %s (%s)\n", name, what, time.Since(begin).Round(100*time.Millisecond))
	}
	say("pulling it")
	repository, tag := docker.ParseRepositoryTag(name)
	if tag == "" {
		tag = "latest"
	}
	go func() {
		done <- e.Client.PullImage(docker.PullImageOptions{
			Repository: repository, Tag: tag, OutputStream: io.Discard, Context: ctx,
		}, docker.AuthConfiguration{})
	}()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			if err != nil && ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			if err == nil {
				say("pulled")
			} else {
				say("not pulled")
			}
			return err
		case <-tick.C:
			say("still pulling")
		}
	}
}

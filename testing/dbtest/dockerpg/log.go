package dockerpg

import (
	"bytes"
	"context"
	"time"

	"github.com/ory/dockertest/v3/docker"
)

// serverLog is what a container has said since it was started. With the
// container the engine removes its log too.
type serverLog struct {
	said   bytes.Buffer
	done   chan struct{}
	cancel context.CancelFunc
}

// follow begins to read what a container says.
func (e *engine) follow(ctx context.Context, id string) *serverLog {
	ctx, cancel := context.WithCancel(ctx)
	l := &serverLog{done: make(chan struct{}), cancel: cancel}
	go func() {
		defer close(l.done)
		_ = e.Client.Logs(docker.LogsOptions{ // without them errors say less
			Container: id, Follow: true, Stdout: true, Stderr: true,
			OutputStream: &l.said, ErrorStream: &l.said, Context: ctx,
		})
	}()
	return l
}

// close ends the reading.
func (l *serverLog) close() {
	if l != nil {
		l.cancel()
		<-l.done
	}
}

// text is the end of what was said, to which the engine may add for a second.
func (l *serverLog) text() string {
	const most = 2000
	if l == nil {
		return ""
	}
	select {
	case <-l.done:
	case <-time.After(time.Second):
	}
	l.close()
	said := bytes.TrimSpace(l.said.Bytes())
	return string(said[max(0, len(said)-most):])
}

//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package pgserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Kill kills the processes of a server that was started here, all at once, as
// kill -9 does. [Server.Restart] starts it again.
func (s *Server) Kill() error {
	state, err := os.ReadFile(s.pidFile)
	if err != nil {
		return fmt.Errorf("kill server: %w", err)
	}
	first, _, _ := strings.Cut(string(state), "\n")
	server, err := strconv.Atoi(first)
	if err != nil {
		return fmt.Errorf("kill server: %w", err)
	}
	// A server that is stopped begets no more.
	if err := syscall.Kill(server, syscall.SIGSTOP); err != nil {
		return fmt.Errorf("kill server: %w", err)
	}
	family, err := living(func(id, parent int) bool { return id == server || parent == server })
	if err != nil {
		return fmt.Errorf("kill server: %w", err)
	}
	for id := range family {
		if err := syscall.Kill(id, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("kill server: %w", err)
		}
	}
	for left := family; len(left) > 0; { // they have its memory still
		left, err = living(func(id, _ int) bool { return family[id] })
		if err != nil {
			return fmt.Errorf("kill server: %w", err)
		}
	}
	return os.Remove(s.pidFile)
}

// Restart starts a server again that was killed, and returns when it has
// recovered.
func (s *Server) Restart(ctx context.Context) error {
	if _, err := s.lifeline.WriteString("\n"); err != nil {
		return fmt.Errorf("restart server: %w", err)
	}
	for !isReady(s.pidFile) {
		if ctx.Err() != nil {
			return fmt.Errorf("restart server: %w", context.Cause(ctx))
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

// living are the processes of this machine that have not ended and that which
// picks.
func living(which func(id, parent int) bool) (map[int]bool, error) {
	out, err := exec.Command("ps", "-A", "-o", "pid=,ppid=,stat=").Output()
	if err != nil {
		return nil, fmt.Errorf("run ps: %w", err)
	}
	ids := make(map[int]bool)
	for line := range strings.Lines(string(out)) {
		var id, parent int
		var state string
		if _, err := fmt.Sscan(line, &id, &parent, &state); err != nil {
			return nil, fmt.Errorf("read what ps says: %w", err)
		}
		if !strings.HasPrefix(state, "Z") && which(id, parent) {
			ids[id] = true
		}
	}
	return ids, nil
}

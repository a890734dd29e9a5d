//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package pgserver

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// host starts servers on this machine.
type host struct {
	bin     string              // the folder of initdb and postgres
	parents []string            // folders to put the server's directory in, best first
	cache   string              // the folder of initialised clusters; empty: none are kept
	more    []string            // settings, besides those of each server
	cred    *syscall.Credential // whom the server runs as; nil: as we do
}

// local starts a server from the programs found on this machine, with more
// settings than a server of ours has. It returns no server where there are none.
func local(ctx context.Context, more ...string) (*Server, []Passed, error) {
	bin, passed := findBinaries()
	if bin == "" {
		return nil, passed, nil
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	h := host{
		bin:     bin,
		parents: append(memoryDirs(), os.TempDir(), "/tmp"),
		cache:   cacheDir(),
		cred:    account(),
		more:    more,
	}
	s, err := h.start(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("start PostgreSQL from %s: %w", bin, err)
	}
	return s, passed, nil
}

// start starts a server. Should that fail, it tries once more with a cluster
// made afresh: the kept one may have suffered, or another process took the port
// between our choosing it and PostgreSQL's listening there.
func (h host) start(ctx context.Context) (*Server, error) {
	s, err := h.startIn(ctx, h.restoreCluster)
	if err == nil || ctx.Err() != nil {
		return s, err
	}
	return h.startIn(ctx, h.makeCluster)
}

// startIn makes a directory, has fill put a cluster into it, and starts it.
func (h host) startIn(ctx context.Context, fill func(ctx context.Context, dir string) error) (*Server, error) {
	dir, lock, err := h.makeDir()
	if err != nil {
		return nil, err
	}
	defer lock.Close() // the watcher has it from here on
	if err := fill(ctx, dir); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	s, err := h.serve(ctx, dir, lock)
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return s, nil
}

// cacheDir is the folder of initialised clusters, empty for users without one.
func cacheDir() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "thole", "dbtest")
}

// account is whom the server runs as, for PostgreSQL refuses to run as root.
// It must be in the machine's list of users: initdb looks it up.
func account() *syscall.Credential {
	if os.Geteuid() != 0 {
		return nil
	}
	for _, name := range []string{"nobody", "postgres"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 == nil && err2 == nil {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		}
	}
	return &syscall.Credential{Uid: 65534, Gid: 65534}
}

// give makes the server's account the owner of a path.
func (h host) give(path string) error {
	if h.cred == nil {
		return nil
	}
	return os.Lchown(path, int(h.cred.Uid), int(h.cred.Gid))
}

// owner is the user id of the server's account.
func (h host) owner() uint32 {
	if h.cred == nil {
		return uint32(os.Geteuid())
	}
	return h.cred.Uid
}

// command returns a command that runs as the server's account, in dir, out of
// reach of the terminal's Ctrl-C.
func (h host) command(ctx context.Context, dir, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = environ(os.Environ())
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: h.cred, Setsid: true}
	return cmd
}

// environ is env without what would change a server's defaults.
func environ(env []string) []string {
	kept := []string{"LC_ALL=C"}
	for _, v := range env {
		if !strings.HasPrefix(v, "PG") && !strings.HasPrefix(v, "LC_") && !strings.HasPrefix(v, "LANG") {
			kept = append(kept, v)
		}
	}
	return kept
}

package pgserver

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestB30Places has Find start a server in places that differ from a user's
// machine: with its own mounts, without a home, as root and as nobody.
func TestB30Places(t *testing.T) {
	t.Parallel()
	newHost(t) // or there is nothing to start
	const noMemory = `mount -t tmpfs none /mnt && touch /mnt/null /mnt/urandom &&
		mount --bind /dev/null /mnt/null && mount --bind /dev/urandom /mnt/urandom && mount --rbind /mnt /dev && `
	for _, tt := range []struct {
		name   string
		mounts string // run before; needs root
		tmp    string // a folder in which TMPDIR is; empty: the usual
		home   string
		tcp    bool // no socket's path is short enough
	}{
		{name: "as it is", home: "/proc"}, // where nobody can write, root neither
		{name: "no home"},
		{name: "no memory", mounts: noMemory, home: "/proc"},
		{name: "little memory", mounts: "mount -t tmpfs -o size=64m none /dev/shm && ", home: "/proc"},
		{name: "spaces", mounts: noMemory, tmp: "a folder & 'more'"},
		{name: "long", mounts: noMemory, tmp: strings.Repeat("long/", 25), tcp: true},
	} {
		for _, user := range []string{"self", "nobody"} {
			t.Run(tt.name+" "+user, func(t *testing.T) {
				t.Parallel()
				if (tt.mounts != "" || user != "self") && os.Geteuid() != 0 {
					t.Skip("needs root")
				}
				cmd := helper(t, host{}, nil)
				tmp := os.TempDir()
				if tt.tmp != "" {
					tmp = subdir(t, tt.tmp)
				}
				cmd.Env = append(cmd.Env, "TMPDIR="+tmp)
				if tt.home != "" {
					cmd.Env = append(cmd.Env, "HOME="+tt.home)
				}
				place(t, cmd, tt.mounts, user)
				p := startCommand(t, cmd)
				if dir := filepath.Dir(directory(t, p.url)); tt.mounts != "" && !tt.tcp && dir != tmp {
					t.Errorf("the server is in %s, want it in %s", dir, tmp)
				}
				if host := parseURL(t, p.url).Hostname(); (host == "127.0.0.1") != tt.tcp {
					t.Errorf("the server is at %q, want TCP: %v", host, tt.tcp)
				}
				connect(t, p.url)
			})
		}
	}
}

// place has cmd run with mounts of its own, and as another user.
func place(t *testing.T, cmd *exec.Cmd, mounts, user string) {
	t.Helper()
	script := mounts + `exec "$@"`
	if user != "self" {
		cmd.Path = copyProgram(t, cmd.Path) // the go command's folder is closed to others
		script = mounts + `exec setpriv --reuid=` + user + ` --regid=nogroup --clear-groups "$@"`
	}
	args := []string{"sh", "-c", script, "sh", cmd.Path}
	if mounts != "" {
		args = append([]string{"unshare", "--mount"}, args...)
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		t.Skip(err)
	}
	cmd.Args = append(args, cmd.Args[1:]...)
	cmd.Path = path
}

// TestB34Timeout ends a process that has a server as go test -timeout does.
func TestB34Timeout(t *testing.T) {
	t.Parallel()
	cmd := helper(t, newHost(t), nil)
	cmd.Args = append(cmd.Args, "-test.timeout="+(10*time.Second).String())
	p := startCommand(t, cmd)
	connect(t, p.url)
	p.cmd.Wait()
	waitUntil(t, "the directory is gone", func() bool { return !exists(directory(t, p.url)) })
}

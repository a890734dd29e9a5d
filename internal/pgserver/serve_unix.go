//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package pgserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxSocketPath is the length of a Unix socket's path that every system
// accepts: 108 bytes on Linux, 104 on BSD and macOS, with the zero at the end.
const maxSocketPath = 103

// watch runs the server that its arguments name, waits for the end of its
// standard input, which is ours, and cleans up. File 3 is left to the server
// alone, file 4 to the watcher.
//
// A line there means that the server was killed, and shall run again.
//
// SIGQUIT has the server drop everything at once, and its shared memory too,
// which SIGKILL would leak. But a shell starts what runs beside it with SIGQUIT
// ignored, so SIGTERM precedes it for a server that hasn't yet set its handlers.
const watch = `
"$@" </dev/null 4>&- &
exec 3>&-
while read -r _; do
	wait
	"$@" </dev/null 4>&- &
done
kill -TERM $!
kill -QUIT $!
wait
cd /
rm -rf -- "$0"
`

// localSettings are those of a server that shares the machine with others.
var localSettings = []string{
	"dynamic_shared_memory_type=mmap", // in the data directory, and gone with it
	"unix_socket_permissions=0700",
}

// serve runs the cluster in dir until this process ends.
func (h host) serve(ctx context.Context, dir string, lock *os.File) (*Server, error) {
	password, err := os.ReadFile(filepath.Join(dir, dataName, passwordName))
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	sockets := dir
	// Both the server's setting and the URL are lists, divided by commas.
	if len(filepath.Join(dir, ".s.PGSQL.65535")) > maxSocketPath || strings.Contains(dir, ",") {
		sockets = ""
	}
	args := []string{
		filepath.Join(h.bin, "postgres"), "-D", dataName, "-p", strconv.Itoa(port),
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=" + sockets,
	}
	for _, s := range slices.Concat(Settings, localSettings, h.more) {
		args = append(args, "-c", s)
	}
	pidFile := filepath.Join(dir, dataName, "postmaster.pid")
	lifeline, err := h.run(ctx, dir, lock, args, func() bool { return isReady(pidFile) })
	if err != nil {
		return nil, err
	}
	return &Server{URL: serverURL(string(password), sockets, port), Provider: h.bin, Private: true, lifeline: lifeline, pidFile: pidFile}, nil
}

// run has the watcher run a server in dir, and returns when ready reports that
// the server accepts connections. The server ends when the file that it returns
// is closed.
func (h host) run(ctx context.Context, dir string, lock *os.File, args []string, ready func() bool) (*os.File, error) {
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	stdin, lifeline, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer stdin.Close()
	alive, server, err := os.Pipe()
	if err != nil {
		lifeline.Close()
		return nil, err
	}
	defer alive.Close()

	// A context that never ends, as no goroutine shall wait for it.
	watcher := h.command(context.Background(), dir, "/bin/sh", append([]string{"-c", watch, dir}, args...)...)
	watcher.Stdin, watcher.Stderr = stdin, log
	watcher.ExtraFiles = []*os.File{server, lock}
	err = watcher.Start()
	server.Close()
	if err != nil {
		lifeline.Close()
		return nil, err
	}
	if err := await(ctx, alive, ready); err != nil {
		text, _ := os.ReadFile(log.Name()) // empty is as good
		lifeline.Close()
		watcher.Wait() // its status is that of rm
		return nil, fmt.Errorf("run %s: %w: %s", filepath.Base(args[0]), err, bytes.TrimSpace(text))
	}
	return lifeline, nil
}

// await returns when the server is ready, or with an error when its end of the
// pipe is closed, as it is gone.
func await(ctx context.Context, alive *os.File, ready func() bool) error {
	for {
		if err := alive.SetReadDeadline(time.Now().Add(5 * time.Millisecond)); err != nil {
			return err
		}
		if _, err := alive.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			return errors.New("server ended")
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if ready() {
			return nil
		}
	}
}

// isReady reports whether PostgreSQL has written that it accepts connections, as
// pg_ctl reads it.
//
// https://github.com/postgres/postgres/blob/master/src/include/utils/pidfile.h
func isReady(pidFile string) bool {
	state, _ := os.ReadFile(pidFile) // not there at first
	lines := bytes.Split(state, []byte("\n"))
	return len(lines) >= 8 && string(bytes.TrimSpace(lines[7])) == "ready"
}

// freePort returns a TCP port that is free at this moment.
func freePort() (int, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// serverURL is the URL of the server that listens at port, on a socket in the
// folder sockets unless that is empty.
func serverURL(password, sockets string, port int) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword("postgres", password), Path: "/postgres"}
	q := url.Values{"sslmode": {"disable"}}
	if sockets == "" {
		u.Host = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	} else {
		q.Set("host", sockets)
		q.Set("port", strconv.Itoa(port))
	}
	u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20") // as libpq and pgx read a space
	return u.String()
}

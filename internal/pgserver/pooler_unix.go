//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package pgserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// poolerPlaces are where PgBouncer is, beside PATH: Debian's and Homebrew's are
// not on every user's.
var poolerPlaces = []string{"/usr/sbin", "/usr/local/bin", "/opt/homebrew/bin"}

// localPooler starts a PgBouncer before the server that a URL leads to. It
// returns none where the program is missing.
func localPooler(ctx context.Context, server string) (*Server, []Passed, error) {
	program, passed := findPooler(poolerPlaces)
	if program == "" {
		return nil, passed, nil
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	h := host{parents: append(memoryDirs(), os.TempDir(), "/tmp"), cred: account()}
	s, err := h.startPooler(ctx, program, server)
	if err != nil {
		return nil, nil, fmt.Errorf("start PgBouncer: %w", err)
	}
	return s, passed, nil
}

// findPooler returns the program, empty where neither PATH nor the places have
// it, and where it is not.
func findPooler(places []string) (string, []Passed) {
	if program, err := exec.LookPath("pgbouncer"); err == nil {
		if program, err = filepath.Abs(program); err == nil {
			return program, nil
		}
	}
	passed := []Passed{{"PATH", "no pgbouncer"}}
	for _, dir := range places {
		program, err := exec.LookPath(filepath.Join(dir, "pgbouncer"))
		if err == nil {
			return program, passed
		}
		passed = append(passed, Passed{dir, "no pgbouncer"})
	}
	return "", passed
}

// startPooler starts program in a directory of its own.
func (h host) startPooler(ctx context.Context, program, server string) (*Server, error) {
	to, err := readUpstream(server)
	if err != nil {
		return nil, err
	}
	dir, lock, err := h.makeDir()
	if err != nil {
		return nil, err
	}
	defer lock.Close() // the watcher has it from here on
	s, err := h.servePooler(ctx, dir, lock, program, to)
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return s, nil
}

// servePooler runs program until this process ends.
func (h host) servePooler(ctx context.Context, dir string, lock *os.File, program string, to *upstream) (*Server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	users, config := filepath.Join(dir, "users"), filepath.Join(dir, "pgbouncer.ini")
	err = errors.Join(h.write(users, to.users()), h.write(config, to.config(port)))
	if err != nil {
		return nil, err
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	lifeline, err := h.run(ctx, dir, lock, []string{program, config}, func() bool {
		conn, err := net.Dial("tcp4", address)
		if err != nil {
			return false
		}
		conn.Close()
		return true
	})
	if err != nil {
		return nil, err
	}
	return &Server{URL: to.through(address), Provider: program, lifeline: lifeline}, nil
}

// write makes a file that the server's account reads, and nobody else.
func (h host) write(path, text string) error {
	return errors.Join(os.WriteFile(path, []byte(text), 0o600), h.give(path))
}

// upstream is the server behind a pooler.
type upstream struct {
	url                             *url.URL
	host, port, user, pass, tlsMode string
}

// readUpstream reads the URL of a server that has one host.
func readUpstream(raw string) (*upstream, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, errors.New("the URL of the server is not valid") // the cause would quote the password
	}
	q := u.Query()
	password, _ := u.User.Password()
	to := &upstream{
		url:     u,
		host:    cmp.Or(q.Get("host"), u.Hostname(), "127.0.0.1"),
		port:    cmp.Or(q.Get("port"), u.Port(), "5432"),
		user:    cmp.Or(q.Get("user"), u.User.Username(), "postgres"),
		pass:    cmp.Or(q.Get("password"), password),
		tlsMode: cmp.Or(q.Get("sslmode"), "prefer"),
	}
	for _, value := range []string{to.host, to.port, to.user, to.pass, to.tlsMode} {
		if strings.ContainsAny(value, "\r\n\x00") {
			return nil, errors.New("the URL of the server has a line break in it")
		}
	}
	return to, nil
}

// config is the configuration of a pooler that listens at port.
//
// https://www.pgbouncer.org/config.html
func (to *upstream) config(port int) string {
	quote := func(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
	return strings.Join([]string{
		"[databases]",
		"* = host=" + quote(to.host) + " port=" + quote(to.port),
		"[pgbouncer]",
		"pool_mode = transaction",
		"listen_addr = 127.0.0.1",
		"listen_port = " + strconv.Itoa(port),
		"unix_socket_dir =",
		"auth_type = trust",
		"auth_file = users",
		"server_tls_sslmode = " + to.tlsMode,
		"default_pool_size = 20",
		"max_client_conn = 500",
		"application_name_add_host = 1",
		"server_idle_timeout = 10", // tests that have ended need no connections
		"log_connections = 0",
		"log_disconnections = 0",
		"log_stats = 0",
		"",
	}, "\n")
}

// users is the file of those who may connect, and of their passwords for the
// server.
func (to *upstream) users() string {
	quote := func(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }
	return quote(to.user) + " " + quote(to.pass) + "\n"
}

// through is the URL of the same database through a pooler at address.
func (to *upstream) through(address string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(to.user, to.pass), Host: address, Path: to.url.Path}
	u.RawQuery = "sslmode=disable"
	return u.String()
}

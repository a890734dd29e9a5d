package dockerpg

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/ory/dockertest/v3/docker"

	"github.com/tholedb/thole/internal/pgserver"
)

const (
	// lock is an advisory lock in the database postgres. All leases share it;
	// the watcher takes it for itself before it ends the server.
	lock = 8_465_108_101

	passwordEnv = "POSTGRES_PASSWORD="
)

// join returns a lease on the server in a container that runs, as soon as two
// connections in succession are served on its port: an image may run a server
// for its first start before.
func (s *starter) join(ctx context.Context, c *docker.Container) (*pgserver.Server, error) {
	address, err := s.url(c)
	if err != nil {
		return nil, notYetError{err}
	}
	first, err := ask(ctx, address, "select true")
	if err != nil {
		return nil, notYetError{err}
	}
	first.Close(ctx)
	lease, err := ask(ctx, address, fmt.Sprintf("select pg_try_advisory_lock_shared(%d)", lock))
	if err != nil {
		return nil, notYetError{err}
	}
	held, err := lease.Hijack()
	if err != nil {
		return nil, fmt.Errorf("keep connection: %w", err)
	}
	return &pgserver.Server{URL: address, Provider: "Docker, " + s.image, Lease: held.Conn}, nil
}

// ask returns a new connection to the server, which has answered true.
func ask(ctx context.Context, address, query string) (*pgconn.PgConn, error) {
	conn, err := pgconn.Connect(ctx, address)
	if err != nil {
		return nil, err
	}
	results, err := conn.Exec(ctx, query).ReadAll()
	if err == nil && string(results[0].Rows[0][0]) != "t" {
		err = errors.New("the server is about to end, as nobody used it")
	}
	if err != nil {
		conn.Close(ctx)
		return nil, err
	}
	return conn, nil
}

// url is where the engine has put the server of a container.
func (s *starter) url(c *docker.Container) (string, error) {
	bindings := c.NetworkSettings.Ports[port]
	if len(bindings) == 0 {
		return "", errors.New("the container has no port yet")
	}
	var password string
	for _, env := range c.Config.Env {
		if value, ok := strings.CutPrefix(env, passwordEnv); ok {
			password = value
		}
	}
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword("postgres", password),
		Host: net.JoinHostPort(s.host, bindings[0].HostPort),
		Path: "/postgres", RawQuery: "sslmode=disable",
	}
	return u.String(), nil
}

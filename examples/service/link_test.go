package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync/atomic"

	"github.com/tholedb/thole"
)

// link stands between a pool of PostgreSQL connections and the network. Of one
// COMMIT in so many as loses says it loses the answer, with the connection: it
// took effect, and the service can't know.
type link struct {
	loses         int64
	commits, lost atomic.Int64
}

type linkConn struct {
	net.Conn
	link   *link
	losing atomic.Bool
}

// stand puts the link between, where there is a network.
func (l *link) stand(cfg *thole.Config) {
	if cfg.Postgres == nil {
		return
	}
	dial := cfg.Postgres.ConnConfig.DialFunc
	cfg.Postgres.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &linkConn{Conn: conn, link: l}, nil
	}
}

// Write notes which answer gets lost.
func (c *linkConn) Write(data []byte) (int, error) {
	if bytes.Contains(data, []byte("commit\x00")) && c.link.commits.Add(1)%c.link.loses == 0 {
		c.losing.Store(true)
	}
	return c.Conn.Write(data)
}

// Read loses it when it has come.
func (c *linkConn) Read(data []byte) (int, error) {
	n, err := c.Conn.Read(data)
	if err == nil && c.losing.Load() {
		c.link.lost.Add(1)
		_ = c.Conn.Close()
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}

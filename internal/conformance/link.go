package conformance

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/tholedb/thole"
)

// link stands between a pool of PostgreSQL connections and the network, and
// makes go wrong what goes wrong there. What it is told holds for the
// connections that exist; those that are made later are sound.
type link struct {
	mu    sync.Mutex
	conns []*linkConn
	log   []packet
	eats  string // what new connections eat
}

// packet is what was written or read at once.
type packet struct {
	sent bool
	data string
}

// linkConn is a connection. Its fields are guarded by the link's mu.
type linkConn struct {
	net.Conn
	link *link

	cancels bool // is a cancel request
	frozen  bool
	eats    string // what is answered to a text with this in it gets lost, with the connection
	eating  bool
	old     string // is replaced in what is read
	new     string
}

// link reopens a PostgreSQL database over a link.
func (w *world) link(t *testing.T, change ...func(*thole.Config)) (*world, *link) {
	t.Helper()
	l := new(link)
	on := w.reopen(t, append(change, l.stand)...)
	t.Cleanup(l.cut) // closing the pool would wait for a frozen server
	return on, l
}

// stand puts the link between.
func (l *link) stand(cfg *thole.Config) {
	dial := cfg.Postgres.ConnConfig.DialFunc
	cfg.Postgres.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		linked := &linkConn{Conn: conn, link: l, eats: l.eats}
		l.conns = append(l.conns, linked)
		return linked, nil
	}
}

// standIfAny puts the link between where there is something to stand between.
func (l *link) standIfAny(cfg *thole.Config) {
	if cfg.Postgres != nil {
		l.stand(cfg)
	}
}

// each changes every connection that exists.
func (l *link) each(change func(*linkConn)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range l.conns {
		change(conn)
	}
}

// cut breaks the connections. Cancel requests that are under way are left alone:
// PgBouncer 1.18 ends when one is broken off
// (https://github.com/pgbouncer/pgbouncer/pull/846).
func (l *link) cut() {
	l.each(func(c *linkConn) {
		if !c.cancels {
			_ = c.Conn.Close()
		}
	})
}

// freeze makes the server unreachable: what is written gets lost, and nothing
// comes back.
func (l *link) freeze() { l.each(func(c *linkConn) { c.frozen = true }) }

// eat breaks the connection when the answer to text has come, and loses it.
func (l *link) eat(text string) { l.each(func(c *linkConn) { c.eats = text }) }

// eatLater does so on new connections too.
func (l *link) eatLater(text string) {
	l.eat(text)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.eats = text
}

// forge replaces old in what the server answers.
func (l *link) forge(old, replacement string) {
	l.each(func(c *linkConn) { c.old, c.new = old, replacement })
}

// mark is the present end of the log.
func (l *link) mark() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.log)
}

// since is what went to and fro since mark: "> select 1 < …".
func (l *link) since(mark int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	for _, p := range l.log[mark:] {
		if p.sent {
			b.WriteString(" > " + p.data)
		} else {
			b.WriteString(" < " + p.data)
		}
	}
	return b.String()
}

// cancelRequest is how a connection for a cancel request begins: its length and
// its code.
//
// https://www.postgresql.org/docs/current/protocol-message-formats.html (CancelRequest)
var cancelRequest = []byte{0, 0, 0, 16, 4, 210, 22, 46}

// Write sends, unless the server can't be reached.
func (c *linkConn) Write(data []byte) (int, error) {
	if !c.sending(data) {
		return len(data), nil
	}
	return c.Conn.Write(data)
}

func (c *linkConn) sending(data []byte) bool {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	c.link.log = append(c.link.log, packet{true, string(data)})
	c.cancels = c.cancels || bytes.HasPrefix(data, cancelRequest)
	c.eating = c.eating || c.eats != "" && bytes.Contains(data, []byte(c.eats))
	return !c.frozen
}

// Read receives what the link lets through.
func (c *linkConn) Read(data []byte) (int, error) {
	n, err := c.Conn.Read(data)
	if err != nil {
		return n, err
	}
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	if c.eating {
		_ = c.Conn.Close()
		return 0, io.ErrUnexpectedEOF
	}
	if c.old != "" {
		n = copy(data, strings.Replace(string(data[:n]), c.old, c.new, 1))
	}
	c.link.log = append(c.link.log, packet{false, string(data[:n])})
	return n, nil
}

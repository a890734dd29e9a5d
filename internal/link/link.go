// Package link stands between a pool of PostgreSQL connections and the network,
// for tests of what goes wrong there: it loses, delays and changes what goes to
// and fro at a message that is chosen by a text in it.
package link

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Link is what a pool's connections go through. Its zero value is sound. What it
// is told holds for the connections that exist; those that are made later are
// sound, but for [Link.EatLater].
type Link struct {
	mu    sync.Mutex
	conns []*conn
	log   []packet
	eats  string // what new connections eat
}

// packet is what was written or read at once.
type packet struct {
	sent bool
	data string
}

// conn is a connection. Its fields are guarded by the link's mu.
type conn struct {
	net.Conn
	link *Link

	cancels  bool // is a cancel request
	frozen   bool
	eats     string // what is answered to a text with this in it gets lost, with the connection
	eating   bool
	old      string // is replaced in what is read
	new      string
	slow     string // what is answered to a text with this in it comes late
	late     time.Duration
	delaying bool
}

// Stand puts the link between the pool that is made of cfg and its server.
func (l *Link) Stand(cfg *pgxpool.Config) {
	dial := cfg.ConnConfig.DialFunc
	cfg.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		dialled, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		linked := &conn{Conn: dialled, link: l, eats: l.eats}
		l.conns = append(l.conns, linked)
		return linked, nil
	}
}

// each changes every connection that exists.
func (l *Link) each(change func(*conn)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, linked := range l.conns {
		change(linked)
	}
}

// Cut breaks the connections. Cancel requests that are under way are left alone:
// PgBouncer 1.18 ends when one is broken off
// (https://github.com/pgbouncer/pgbouncer/pull/846).
func (l *Link) Cut() {
	l.each(func(c *conn) {
		if !c.cancels {
			_ = c.Conn.Close()
		}
	})
}

// Freeze makes the server unreachable: what is written gets lost, and nothing
// comes back.
func (l *Link) Freeze() { l.each(func(c *conn) { c.frozen = true }) }

// Eat breaks the connection when the answer to text has come, and loses it.
func (l *Link) Eat(text string) { l.each(func(c *conn) { c.eats = text }) }

// EatLater does so on new connections too.
func (l *Link) EatLater(text string) {
	l.Eat(text)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.eats = text
}

// Delay keeps back what is answered to text for a time, once.
func (l *Link) Delay(text string, late time.Duration) {
	l.each(func(c *conn) { c.slow, c.late = text, late })
}

// Forge replaces old in what the server answers.
func (l *Link) Forge(old, replacement string) {
	l.each(func(c *conn) { c.old, c.new = old, replacement })
}

// Mark is the present end of the log.
func (l *Link) Mark() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.log)
}

// Since is what went to and fro since mark: "> select 1 < …".
func (l *Link) Since(mark int) string {
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
func (c *conn) Write(data []byte) (int, error) {
	if !c.sending(data) {
		return len(data), nil
	}
	return c.Conn.Write(data)
}

func (c *conn) sending(data []byte) bool {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	c.link.log = append(c.link.log, packet{true, string(data)})
	c.cancels = c.cancels || bytes.HasPrefix(data, cancelRequest)
	c.eating = c.eating || c.eats != "" && bytes.Contains(data, []byte(c.eats))
	c.delaying = c.delaying || c.slow != "" && bytes.Contains(data, []byte(c.slow))
	return !c.frozen
}

// delay is how long the answer is kept back.
func (c *conn) delay() time.Duration {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	if !c.delaying {
		return 0
	}
	c.slow, c.delaying = "", false
	return c.late
}

// Read receives what the link lets through.
func (c *conn) Read(data []byte) (int, error) {
	n, err := c.Conn.Read(data)
	if err != nil {
		return n, err
	}
	time.Sleep(c.delay())
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

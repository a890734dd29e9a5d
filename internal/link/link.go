// Package link stands between PostgreSQL's clients and their server, for tests
// of what goes wrong on the way and of how often anything goes there. It reads
// the messages of both sides: it counts round trips, ends connections at any
// message, and loses, delays and changes what it is told to.
//
// It is a proxy on the loopback interface, so that the client sees a real end of
// its connection. What it can't read it refuses: TLS.
package link

import (
	"context"
	"errors"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Link is what clients' connections go through. Its zero value is sound. What it
// is told by [Link.Freeze], [Link.Eat], [Link.Delay] and [Link.Forge] holds for
// the connections that exist; those that are made later are sound.
type Link struct {
	mu      sync.Mutex
	conns   map[*conn]bool // that are open
	made    int            // how many there were
	eats    string         // what new connections eat
	judge   func(Message) Fate
	latency [2]time.Duration // to the client, and to the server
	logs    bool
	log     []entry
	dealt   sync.Cond // something was dealt with, or a connection has ended
}

// entry is a message in the log.
type entry struct {
	Message
	answers bool   // is the first that the server said to what was sent
	arrives string // what does not quite
}

// Stand puts the link between the pool that is made of cfg and its server.
func (l *Link) Stand(cfg *pgxpool.Config) {
	dial := cfg.ConnConfig.DialFunc
	cfg.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		server, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		client, ours, err := pair(ctx)
		if err != nil {
			_ = server.Close()
			return nil, err
		}
		return &end{client, l.join(ours, server)}, nil
	}
}

// pair makes a connection of this process with itself.
func pair(ctx context.Context) (client net.Conn, ours *net.TCPConn, err error) {
	listener, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = listener.Close() }()
	client, err = new(net.Dialer).DialContext(ctx, "tcp4", listener.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	if ours, err = listener.AcceptTCP(); err != nil {
		_ = client.Close()
		return nil, nil, err
	}
	return client, ours, nil
}

// end is the client's end of a connection.
type end struct {
	net.Conn
	conn *conn
}

// RemoteAddr is the server's address, to which pgx sends cancel requests.
func (e *end) RemoteAddr() net.Addr { return e.conn.server.RemoteAddr() }

// Write tells the link what to expect.
func (e *end) Write(data []byte) (int, error) {
	e.conn.expect(len(data))
	n, err := e.Conn.Write(data)
	if err != nil {
		e.conn.expectNothing()
	}
	return n, err
}

// Listen puts the link between a server and any client that connects to the URL
// which it returns, until ctx is done. The connections end with their clients.
func (l *Link) Listen(ctx context.Context, server string) (string, error) {
	cfg, err := pgconn.ParseConfig(server)
	if err != nil {
		return "", err
	}
	u, err := url.Parse(server)
	if err != nil {
		return "", errors.New("the URL of the server is not valid") // the cause would quote the password
	}
	listener, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return "", err
	}
	context.AfterFunc(ctx, func() { _ = listener.Close() })
	network, addr := pgconn.NetworkAddress(cfg.Host, cfg.Port)
	go l.accept(ctx, listener, network, addr)
	query := u.Query()
	query.Del("host")
	query.Del("port")
	query.Set("sslmode", "disable")
	u.Host, u.RawQuery = listener.Addr().String(), query.Encode()
	return u.String(), nil
}

func (l *Link) accept(ctx context.Context, listener *net.TCPListener, network, addr string) {
	for {
		client, err := listener.AcceptTCP()
		if err != nil {
			return // it is closed
		}
		server, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err != nil {
			_ = client.Close()
			continue
		}
		l.join(client, server)
	}
}

// join makes two connections one.
func (l *Link) join(client *net.TCPConn, server net.Conn) *conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns == nil {
		l.conns = make(map[*conn]bool)
		l.dealt.L = &l.mu
	}
	l.made++
	c := newConn(l, client, server)
	c.number, c.eats = l.made, l.eats
	l.conns[c] = true
	c.start()
	return c
}

// each changes every connection that exists.
func (l *Link) each(change func(*conn)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		change(c)
	}
}

// Cut ends the connections. Cancel requests that are under way are left alone:
// PgBouncer 1.18 ends when one is broken off
// (https://github.com/pgbouncer/pgbouncer/pull/846).
func (l *Link) Cut() {
	var cut []*conn
	l.each(func(c *conn) {
		if !c.cancels {
			cut = append(cut, c)
		}
	})
	for _, c := range cut {
		c.close(false)
	}
}

// Freeze makes the server unreachable: what is sent gets lost, and nothing comes
// back.
func (l *Link) Freeze() { l.each(func(c *conn) { c.frozen = true }) }

// Eat loses the answer to the execution of a statement with this text in it, and
// ends the connection when the server has given it.
func (l *Link) Eat(text string) { l.each(func(c *conn) { c.eats = text }) }

// EatLater does so on new connections too.
func (l *Link) EatLater(text string) {
	l.Eat(text)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.eats = text
}

// Delay keeps back what is answered to the execution of a statement with this
// text in it for a time, once.
func (l *Link) Delay(text string, late time.Duration) {
	l.each(func(c *conn) { c.slow, c.late = text, late })
}

// Forge replaces old in the messages of the server.
func (l *Link) Forge(old, replacement string) {
	l.each(func(c *conn) { c.old, c.new = old, replacement })
}

// Latency keeps back every message for a time that depends on its direction. It
// limits no throughput: messages are under way at the same time.
func (l *Link) Latency(sent, answered time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.latency = [2]time.Duration{answered, sent}
}

// Fate is what becomes of a message. The zero value is that it arrives.
type Fate struct {
	Ends  Place // where the connection ends
	Reset bool  // by RST, as when a machine has lost its memory; else by FIN
}

// Place is a place at a message.
type Place uint8

// The places.
const (
	Nowhere Place = iota
	Before        // the message is lost
	Inside        // the half of it arrives
	After         // it arrives
)

// Judge has a function decide what becomes of each message, before it arrives.
// Cancel requests are left alone, as by [Link.Cut]. The function is called by one
// goroutine at a time, and calls no methods of the link. With nil all messages
// arrive.
func (l *Link) Judge(judge func(Message) Fate) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.judge = judge
}

// settle waits until all that clients of this process have written has passed
// the link, as what they have read has.
func (l *Link) settle() {
	for c := range l.conns {
		for c.expected > c.dealt && l.conns[c] {
			l.dealt.Wait()
		}
	}
}

// Mark is the present end of the log, which begins with the first mark.
func (l *Link) Mark() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settle()
	l.logs = true
	return len(l.log)
}

// since is the log since mark.
func (l *Link) since(mark int) []entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settle()
	return l.log[mark:len(l.log):len(l.log)]
}

// RoundTrips is how often since mark the server has answered a client that had
// sent something since the last answer. Two sends without an answer between them
// are one. What makes a connection is not counted, nor are cancel requests, nor
// what the server says without being asked.
func (l *Link) RoundTrips(mark int) int {
	n := 0
	for _, e := range l.since(mark) {
		if e.answers {
			n++
		}
	}
	return n
}

// Executed are the texts of the statements that clients have executed since
// mark, by the simple protocol and by the extended one.
func (l *Link) Executed(mark int) []string {
	var texts []string
	for _, e := range l.since(mark) {
		if e.executes() {
			texts = append(texts, e.Text)
		}
	}
	return texts
}

// Since lists the messages since mark, a line for all that went one way on a
// connection: "1> P begin, B, E begin, S".
func (l *Link) Since(mark int) string {
	var b strings.Builder
	var last Message
	for _, e := range l.since(mark) {
		if e.Conn == last.Conn && e.Sent == last.Sent {
			b.WriteString(", ")
		} else {
			b.WriteString("\n" + e.direction())
		}
		b.WriteString(e.String() + e.arrives)
		last = e.Message
	}
	return strings.TrimPrefix(b.String(), "\n")
}

package link

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// underWay is how many messages may be at once, each way.
const underWay = 1024

// conn is a connection from a client to its server.
type conn struct {
	link   *Link
	number int
	client *net.TCPConn
	server net.Conn
	texts  texts // the client's
	closes sync.Once
	closed chan struct{}

	// What follows is guarded by the link's mu.

	expected, dealt int  // bytes that the client has written, if it tells, and that were dealt with
	cancels         bool // is a cancel request
	greeted         bool // the server was ready once
	asked           bool // something was sent that is not answered
	syncs, ready    int  // how often the server was asked to say that it is ready, and has said so

	frozen   bool
	eats     string // the answer to the execution of a text with this in it gets lost
	eatUntil int    // the server was ready so often; 0 when nothing is eaten
	old, new string // in what is answered
	slow     string // what is answered to the execution of a text with this in it comes late
	late     time.Duration
	delaying bool
}

// parcel is a message under way.
type parcel struct {
	Message
	data []byte
	due  time.Time
}

func newConn(l *Link, client *net.TCPConn, server net.Conn) *conn {
	return &conn{link: l, client: client, server: server, texts: newTexts(), closed: make(chan struct{})}
}

// start has four goroutines carry messages until the connection ends.
func (c *conn) start() {
	sent, answered := make(chan *parcel, underWay), make(chan *parcel, underWay)
	go c.receive(c.client, sent, c.receiveSent)
	go c.receive(c.server, answered, c.receiveAnswers)
	go c.deliver(sent, c.server)
	go c.deliver(answered, c.client)
}

// close ends the connection on both sides.
func (c *conn) close(reset bool) {
	c.closes.Do(func() {
		if reset {
			_ = c.client.SetLinger(0) // fails only on a connection that is closed
		}
		_ = c.client.Close()
		_ = c.server.Close()
		close(c.closed)
		c.link.mu.Lock()
		defer c.link.mu.Unlock()
		delete(c.link.conns, c)
		c.link.dealt.Broadcast()
	})
}

// expect notes what a client writes.
func (c *conn) expect(n int) {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	c.expected += n
}

// expectNothing is for a client whose connection has failed.
func (c *conn) expectNothing() {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	c.expected = 0
	c.link.dealt.Broadcast()
}

// receive reads until the connection ends.
func (c *conn) receive(from io.Reader, to chan<- *parcel, read func(*bufio.Reader, chan<- *parcel)) {
	defer close(to)
	read(bufio.NewReader(from), to)
}

// receiveSent reads what the client sends.
func (c *conn) receiveSent(from *bufio.Reader, to chan<- *parcel) {
	if !c.receiveStart(from, to) {
		return
	}
	for {
		data, err := readMessage(from)
		if err != nil {
			return
		}
		if !c.pass(c.accept(data, Message{Type: data[0], Text: c.texts.sent(data[0], data[5:])}), to) {
			return
		}
	}
}

// receiveStart reads the first packet, and refuses TLS before it. It reports
// whether messages follow.
func (c *conn) receiveStart(from *bufio.Reader, to chan<- *parcel) bool {
	for {
		data, code, err := readPacket(from)
		if err != nil {
			return false
		}
		switch code {
		case tlsCode, gssCode:
			c.deal(len(data))
			if _, err := c.client.Write([]byte{'N'}); err != nil {
				return false
			}
		case cancelCode:
			c.cancel()
			c.pass(&parcel{data: data}, to)
			_, _ = from.Peek(1) // the server ends the connection when it is done
			return false
		default:
			return c.pass(c.accept(data, Message{}), to)
		}
	}
}

// cancel notes that this is a cancel request.
func (c *conn) cancel() {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	c.cancels, c.expected = true, 0
	c.link.dealt.Broadcast()
}

// deal notes that bytes of the client's were dealt with.
func (c *conn) deal(n int) {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	c.dealt += n
	c.link.dealt.Broadcast()
}

// accept notes what the client has sent.
func (c *conn) accept(data []byte, m Message) *parcel {
	l := c.link
	l.mu.Lock()
	defer l.mu.Unlock()
	m.Conn, m.Sent = c.number, true
	c.asked = c.asked || m.asks()
	if m.executes() {
		c.execute(m)
	}
	if m.syncs() {
		c.syncs++
	}
	return &parcel{Message: m, data: data, due: time.Now().Add(l.latency[1])}
}

// execute notes what is to become of the answer.
func (c *conn) execute(m Message) {
	if c.eats != "" && c.eatUntil == 0 && strings.Contains(m.Text, c.eats) {
		c.eatUntil = c.syncs + 1 // its own, or the one that follows
	}
	if c.slow != "" && strings.Contains(m.Text, c.slow) {
		c.slow, c.delaying = "", true
	}
}

// receiveAnswers reads what the server sends.
func (c *conn) receiveAnswers(from *bufio.Reader, to chan<- *parcel) {
	for {
		data, err := readMessage(from)
		if err != nil || !c.pass(c.answer(data), to) {
			return
		}
	}
}

// answer notes what the server has said.
func (c *conn) answer(data []byte) *parcel {
	l := c.link
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.old != "" {
		data = bytes.Replace(data, []byte(c.old), []byte(c.new), 1)
	}
	p := &parcel{data: data, due: time.Now().Add(l.latency[0])}
	p.Message = Message{Conn: c.number, Type: data[0], Text: answered(data[0], data[5:])}
	if c.delaying {
		p.due, c.delaying = p.due.Add(c.late), false
	}
	return p
}

// pass puts a message on its way. It reports whether the connection stands.
func (c *conn) pass(p *parcel, to chan<- *parcel) bool {
	select {
	case to <- p:
		return true
	case <-c.closed:
		return false
	}
}

// deliver writes messages when they are due, until there are no more, and then
// ends the connection.
func (c *conn) deliver(from <-chan *parcel, to io.Writer) {
	defer c.close(false)
	w := bufio.NewWriter(to)
	for {
		p := c.next(from, w)
		if p == nil {
			return
		}
		fate, lost := c.decide(p)
		if !lost {
			_, _ = w.Write(part(p.data, fate.Ends)) // an error is that of the next Flush
		}
		if fate.Ends != Nowhere {
			_ = w.Flush()
			c.close(fate.Reset)
			return
		}
	}
}

// next waits for a message that is due. Before it waits, and when there are no
// more, it flushes what was written.
func (c *conn) next(from <-chan *parcel, w *bufio.Writer) *parcel {
	var p *parcel
	select {
	case p = <-from:
	default:
		if w.Flush() != nil {
			return nil
		}
		p = <-from
	}
	if p == nil {
		_ = w.Flush()
		return nil
	}
	wait := time.Until(p.due)
	if wait <= 0 {
		return p
	}
	if w.Flush() != nil {
		return nil
	}
	select {
	case <-time.After(wait):
		return p
	case <-c.closed:
		return nil
	}
}

// part is what arrives of a message.
func part(data []byte, ends Place) []byte {
	switch ends {
	case Before:
		return nil
	case Inside:
		return data[:len(data)/2]
	default:
		return data
	}
}

// decide decides what becomes of a message that is due, and writes it down.
func (c *conn) decide(p *parcel) (fate Fate, lost bool) {
	l := c.link
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.cancels {
		return Fate{}, false
	}
	ready := !p.Sent && p.Type == 'Z'
	if ready {
		c.ready++
	}
	p.Greeting = !c.greeted
	switch {
	case c.frozen:
		lost = true
	case !p.Sent && c.eatUntil > 0:
		lost = true
		if ready && c.ready >= c.eatUntil {
			fate.Ends = Before
		}
	case l.judge != nil:
		fate = l.judge(p.Message)
		lost = fate.Ends == Before
	}
	c.note(p, fate, lost)
	c.greeted = c.greeted || ready
	if p.Sent {
		c.dealt += len(p.data)
		l.dealt.Broadcast()
	}
	return fate, lost
}

// note counts a message, and logs it.
func (c *conn) note(p *parcel, fate Fate, lost bool) {
	e := entry{Message: p.Message}
	switch {
	case lost:
		e.arrives = " (lost)"
	case fate.Ends == Inside:
		e.arrives = " (half)"
	case !p.Sent:
		e.answers = c.asked && c.greeted
		c.asked = false
	}
	if c.link.logs {
		c.link.log = append(c.link.log, e)
	}
}

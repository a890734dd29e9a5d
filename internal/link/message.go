package link

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// Message is a message between a client and its server.
//
// https://www.postgresql.org/docs/current/protocol-message-formats.html
type Message struct {
	Conn     int    // the number of the connection on its link, from 1
	Sent     bool   // by the client
	Greeting bool   // belongs to the making of the connection
	Type     byte   // 0 for the packet that begins a connection
	Text     string // the statement that is parsed or executed; of an answer the tag, the SQLSTATE or the status
}

// String is the type and the text: "E insert into t values ($1)".
func (m Message) String() string {
	if m.Type == 0 {
		return "startup"
	}
	return strings.TrimSpace(string(m.Type) + " " + m.Text)
}

// direction is how the line of a message begins.
func (m Message) direction() string {
	if m.Sent {
		return fmt.Sprintf("%d> ", m.Conn)
	}
	return fmt.Sprintf("%d< ", m.Conn)
}

// executes reports whether the message executes its text: a Query or an Execute.
func (m Message) executes() bool { return m.Sent && (m.Type == 'Q' || m.Type == 'E') }

// syncs reports whether the server will say that it is ready: for a Query, a
// Sync or a FunctionCall.
func (m Message) syncs() bool { return m.Sent && (m.Type == 'Q' || m.Type == 'S' || m.Type == 'F') }

// asks reports whether the client may wait for an answer: Terminate has none.
func (m Message) asks() bool { return m.Sent && m.Type != 'X' }

// The codes of the packets that begin a connection, where it is no version.
const (
	cancelCode = 80877102
	tlsCode    = 80877103
	gssCode    = 80877104
)

// readPacket reads what begins a connection, which has no type, and its code.
func readPacket(r *bufio.Reader) ([]byte, uint32, error) {
	data, err := readCounted(r, 0, 8)
	if err != nil {
		return nil, 0, err
	}
	return data, binary.BigEndian.Uint32(data[4:]), nil
}

// readMessage reads a message with its type.
func readMessage(r *bufio.Reader) ([]byte, error) { return readCounted(r, 1, 5) }

// readCounted reads what has its length, which counts itself, after so many
// bytes, and is at least so long.
func readCounted(r *bufio.Reader, before, least int) ([]byte, error) {
	head, err := r.Peek(before + 4)
	if err != nil {
		return nil, err
	}
	size := before + int(binary.BigEndian.Uint32(head[before:]))
	if size < least {
		return nil, fmt.Errorf("a message of %d bytes", size)
	}
	data := make([]byte, size)
	_, err = io.ReadFull(r, data)
	return data, err
}

// texts are what a client's statements and portals are, by their names.
type texts struct{ statements, portals map[string]string }

func newTexts() texts { return texts{make(map[string]string), make(map[string]string)} }

// sent is the text of a message of the client, after its type and length.
func (t texts) sent(kind byte, body []byte) string {
	first, rest := cString(body)
	second, _ := cString(rest)
	switch kind {
	case 'Q':
		return first
	case 'P':
		t.statements[first] = second
		return second
	case 'B':
		t.portals[first] = t.statements[second]
	case 'E':
		return t.portals[first]
	}
	return ""
}

// answered is the text of a message of the server.
func answered(kind byte, body []byte) string {
	switch kind {
	case 'C':
		tag, _ := cString(body)
		return tag
	case 'E', 'N':
		return sqlState(body)
	case 'Z':
		return string(body)
	default:
		return ""
	}
}

// sqlState is the field of an error that has its code.
func sqlState(fields []byte) string {
	for len(fields) > 1 {
		value, rest := cString(fields[1:])
		if fields[0] == 'C' {
			return value
		}
		fields = rest
	}
	return ""
}

// cString is the text before the first zero, and what comes after it.
func cString(data []byte) (text string, rest []byte) {
	before, rest, _ := bytes.Cut(data, []byte{0})
	return string(before), rest
}

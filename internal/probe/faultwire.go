package probe

import (
	"encoding/binary"
	"io"
	"net"
	"sync/atomic"
)

// wire is a connection to PostgreSQL that can be lost. Until then it does nothing of
// its own.
type wire struct {
	net.Conn
	losing atomic.Bool // the next reply
}

// Wire makes a connection one that faults can break.
func Wire(conn net.Conn) net.Conn { return &wire{Conn: conn} }

// loseReply has the connection break when the reply to what is sent next has come:
// the server has done that.
func (w *wire) loseReply() { w.losing.Store(true) }

// Read implements [net.Conn].
func (w *wire) Read(b []byte) (int, error) {
	if !w.losing.Load() {
		return w.Conn.Read(b)
	}
	err := w.skipReply()
	_ = w.Conn.Close() // it is lost anyway
	return 0, err
}

// skipReply reads a reply up to ReadyForQuery, with which each ends.
//
// https://www.postgresql.org/docs/current/protocol-message-formats.html
func (w *wire) skipReply() error {
	const readyForQuery, length = 'Z', 4
	var head [1 + length]byte
	for head[0] != readyForQuery {
		if _, err := io.ReadFull(w.Conn, head[:]); err != nil {
			return err
		}
		if _, err := io.CopyN(io.Discard, w.Conn, int64(binary.BigEndian.Uint32(head[1:]))-length); err != nil {
			return err
		}
	}
	return io.ErrUnexpectedEOF
}

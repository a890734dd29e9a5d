package sqlite

import (
	"container/list"
	"context"
	"slices"

	"github.com/tholedb/thole/internal/sqltext"
)

// Of the statements that a connection runs, as many stay prepared, and texts up to a length. SQLite prepares them anew
// by itself when the schema has changed, whoever changed it, https://sqlite.org/c3ref/prepare.html.
const (
	keptStatements = 200
	longestKept    = 16 << 10
)

// cache holds the prepared statements of one connection.
type cache struct {
	byText map[string]*list.Element
	recent list.List // of *stmt; the one to be run last is in front
}

// take returns the prepared statement of a text, if there is one that nobody uses.
func (c *cache) take(text string) *stmt {
	at := c.byText[text]
	if at == nil {
		return nil
	}
	s := at.Value.(*stmt)
	if s.lent {
		return nil // a statement has its rows open, or was given out as a prepared one
	}
	c.recent.MoveToFront(at)
	s.lent = true
	return s
}

// add keeps a statement that is lent, unless another of the same text is kept.
func (c *cache) add(s *stmt) {
	if c.byText[s.text] != nil {
		return
	}
	if c.byText == nil {
		c.byText = map[string]*list.Element{}
	}
	c.byText[s.text] = c.recent.PushFront(s)
	s.kept, s.lent = true, true
	for at := c.recent.Back(); at != nil && c.recent.Len() > keptStatements; {
		last := at
		at = at.Prev()
		if other := last.Value.(*stmt); !other.lent {
			c.forget(other)
			_ = other.raw.Close() // what it says, the statement has said
		}
	}
}

// forget takes a statement out.
func (c *cache) forget(s *stmt) {
	c.recent.Remove(c.byText[s.text])
	delete(c.byText, s.text)
	s.kept = false
}

// close ends the statements.
func (c *cache) close() {
	for at := c.recent.Front(); at != nil; at = at.Next() {
		_ = at.Value.(*stmt).raw.Close() // closing the connection tells
	}
	c.byText, c.recent = nil, list.List{}
}

// prepare prepares a text of the caller's that may run, or takes it as it was prepared before.
func (c *conn) prepare(ctx context.Context, text string, refused func(text string) error) (*stmt, error) {
	if s := c.statements.take(text); s != nil {
		return s, nil
	}
	if err := refused(text); err != nil {
		return nil, err
	}
	raw, err := c.raw.PrepareContext(ctx, text)
	if err != nil {
		c.note(err)
		return nil, explain(ctx, err)
	}
	s := newStmt(c, raw, text)
	if isKept(text) {
		c.statements.add(s)
	}
	return s, nil
}

// isKept reports whether a text is worth being kept, and can be: a PRAGMA may take effect as it is prepared.
func isKept(text string) bool {
	return len(text) <= longestKept && !sqltext.IsScript(sqltext.SQLite, text) &&
		slices.Contains([]string{"SELECT", "VALUES", "INSERT", "REPLACE", "UPDATE", "DELETE"}, verb(text))
}

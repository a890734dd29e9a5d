// Package history tells whether a history of concurrent sessions could have
// been: whether what is in the database is what the sessions were told, and
// whether they could have run one after the other. The sessions read lists and
// append to them, so that a list shows who wrote it in which order, and what was
// read shows who had written before: the method of Elle
// (https://github.com/jepsen-io/elle), for lists alone.
package history

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/tholedb/thole"
)

// Session is what a session did, and what it was told. Its tokens come from
// [Token] and [Undone].
type Session struct {
	ID      string
	Reads   []Read
	Appends []Append
	Outcome thole.Outcome

	// Trusted says of a session that failed that it was told so by its own
	// error, and by nothing that excuses what it has read.
	Trusted bool

	// Began and Ended are from one clock, or zero when there is none.
	Began, Ended int64
}

// Read is a list as it was read, the session's own tokens included.
type Read struct {
	List   int
	Tokens []string
}

// Append is a token that was put at the end of a list.
type Append struct {
	List  int
	Token string
}

// Token is the i-th of all tokens that the session with this id appends.
func Token(id string, i, of int) string { return fmt.Sprintf("%s#%d/%d", id, i, of) }

// Undone is a token that the session appends and takes back.
func Undone(id string) string { return id + undone }

const undone = "#undone"

// author is the session that a token is from.
func author(token string) string {
	id, _, _ := strings.Cut(token, "#")
	return id
}

// History is what sessions did to lists.
type History struct {
	Sessions []Session
	Lists    [][]string // as they are in the end

	// Partial says that there were other sessions, which end up whole or not
	// at all.
	Partial bool
}

// Anomalies are what can't have been.
func (h *History) Anomalies() []string {
	c := &checker{History: h, known: make(map[string]*Session), writers: make(map[string][]Append)}
	for i := range h.Sessions {
		c.known[h.Sessions[i].ID] = &h.Sessions[i]
	}
	c.checkLists()
	c.checkOutcomes()
	for i := range h.Sessions {
		c.checkReads(&h.Sessions[i])
	}
	c.checkOrder()
	return c.found
}

type checker struct {
	*History
	known   map[string]*Session
	writers map[string][]Append // what is in the lists, by session
	found   []string
}

func (c *checker) report(format string, args ...any) {
	c.found = append(c.found, fmt.Sprintf(format, args...))
}

// checkLists finds what is there twice, and what nobody has written, or meant to
// stay.
func (c *checker) checkLists() {
	seen := make(map[string]bool)
	for list, tokens := range c.Lists {
		for _, token := range tokens {
			id := author(token)
			c.writers[id] = append(c.writers[id], Append{list, token})
			switch {
			case seen[token]:
				c.report("duplicate: %s is in the lists twice", token)
			case strings.HasSuffix(token, undone):
				c.report("not undone: %s is in list %d", token, list)
			case c.known[id] == nil && !c.Partial:
				c.report("stranger: %s is in list %d", token, list)
			}
			seen[token] = true
		}
	}
}

// checkOutcomes compares what sessions were told with what is there.
func (c *checker) checkOutcomes() {
	for i := range c.Sessions {
		s := &c.Sessions[i]
		there := c.writers[s.ID]
		switch s.Outcome {
		case thole.Committed:
			for _, a := range s.Appends {
				if !slices.Contains(there, a) {
					c.report("lost: %s was committed, and %s is not in list %d", s.ID, a.Token, a.List)
				}
			}
		case thole.RolledBack:
			if len(there) > 0 {
				c.report("false failure: %s was rolled back, and %d of its tokens are there", s.ID, len(there))
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(c.writers)) {
		there := c.writers[id]
		_, of, _ := strings.Cut(there[0].Token, "/")
		if want, err := strconv.Atoi(of); err == nil && len(there) < want {
			c.report("half: of %s %d of %d tokens are there", id, len(there), want)
		}
	}
}

// checkReads finds what was read and never was, or was not for long.
func (c *checker) checkReads(s *Session) {
	if s.Outcome != thole.Committed && !s.Trusted {
		return
	}
	for _, r := range s.Reads {
		others := c.others(s, r)
		if !isPrefix(others, c.Lists[r.List]) {
			c.report("%s: %s read %s in list %d, which is %s",
				c.nameOf(others), s.ID, tail(others), r.List, tail(c.Lists[r.List]))
			continue
		}
		if len(others) == 0 {
			continue
		}
		last := others[len(others)-1]
		for _, later := range c.Lists[r.List][len(others):] {
			if author(later) == author(last) {
				c.report("G1b: %s read %s in list %d, and not %s of the same session", s.ID, last, r.List, later)
			}
		}
	}
}

// nameOf is what it is called to read what isn't in the list.
func (c *checker) nameOf(tokens []string) string {
	for _, token := range tokens {
		if writer := c.known[author(token)]; strings.HasSuffix(token, undone) ||
			writer != nil && writer.Outcome == thole.RolledBack {
			return "G1a"
		}
	}
	return "lost or reordered"
}

// others is what a session read without what it had itself put at the end.
func (c *checker) others(s *Session, r Read) []string {
	end := len(r.Tokens)
	for end > 0 && author(r.Tokens[end-1]) == s.ID {
		end--
	}
	return r.Tokens[:end]
}

func isPrefix(tokens, list []string) bool {
	return len(tokens) <= len(list) && slices.Equal(tokens, list[:len(tokens)])
}

// tail shortens a list for a message.
func tail(tokens []string) string {
	const most = 6
	if len(tokens) > most {
		return fmt.Sprintf("… %v", tokens[len(tokens)-most:])
	}
	return fmt.Sprint(tokens)
}

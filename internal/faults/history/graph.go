package history

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/tholedb/thole"
)

// graph is who must have come before whom.
type graph struct {
	nodes map[string]int
	names []string
	after [][]int
}

// checkOrder finds sessions of which each must have come before itself. They
// are those that committed, and those that are in the lists.
func (c *checker) checkOrder() {
	g := &graph{nodes: make(map[string]int)}
	for _, list := range c.Lists {
		g.addWrites(list)
	}
	var committed []*Session
	for i := range c.Sessions {
		if s := &c.Sessions[i]; s.Outcome == thole.Committed {
			committed = append(committed, s)
			c.addReads(g, s)
		}
	}
	g.addTime(committed)
	for _, cycle := range g.cycles() {
		c.report("cycle: %s", some(cycle))
	}
}

// some shortens a cycle for a message.
func some(cycle []string) string {
	const most = 12
	if len(cycle) > most {
		return fmt.Sprintf("%s, … (%d)", strings.Join(cycle[:most], ", "), len(cycle))
	}
	return strings.Join(cycle, ", ")
}

func (g *graph) node(id string) int {
	n, ok := g.nodes[id]
	if !ok {
		n = len(g.after)
		g.nodes[id] = n
		g.names = append(g.names, id)
		g.after = append(g.after, nil)
	}
	return n
}

func (g *graph) edge(before, after string) {
	if before != after {
		n := g.node(before)
		g.after[n] = append(g.after[n], g.node(after))
	}
}

// addWrites adds that who appended first came first (ww).
func (g *graph) addWrites(list []string) {
	for i := 1; i < len(list); i++ {
		g.edge(author(list[i-1]), author(list[i]))
	}
}

// addReads adds that a session came after those whose tokens it read (wr), and
// before the one that appended next (rw).
func (c *checker) addReads(g *graph, s *Session) {
	for _, r := range s.Reads {
		others, list := c.others(s, r), c.Lists[r.List]
		if !isPrefix(others, list) {
			continue // has been reported
		}
		if len(others) > 0 {
			g.edge(author(others[len(others)-1]), s.ID)
		}
		if len(others) < len(list) {
			g.edge(s.ID, author(list[len(others)]))
		}
	}
}

// instant begins the names of the nodes that are no session, which has no blank
// in its own.
const instant = "instant "

// addTime adds that a session came after those that had ended when it began:
// through a chain of instants, which is shorter than all the pairs.
func (g *graph) addTime(sessions []*Session) {
	sessions = slices.DeleteFunc(slices.Clone(sessions), func(s *Session) bool { return s.Ended == 0 })
	slices.SortFunc(sessions, func(a, b *Session) int { return cmp.Compare(a.Ended, b.Ended) })
	for i, s := range sessions {
		g.edge(s.ID, instant+s.ID)
		if i > 0 {
			g.edge(instant+sessions[i-1].ID, instant+s.ID)
		}
		ended, _ := slices.BinarySearchFunc(sessions, s.Began, func(other *Session, began int64) int {
			return cmp.Compare(other.Ended, began)
		})
		if ended > 0 {
			g.edge(instant+sessions[ended-1].ID, s.ID)
		}
	}
}

// cycles are the sets of sessions that must have come before each other.
func (g *graph) cycles() [][]string {
	t := &tarjan{graph: g, index: make([]int, len(g.after)), low: make([]int, len(g.after)), on: make([]bool, len(g.after))}
	for n := range g.after {
		if t.index[n] == 0 {
			t.visit(n)
		}
	}
	return t.found
}

// tarjan finds strongly connected components,
// https://en.wikipedia.org/wiki/Tarjan%27s_strongly_connected_components_algorithm.
type tarjan struct {
	*graph
	last       int
	index, low []int // by node; the index of one that wasn't visited is 0
	on         []bool
	stack      []int
	found      [][]string
}

func (t *tarjan) visit(n int) {
	t.last++
	t.index[n], t.low[n], t.on[n] = t.last, t.last, true
	t.stack = append(t.stack, n)
	for _, next := range t.after[n] {
		if t.index[next] == 0 {
			t.visit(next)
			t.low[n] = min(t.low[n], t.low[next])
		} else if t.on[next] {
			t.low[n] = min(t.low[n], t.index[next])
		}
	}
	if t.low[n] == t.index[n] {
		t.pop(n)
	}
}

// pop takes the component of a node, its first, from the stack.
func (t *tarjan) pop(first int) {
	from := slices.Index(t.stack, first)
	component := t.stack[from:]
	t.stack = t.stack[:from]
	var names []string
	for _, n := range component {
		t.on[n] = false
		if !strings.HasPrefix(t.names[n], instant) {
			names = append(names, t.names[n])
		}
	}
	if len(component) > 1 {
		slices.Sort(names)
		t.found = append(t.found, names)
	}
}

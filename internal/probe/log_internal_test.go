package probe

import (
	"testing"
	"time"

	"github.com/tholedb/thole/internal/engine"
)

// The newest are kept, and no more memory is taken, however many are added.
func TestTail(t *testing.T) {
	t.Parallel()
	var kept tail[int]
	const n = 10*most + 7
	for i := range n {
		kept.add(i)
	}
	if got := len(kept.items); got < most || got > 2*most || cap(kept.items) > 4*most {
		t.Errorf("got %d kept, with room for %d", got, cap(kept.items))
	}
	if got := kept.items[len(kept.items)-1]; got != n-1 {
		t.Errorf("got %d as the last, want %d", got, n-1)
	}
	if got := kept.dropped + len(kept.items); got != n || kept.items[0] != kept.dropped {
		t.Errorf("got %d in all, the first kept %d behind %d, want %d", got, kept.items[0], kept.dropped, n)
	}
}

// A mark is forgotten when it has ended, and what it has seen with it.
func TestMark(t *testing.T) {
	t.Parallel()
	p := New(nil, Options{})
	first, second := p.Mark(), p.Mark()
	s := &Session{Info: &engine.Info{Began: time.Now()}}
	p.begin(s)
	p.noted(p.note(s, 0, "select 1", nil), 1, nil)
	if got := p.Since(first); len(got.Sessions) != 1 || len(got.Statements) != 1 || got.Statements[0].Rows != 1 {
		t.Errorf("got %+v, want the session and its statement", got)
	}
	p.note(s, 0, "select 2", nil)
	if got := len(first.statements); got != 1 {
		t.Errorf("got %d statements in a mark that has ended, want 1", got)
	}
	if got := p.Since(second); len(got.Statements) != 2 || got.Statements[0].Session != got.Sessions[0] {
		t.Errorf("got %+v, want both statements, of the one session", got)
	}
}

// Arguments are printed as they were, and long ones cut.
func TestPrinted(t *testing.T) {
	t.Parallel()
	text, missing := "a", (*int)(nil)
	list := []int{1, 2}
	got := printed([]any{nil, "a\n", []byte{1, 2}, int64(7), 1.5, true, &text, missing, list, make([]int, 1000), time.Unix(0, 0).UTC()})
	list[0] = 3
	want := []string{"NULL", `"a\n"`, "2 bytes", "7", "1.5", "true", `"a"`, "NULL", "[1 2]", "[]int of 1000", "1970-01-01T00:00:00Z"}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("argument %d: got %s, want %s", i, got[i], want[i])
		}
	}
}

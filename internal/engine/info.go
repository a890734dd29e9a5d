package engine

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Info says who a session is, for the messages that name it.
type Info struct {
	Label  string // the caller's own name for it, or ""
	Caller Caller // where it was opened
	Query  string // of a statement outside a session, which has no label and no caller
	Began  time.Time
}

// String reads `session "forge" opened at app/main.go:12 1.5s ago`, or
// `statement "SELECT …" begun 1.5s ago`.
func (i *Info) String() string {
	if i.Query != "" {
		const most = 80
		at := i.Caller.String()
		if at != "" {
			at = " at " + at
		}
		return fmt.Sprintf("statement %.*q%s begun %s ago", most, i.Query, at, time.Since(i.Began).Round(time.Millisecond))
	}
	label := ""
	if i.Label != "" {
		label = fmt.Sprintf(" %q", i.Label)
	}
	return fmt.Sprintf("session%s opened at %s %s ago", label, i.Caller, time.Since(i.Began).Round(time.Millisecond))
}

// Caller is a place in the program, kept cheaply and looked up when it is
// printed.
type Caller struct{ pcs [24]uintptr }

// Here is the place of the running call.
func Here() Caller {
	var c Caller
	runtime.Callers(2, c.pcs[:])
	return c
}

// place is the key in a ctx of the Caller that [At] gives it.
type place struct{}

// At is ctx for a session that is opened in a goroutine of this library's, for who
// called at c.
func At(ctx context.Context, c Caller) context.Context { return context.WithValue(ctx, place{}, c) }

// AsAt is ctx with the place that [At] has given to the other one, if any.
func AsAt(ctx, other context.Context) context.Context {
	if c, ok := other.Value(place{}).(Caller); ok {
		return At(ctx, c)
	}
	return ctx
}

// HereOr is [Here] or, where none of the program's calls leads here, the place that
// [At] has given to ctx.
func HereOr(ctx context.Context) Caller {
	here := Here()
	if c, ok := ctx.Value(place{}).(Caller); ok && len(outside(here.pcs[:])) == 0 {
		return c
	}
	return here
}

// between are the packages that stand between the user's code and the place
// where Here is called. (Test packages end in _test and are not among them.)
var between = []string{
	"github.com/tholedb/thole.",
	"github.com/tholedb/thole/internal/engine",
	"github.com/tholedb/thole/internal/probe.",
	"github.com/tholedb/thole/testing/dbtest.",
	"database/sql.",
	"github.com/jmoiron/sqlx.",
	"github.com/jackc/pgx/v5.",
	"runtime.",
}

// String is the file, with its folder, and the line of the first frame outside
// this library and the ones it stands on; "" for the zero Caller.
func (c Caller) String() string {
	frames := runtime.CallersFrames(c.pcs[:])
	for {
		frame, more := frames.Next()
		if frame.File != "" && !isBetween(frame) {
			folder, file := path.Split(frame.File)
			return fmt.Sprintf("%s:%d", path.Join(path.Base(folder), file), frame.Line)
		}
		if !more {
			return ""
		}
	}
}

func isBetween(frame runtime.Frame) bool {
	return slices.ContainsFunc(between, func(prefix string) bool { return strings.HasPrefix(frame.Function, prefix) }) ||
		path.Dir(frame.File) == root && !strings.HasSuffix(frame.File, "_test.go")
}

// root is the folder of package thole. A function in its generic ones, which the
// compiler has put into their caller's, is named after that.
var root = func() string {
	_, file, _, _ := runtime.Caller(0)
	return path.Dir(path.Dir(path.Dir(file)))
}()

// Encloses reports whether the running call comes from the fn of the session
// that was opened at c: whether that is further up on the same goroutine's
// stack. It costs some microseconds.
func (c Caller) Encloses() bool {
	opened := outside(c.pcs[:])
	if len(opened) == 0 {
		return false
	}
	var pcs [256]uintptr
	runtime.Callers(2, pcs[:])
	calls := outside(pcs[:]) // the first is the program's call of what runs
	for i := 1; i+len(opened) <= len(calls); i++ {
		if isInside(calls[i-1]) && slices.Equal(calls[i:i+len(opened)], opened) {
			return true
		}
	}
	return false
}

// outside are the calls from the first one on that is none of this library's or
// of those that it stands on.
func outside(pcs []uintptr) []uintptr {
	for i, pc := range pcs {
		if pc == 0 {
			return nil
		}
		if !isInside(pc) {
			return pcs[i : i+length(pcs[i:])]
		}
	}
	return nil
}

// length is how many calls stand before the zeros that fill an array.
func length(pcs []uintptr) int {
	if end := slices.Index(pcs, 0); end >= 0 {
		return end
	}
	return len(pcs)
}

func isInside(pc uintptr) bool {
	frame, _ := runtime.CallersFrames([]uintptr{pc}).Next()
	return isBetween(frame)
}

// Sparing lets something happen once in a while.
type Sparing struct{ next atomic.Int64 }

// Now reports whether it may happen now, if it happens at most once a second.
func (s *Sparing) Now() bool { return s.Every(time.Second) }

// Every is Now for another time between.
func (s *Sparing) Every(between time.Duration) bool {
	now, next := time.Now().UnixNano(), s.next.Load()
	return now >= next && s.next.CompareAndSwap(next, now+int64(between))
}

// Registry holds the sessions that are open, for the messages that count them.
type Registry struct {
	mu   sync.Mutex
	open map[*Info]struct{}
}

// Add notes that a session is open.
func (r *Registry) Add(i *Info) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open == nil {
		r.open = make(map[*Info]struct{})
	}
	r.open[i] = struct{}{}
}

// Remove notes that it has ended.
func (r *Registry) Remove(i *Info) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, i)
}

// Open returns the open sessions, the oldest first.
func (r *Registry) Open() []*Info {
	r.mu.Lock()
	defer r.mu.Unlock()
	open := make([]*Info, 0, len(r.open))
	for i := range r.open {
		open = append(open, i)
	}
	slices.SortFunc(open, func(a, b *Info) int { return cmp.Or(a.Began.Compare(b.Began), cmp.Compare(a.Label, b.Label)) })
	return open
}

// String reads "2 sessions open, the oldest: session opened at …".
func (r *Registry) String() string {
	open := r.Open()
	if len(open) == 0 {
		return "no session open"
	}
	return fmt.Sprintf("%d sessions open, the oldest: %s", len(open), open[0])
}

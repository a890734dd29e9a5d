package dbtest

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/engine"
	"github.com/tholedb/thole/internal/probe"
	"github.com/tholedb/thole/internal/sqltext"
)

// This file is about tests that rely on what only one engine allows.

// twins are the subtests of one Each, which are to do the same on every engine.
type twins struct {
	mu      sync.Mutex
	lenient string // what SQLite has let go on
	missing bool   // there was no PostgreSQL to run on
}

// newTwins begins an Each. When both subtests have ended, what PostgreSQL would have
// refused fails the test if there was no PostgreSQL to refuse it: that of a log
// nobody would see before a machine that has one.
func newTwins(tb testing.TB) *twins {
	tb.Helper()
	w := new(twins)
	tb.Cleanup(func() { w.judge(tb) })
	return w
}

func (w *twins) judge(tb testing.TB) {
	tb.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.missing && w.lenient != "" {
		tb.Errorf("dbtest: the subtest postgres was skipped, and would fail: %s", w.lenient)
	}
}

// open opens a DB for one of the subtests.
func (w *twins) open(tb testing.TB, engine thole.Engine, open func() *thole.DB) *thole.DB {
	tb.Helper()
	opened := false
	tb.Cleanup(func() {
		if !opened && engine == thole.Postgres && tb.Skipped() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.missing = true
		}
	})
	db := open()
	opened = true
	return db
}

// hints are what there is to say of parity when the test has ended.
func (r *rig) hints() []string {
	var hints []string
	if gone := r.probe.GoneOn(); gone != nil && r.twins != nil {
		hint := wentOn(gone)
		hints = append(hints, hint)
		if r.probe.Name() == string(thole.SQLite) {
			r.twins.mu.Lock()
			r.twins.lenient = hint
			r.twins.mu.Unlock()
		}
	}
	if r.tb.Failed() {
		if hint := r.aboutTime(); hint != "" {
			hints = append(hints, hint)
		}
	}
	return hints
}

// wentOn says what PostgreSQL does not let a session do.
func wentOn(gone *probe.GoneOn) string {
	next := "more was to run, or to be committed"
	switch {
	case gone.Next != nil:
		next = fmt.Sprintf("%q ran at %s", oneLine(gone.Next.Text), gone.Next.Caller)
	case gone.Failed.Session.Outcome == engine.Committed:
		next = "it was committed"
	}
	return fmt.Sprintf("the session opened at %s went on after %q at %s had failed: %s. SQLite undoes the statement alone; "+
		"PostgreSQL refuses whatever comes before the session is rolled back (25P02). Run what may fail in a nested session",
		gone.Failed.Session.Info.Caller, oneLine(gone.Failed.Text), gone.Failed.Caller, next)
}

// aboutTime is what is to be known of the time of the database where a test that has
// failed asked for it several times; "" otherwise. Of defaults of columns, which
// ask for it too, nothing is known here.
func (r *rig) aboutTime() string {
	onPostgres := r.probe.Name() == string(thole.Postgres)
	if !onPostgres && r.twins == nil {
		return ""
	}
	asked := map[*probe.Session]int{}
	most, all := 0, 0
	for _, st := range r.probe.Log().Statements {
		if st.Kind != probe.Ran || !asksForTime(r.probe.Dialect(), st.Text) {
			continue
		}
		all++
		if !st.Session.Outside {
			asked[st.Session]++
			most = max(most, asked[st.Session])
		}
	}
	switch {
	case onPostgres && r.kind == sandboxKind && all > 1:
		return fmt.Sprintf("%d statements asked for now(), which on PostgreSQL stands still in a sandbox: "+
			"pass the time as an argument, or use dbtest.Database", all)
	case onPostgres && most > 1:
		return fmt.Sprintf("%d statements of one session asked for now(), which on PostgreSQL stands still there, and moves on SQLite: "+
			"pass the time as an argument", most)
	case !onPostgres && most > 1:
		return fmt.Sprintf("%d statements of one session asked for the time, which on SQLite moves there, and stands still on PostgreSQL: "+
			"pass the time as an argument", most)
	}
	return ""
}

// standing are the words for a time that stands still in a session of PostgreSQL, or
// would.
var standing = map[string]bool{
	"now": true, "transaction_timestamp": true, "current_timestamp": true, "current_time": true, "current_date": true,
	"localtimestamp": true, "localtime": true,
}

// asksForTime reports whether a statement asks for the time.
func asksForTime(d sqltext.Dialect, query string) bool {
	for tok := range d.Tokens(query) {
		switch tok.Kind {
		case sqltext.Word:
			if standing[strings.ToLower(tok.Text)] {
				return true
			}
		case sqltext.String:
			if strings.EqualFold(tok.Text, "'now'") {
				return true
			}
		}
	}
	return false
}

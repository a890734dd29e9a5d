package dbtest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/probe"
	"github.com/tholedb/thole/internal/sqltext"
)

// Queries runs f and returns the statements that ran on db meanwhile, in whatever
// way and in whatever goroutine: through a session or outside one, prepared, in a
// batch, through sqlx or pgx. Many rows that go in by COPY, or by
// [thole.InsertAll], are one statement. What sessions send for themselves, as
// BEGIN, SAVEPOINT and COMMIT, is none; what they send for an IdempotencyKey is, but
// not what thole does about keys in sessions of its own.
//
//	dbtest.Queries(t, db, func() { list(ctx, db) }).Max(2)
func Queries(tb testing.TB, db *thole.DB, f func()) *QueryLog {
	tb.Helper()
	r := rigOf(tb, db)
	seen := observe(r.probe, f)
	log := &QueryLog{tb: tb, dialect: dialectOf(db)}
	for _, st := range seen.Statements {
		log.statements = append(log.statements, Statement{
			Text: st.Text, Rows: st.Rows, Err: st.Err, Took: st.Took, Caller: st.Caller.String(),
		})
	}
	return log
}

// observe runs f and returns what has begun meanwhile.
func observe(p *probe.Probe, f func()) probe.Log {
	mark := p.Mark()
	ended := false
	defer func() {
		if !ended { // f has panicked, or failed the test
			p.Since(mark)
		}
	}()
	f()
	ended = true
	return p.Since(mark)
}

func dialectOf(db *thole.DB) sqltext.Dialect {
	if db.Engine() == thole.Postgres {
		return sqltext.Postgres
	}
	return sqltext.SQLite
}

// Statement is one that ran.
type Statement struct {
	Text   string        // as the engine has read it
	Rows   int64         // affected, or read; -1 if that is not known, as in a batch
	Err    error         // why it failed, or its rows could not be read
	Took   time.Duration // up to its first row, where it has rows
	Caller string        // the file, with its folder, and the line
}

// QueryLog is what [Queries] has seen. Its methods that take what is wanted fail
// the test, and go on, when that is not so.
type QueryLog struct {
	tb         testing.TB
	dialect    sqltext.Dialect
	statements []Statement
}

// Statements are the statements in the order in which they began.
func (l *QueryLog) Statements() []Statement { return slices.Clone(l.statements) }

// Count wants n statements.
func (l *QueryLog) Count(n int) {
	l.tb.Helper()
	if len(l.statements) != n {
		l.fail("got %s, want %d", statements(len(l.statements)), n)
	}
}

// Max wants n statements at most.
func (l *QueryLog) Max(n int) {
	l.tb.Helper()
	if len(l.statements) > n {
		l.fail("got %s, want at most %d", statements(len(l.statements)), n)
	}
}

// Match wants, for each pattern, a statement that contains it, behind that of the
// pattern before; others may stand between. Upper and lower case, and how many
// blanks and line ends stand between words, make no difference.
func (l *QueryLog) Match(patterns ...string) {
	l.tb.Helper()
	rest := l.statements
	for i, pattern := range patterns {
		found := slices.IndexFunc(rest, func(st Statement) bool { return contains(st.Text, pattern) })
		if found < 0 {
			l.fail("got no statement with %q%s", pattern, behind(patterns[:i]))
			return
		}
		rest = rest[found+1:]
	}
}

func behind(patterns []string) string {
	if len(patterns) == 0 {
		return ""
	}
	return fmt.Sprintf(" behind that with %q", patterns[len(patterns)-1])
}

// None wants no statement that contains the pattern, see [QueryLog.Match]; with ""
// no statement at all.
func (l *QueryLog) None(pattern string) {
	l.tb.Helper()
	for _, st := range l.statements {
		if contains(st.Text, pattern) {
			l.fail("got %q at %s, want no statement with %q", st.Text, st.Caller, pattern)
			return
		}
	}
}

func contains(text, pattern string) bool {
	return strings.Contains(plain(text), plain(pattern))
}

// plain is a text in lower case with single blanks.
func plain(text string) string { return strings.ToLower(strings.Join(strings.Fields(text), " ")) }

func statements(n int) string { return plural(n, "statement") }

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// fail fails the test with the statements.
func (l *QueryLog) fail(format string, args ...any) {
	l.tb.Helper()
	l.tb.Errorf("dbtest: %s\n%s", fmt.Sprintf(format, args...), l)
}

// String lists the statements, those that differ in their values alone as one, with
// the places that they ran from. One that ran several times from one place is
// marked: a loop around a query is often meant to be one query.
func (l *QueryLog) String() string {
	if len(l.statements) == 0 {
		return "\tno statement ran"
	}
	var b strings.Builder
	for _, g := range l.groups() {
		fmt.Fprintf(&b, "\t%d × %s\n", g.count, g.text)
		for _, c := range g.callers {
			fmt.Fprintf(&b, "\t\tat %s%s\n", c.text, repeated(c.count))
		}
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func repeated(count int) string {
	if count == 1 {
		return ""
	}
	return fmt.Sprintf(": repeated, %d times", count)
}

// group is the statements of one fingerprint, or those of them from one place.
type group struct {
	text    string
	count   int
	callers []*group
}

// groups are the statements by their fingerprints, the most frequent first.
func (l *QueryLog) groups() []*group {
	var groups []*group
	for _, st := range l.statements {
		g := counted(&groups, sqltext.Fingerprint(l.dialect, st.Text))
		counted(&g.callers, st.Caller)
	}
	slices.SortStableFunc(groups, func(a, b *group) int { return cmp.Compare(b.count, a.count) })
	return groups
}

// counted counts one more in the group of text.
func counted(groups *[]*group, text string) *group {
	for _, g := range *groups {
		if g.text == text {
			g.count++
			return g
		}
	}
	g := &group{text: text, count: 1}
	*groups = append(*groups, g)
	return g
}

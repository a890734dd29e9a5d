package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/pgclone"
	"github.com/tholedb/thole/internal/pgserver"
)

// This race is about what a test pays for its database: dbtest beside what people
// use, or write by hand.

// testPeer is one way to give a test a database.
type testPeer struct {
	name string
	how  string
	open func(ctx context.Context, g grounds) (*suite, error)
}

func (p testPeer) String() string { return p.name }

// suite is the tests of a package, which all do the same: a session with one
// insert.
type suite struct {
	test func(tb testing.TB)

	settle func(ctx context.Context) error // waits for what tests leave to the background; may be nil
	close  func() error                    // may be nil
}

// Close ends what the tests had in common.
func (s *suite) Close() error {
	if s.close == nil {
		return nil
	}
	return s.close()
}

// grounds are where tests take place.
type grounds struct {
	engine     thole.Engine
	statements int    // in the schema
	schema     string // as one text
	migrations fs.FS  // the same as a file
	url        string // of PostgreSQL
	server     *pgclone.Server
}

// settle waits until the databases of ended tests are dropped.
func (g grounds) settle(ctx context.Context) error {
	if g.server == nil {
		return nil
	}
	return g.server.Await(ctx)
}

// lesson is a kind of tests, under the same terms for all peers.
type lesson struct {
	name       string
	about      string
	engine     thole.Engine
	statements int
	peers      []testPeer
}

func (l lesson) String() string { return l.name }

const (
	aTest    = "a test with one session of one insert, on %s with a schema of %d statements"
	aProcess = "a process with one such test, which starts %s, and a schema of %d statements"
)

var lessons = []lesson{
	{"sqlite-20", aTest, thole.SQLite, 20, sqliteTestPeers},
	{"sqlite-200", aTest, thole.SQLite, 200, sqliteTestPeers},
	{"postgres-20", aTest, thole.Postgres, 20, pgTestPeers},
	{"postgres-200", aTest, thole.Postgres, 200, pgTestPeers},
	{"first-20", aProcess, thole.Postgres, 20, firstPeers},
	{"first-200", aProcess, thole.Postgres, 200, firstPeers},
}

// allTestPeers are all peers there are, by their names.
func allTestPeers() []testPeer {
	var all []testPeer
	known := map[string]bool{}
	for _, l := range lessons {
		for _, p := range l.peers {
			if !known[p.name] {
				known[p.name] = true
				all = append(all, p)
			}
		}
	}
	return all
}

// dbtestRace is what the options ask for.
type dbtestRace struct {
	rounds   int
	duration time.Duration
	lessons  []lesson
	peers    []testPeer
}

func planDBTest(o options) (start, error) {
	r := dbtestRace{
		rounds:   o.rounds,
		duration: cmp.Or(o.duration, either(o.brief, 300*time.Millisecond, 2*time.Second)),
	}
	return r.run, errors.Join(
		pick(&r.lessons, lessons, o.workloads),
		pick(&r.peers, allTestPeers(), o.contenders),
	)
}

// run gives each lesson, prints how the peers compare, and last whether dbtest keeps
// its promises.
func (r dbtestRace) run(ctx context.Context, out io.Writer) error {
	r.introduce(out)
	var kept []string
	for _, l := range r.lessons {
		peers := l.among(r.peers)
		if len(peers) == 0 {
			continue
		}
		rounds, err := r.give(ctx, l, peers)
		if err != nil {
			return fmt.Errorf("%s: %w", l, err)
		}
		if err := report(out, l.comparison(r.duration, peers), rounds); err != nil {
			return err
		}
		kept = append(kept, l.promises(names(peers), rounds)...)
	}
	idle, err := promiseOfIdleness(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "\nWhat dbtest promises (min, median, max):")
	for _, line := range append(kept, idle) {
		fmt.Fprintln(out, " ", line)
	}
	return nil
}

// introduce prints what the figures depend on.
func (r dbtestRace) introduce(out io.Writer) {
	fmt.Fprintf(out, "Databases for tests: %s%s\n", machine(), busyness())
	for _, p := range r.peers {
		fmt.Fprintf(out, "  %-11s %s\n", p.name, p.how)
	}
	fmt.Fprintln(out, "ratio: the time for a test over that of the first, round by round; times in ms;")
	fmt.Fprintln(out, "CPU and Go's allocs: a test, of this process.")
}

// busyness is how busy the machine has been, where that is known.
func busyness() string {
	text, _ := os.ReadFile("/proc/loadavg")
	load, _, _ := strings.Cut(string(text), " ")
	return either(load == "", "", ", load "+load)
}

// among are those of all that have a part in the lesson, in their order there.
func (l lesson) among(all []testPeer) []testPeer {
	var peers []testPeer
	for _, p := range l.peers {
		for _, asked := range all {
			if asked.name == p.name {
				peers = append(peers, p)
			}
		}
	}
	return peers
}

func (l lesson) comparison(d time.Duration, peers []testPeer) comparison {
	return comparison{
		title:    fmt.Sprintf("%s: "+l.about, l, l.engine, l.statements),
		duration: d,
		crews:    []string{""},
		peers:    names(peers),
	}
}

// grounds makes what all peers have in common.
func (l lesson) grounds(ctx context.Context) (grounds, error) {
	schema := testSchema(l.engine, l.statements)
	g := grounds{engine: l.engine, statements: l.statements, schema: schema, migrations: migrationsOf(schema)}
	if l.engine == thole.SQLite {
		return g, nil
	}
	found, err := pgserver.Find(ctx)
	if err != nil {
		return g, err
	}
	g.url = found.URL
	g.server, err = pgclone.On(ctx, found.URL)
	return g, err
}

// give has the peers run their tests.
func (r dbtestRace) give(ctx context.Context, l lesson, peers []testPeer) (_ [][][]result, err error) {
	g, err := l.grounds(ctx)
	if err != nil {
		return nil, err
	}
	suites := make(map[string]*suite, len(peers))
	defer func() {
		for _, s := range suites {
			err = errors.Join(err, s.Close())
		}
	}()
	for _, p := range peers {
		s, err := p.open(ctx, g)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
		suites[p.name] = s
	}
	return compete(ctx, peers, r.rounds, func(ctx context.Context, p testPeer) ([]result, error) {
		return suites[p.name].load(ctx, r.duration)
	})
}

// load is one peer's turn: one test after the other.
func (s *suite) load(ctx context.Context, d time.Duration) ([]result, error) {
	one := crew{size: 1, do: func(ctx context.Context) error { return runTest(ctx, s.test) }}
	got, err := loadWarm(ctx, []crew{one}, d/5, d, spent)
	if s.settle != nil {
		err = errors.Join(err, s.settle(ctx))
	}
	return got, err
}

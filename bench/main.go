// Command bench measures thole beside what programs do without it. The
// contenders of a race run one after the other, round for round, on the same
// machine, so that its noise falls on all of them; read the ratios.
//
//	go run . [-rounds 7] [-rows 100000] ["InsertAll on SQLite"] ["InsertAll on PostgreSQL"]
//	go run . -short sqlite
//	go run . -short postgres
//	go run . -short dbtest
//	go run . [-workloads insert,slow] [-goroutines 8,64] [-synchronous full] [-contenders thole,mattn] sqlite
//	go run . [-workloads w1,r1] [-goroutines 1,8] [-contenders pgx,thole,sqlx] postgres
//	go run . [-workloads postgres-20] [-contenders sandbox,txdb] dbtest
//
// The first is the default: how fast many rows get in. The others race sessions
// under load, -short for two or three minutes; when nothing is left out, on SQLite
// for two hours and on PostgreSQL for one. The last is about what databases for
// tests cost, for ten minutes, -short for one. -help lists the flags.
//
// It is a module of its own, so that nothing of a contender is a dependency of
// thole. Two contenders are C and need gcc. PostgreSQL is the server of
// DBTEST_URL, whose database must have "test" in its name, or one that is
// started from the programs on this machine.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"time"
)

// race is contenders that do the same work.
type race struct {
	name string

	// plan says what is wrong with the options before anything runs.
	plan func(o options) (start, error)
}

// start runs a race that was planned, and prints what comes out.
type start func(ctx context.Context, out io.Writer) error

func (r race) String() string { return r.name }

var races = []race{
	insertAllRace("InsertAll on SQLite", insertAllSQLite),
	insertAllRace("InsertAll on PostgreSQL", insertAllPostgres),
	{"sqlite", planSQLite},
	{"postgres", planPostgres},
	{"dbtest", planDBTest},
}

// options are what the command line says. What is zero or empty is up to the
// race.
type options struct {
	brief  bool
	rounds int

	// of the InsertAll races
	rows int

	// of sessions
	duration    time.Duration
	workloads   string
	goroutines  string
	contenders  string
	dir         string
	synchronous string
}

// short is what -short makes of the flags that are not given, in all races.
var short = map[string]string{"rounds": "3", "rows": "10000", "synchronous": "full"}

func main() {
	if child() {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	races, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		err = run(ctx, os.Stdout, races)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// planned is a race and how it starts.
type planned struct {
	race
	start start
}

// parse reads the command line. It prints the flags to out where it is asked
// to, or can't follow one.
func parse(args []string, out io.Writer) ([]planned, error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.BoolVar(&o.brief, "short", false, "be brief, where no other flag says otherwise")
	flags.IntVar(&o.rounds, "rounds", 7, "how `often` each contender runs")
	flags.IntVar(&o.rows, "rows", 100_000, "of the InsertAll races: how `many` there are to insert")
	flags.DurationVar(&o.duration, "duration", 0, "of sessions: how `long` a contender runs in a round (default 3s on SQLite, 1s on PostgreSQL and 2s for dbtest)")
	flags.StringVar(&o.workloads, "workloads", "", "of sessions: `some` of "+list(workloads)+" on SQLite, of "+list(pgWorkloads)+" on PostgreSQL, of "+list(lessons)+" for dbtest (default all)")
	flags.StringVar(&o.goroutines, "goroutines", "", "of sessions: how many `at once` (default 1,8,64,256 on SQLite and 1,8,64 on PostgreSQL)")
	flags.StringVar(&o.contenders, "contenders", "", "of sessions: `some` of "+list(peers)+" on SQLite, of "+list(pgPeers)+" on PostgreSQL, of "+list(allTestPeers())+" for dbtest (default all); the others are compared with the first")
	flags.StringVar(&o.dir, "dir", ".", "of sqlite: a `folder` for its files, on a disk with a real fsync and not on tmpfs")
	flags.StringVar(&o.synchronous, "synchronous", "full,normal", "of sqlite: when a commit reaches the disk, `one or both`")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if o.brief {
		shorten(flags)
	}
	if o.rounds < 1 || o.rows < 1 || o.duration < 0 {
		return nil, errors.New("-rounds, -rows and -duration are above 0")
	}
	var asked []race
	if err := pick(&asked, races, cmp.Or(strings.Join(flags.Args(), ","), list(races[:2]))); err != nil { // the others take hours
		return nil, err
	}
	return o.plan(asked)
}

func (o options) plan(races []race) ([]planned, error) {
	var all []planned
	for _, r := range races {
		start, err := r.plan(o)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r, err)
		}
		all = append(all, planned{r, start})
	}
	return all, nil
}

// shorten makes the flags short that were not given.
func shorten(flags *flag.FlagSet) {
	given := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	for name, value := range short {
		if !given[name] {
			_ = flags.Set(name, value) // which can't fail, see the test
		}
	}
}

// either is yes or no, as is the case.
func either[T any](is bool, yes, no T) T {
	if is {
		return yes
	}
	return no
}

// list is the names of all.
func list[T fmt.Stringer](all []T) string { return strings.Join(names(all), ",") }

func names[T fmt.Stringer](all []T) []string {
	names := make([]string, len(all))
	for i, one := range all {
		names[i] = one.String()
	}
	return names
}

// pick sets picked to those of all that names lists, in its order; when it is
// empty, to all.
func pick[T fmt.Stringer](picked *[]T, all []T, names string) error {
	*picked = all
	if names == "" {
		return nil
	}
	*picked = nil
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(all, func(one T) bool { return one.String() == name })
		if i < 0 {
			return fmt.Errorf("%q is none of %s", name, list(all))
		}
		*picked = append(*picked, all[i])
	}
	return nil
}

// numbers reads a list of counts.
func numbers(read *[]int, text string) error {
	for field := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(field)
		if err != nil || n < 1 {
			return fmt.Errorf("%q is no number of goroutines", field)
		}
		*read = append(*read, n)
	}
	return nil
}

func run(ctx context.Context, out io.Writer, races []planned) error {
	for _, r := range races {
		if err := r.start(ctx, out); err != nil {
			return fmt.Errorf("%s: %w", r, err)
		}
	}
	return nil
}

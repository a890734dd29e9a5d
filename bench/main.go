// Command bench measures thole beside what programs do without it. The
// contenders of a race run one after the other, round for round, on the same
// machine, so that its noise falls on all of them; read the ratios.
//
//	go run . [-rounds 7] [-rows 100000] ["InsertAll on SQLite"] ["InsertAll on PostgreSQL"]
//	go run . -short sqlite
//	go run . [-workloads insert,slow] [-goroutines 8,64] [-synchronous full] [-contenders thole,mattn] sqlite
//
// The first is the default: how fast many rows get in. The second and the third
// race sessions on SQLite under load, for two minutes and, when nothing is left
// out, for two hours. -help lists the flags.
//
// It is a module of its own, so that nothing of a contender is a dependency of
// thole. Two contenders are C and need gcc.
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
	run  func(ctx context.Context, out io.Writer, o options) error
}

func (r race) String() string { return r.name }

var races = []race{
	insertAllRace("InsertAll on SQLite", insertAllSQLite),
	insertAllRace("InsertAll on PostgreSQL", insertAllPostgres),
	{"sqlite", raceSessions},
}

// options are what the command line says.
type options struct {
	races  []race
	rounds int

	// of the InsertAll races
	rows int

	// of sessions on SQLite
	duration    time.Duration
	dir         string
	workloads   []workload
	goroutines  []int
	synchronous []synchronous
	peers       []peer
}

// short is what -short makes of the flags that are not given.
var short = map[string]string{
	"rounds": "3", "rows": "10000", "duration": "300ms", "goroutines": "1,64", "synchronous": "full",
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	o, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		err = run(ctx, os.Stdout, o)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// parse reads the command line. It prints the flags to out where it is asked
// to, or can't follow one.
func parse(args []string, out io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.IntVar(&o.rounds, "rounds", 7, "how often each contender runs")
	flags.IntVar(&o.rows, "rows", 100_000, "of the InsertAll races: how much there is to insert")
	flags.DurationVar(&o.duration, "duration", 3*time.Second, "of sqlite: how long a contender runs in a round")
	flags.StringVar(&o.dir, "dir", ".", "of sqlite: a `folder` for its files, on a disk with a real fsync and not on tmpfs")
	works := flags.String("workloads", "", "of sqlite: `some` of "+list(workloads)+" (default all)")
	goroutines := flags.String("goroutines", "1,8,64,256", "of sqlite: how many `at once`")
	syncs := flags.String("synchronous", "full,normal", "of sqlite: when a commit reaches the disk, `one or both`")
	contenders := flags.String("contenders", "", "of sqlite: `some` of "+list(peers)+" (default all); the others are compared with the first")
	brief := flags.Bool("short", false, "be brief, where no other flag says otherwise: sqlite takes about two minutes")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if *brief {
		shorten(flags)
	}
	return o, errors.Join(
		o.check(),
		pick(&o.races, races, cmp.Or(strings.Join(flags.Args(), ","), list(races[:2]))), // the third takes hours
		pick(&o.workloads, workloads, *works),
		pick(&o.peers, peers, *contenders),
		pick(&o.synchronous, []synchronous{"full", "normal"}, *syncs),
		numbers(&o.goroutines, *goroutines),
	)
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

func (o options) check() error {
	if o.rounds < 1 || o.rows < 1 || o.duration <= 0 {
		return errors.New("-rounds, -rows and -duration are above 0")
	}
	return nil
}

// list is the names of all.
func list[T fmt.Stringer](all []T) string {
	names := make([]string, len(all))
	for i, one := range all {
		names[i] = one.String()
	}
	return strings.Join(names, ",")
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

func run(ctx context.Context, out io.Writer, o options) error {
	for _, r := range o.races {
		if err := r.run(ctx, out, o); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
	}
	return nil
}

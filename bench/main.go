// Command bench measures thole beside what programs do without it. The
// contenders of a race run one after the other, round for round, on the same
// machine, so that its noise falls on all of them; read the ratios.
//
//	go run . [-rounds 7] [-rows 100000] [race ...]
//
// Without names all races run. It is a module of its own, so that nothing of a
// contender is a dependency of thole.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"slices"
	"time"
)

// race is contenders that do the same work.
type race struct {
	name string
	open func(ctx context.Context, size int) (*course, error)
}

// course is where a race takes place.
type course struct {
	contenders []contender // the first is the one that the others are compared with
	reset      func(ctx context.Context) error
	close      func()
}

// contender does the work.
type contender struct {
	name string
	run  func(ctx context.Context) error
}

func main() {
	rounds := flag.Int("rounds", 7, "how often each contender runs")
	rows := flag.Int("rows", 100_000, "how much it has to do")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, *rounds, *rows, flag.Args()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, out io.Writer, rounds, rows int, names []string) error {
	for _, r := range races {
		if len(names) > 0 && !slices.Contains(names, r.name) {
			continue
		}
		c, err := r.open(ctx, rows)
		if err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		err = c.race(ctx, out, r.name, rounds)
		c.close()
		if err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
	}
	return nil
}

// race runs the contenders and prints how they compare.
func (c *course) race(ctx context.Context, out io.Writer, name string, rounds int) error {
	took := make([][]time.Duration, len(c.contenders))
	for round := range rounds + 1 {
		for i := range c.contenders {
			at := (i + round) % len(c.contenders) // nobody is always first
			if err := c.reset(ctx); err != nil {
				return err
			}
			start := time.Now()
			if err := c.contenders[at].run(ctx); err != nil {
				return fmt.Errorf("%s: %w", c.contenders[at].name, err)
			}
			if round > 0 { // the first is to get warm
				took[at] = append(took[at], time.Since(start))
			}
		}
	}
	fmt.Fprintf(out, "%s: %d rounds\n", name, rounds)
	for i, other := range c.contenders {
		ratios := make([]float64, rounds)
		for round := range rounds {
			ratios[round] = float64(took[i][round]) / float64(took[0][round])
		}
		slices.Sort(ratios)
		slices.Sort(took[i])
		fmt.Fprintf(out, "  %-28s median %8s   ratio min %.2f median %.2f max %.2f\n", other.name,
			took[i][rounds/2].Round(time.Millisecond), ratios[0], ratios[rounds/2], ratios[rounds-1])
	}
	return nil
}

package faults

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tholedb/thole"
)

const (
	deedWorkers = 16
	counters    = 8                    // rows that sessions wait for
	deedPause   = 2 * time.Millisecond // after a call that came to nothing

	// deedFor is how long a call may take when its server comes back.
	deedFor = 30 * time.Second
)

const makeCounters = "create table counters (id int primary key, n int not null)"

// deed is what one call did: rows with its marker, as many as each of them says,
// and one more in a counter.
type deed struct {
	op      string // the same for all calls with one key
	marker  string
	rows    int
	counts  bool // it has a counter
	outcome thole.Outcome
	err     error
}

// doer does deeds on a database, in many goroutines.
type doer struct {
	db   *thole.DB
	name string // begins the names of its operations
	keys bool   // each operation has a key, and is called until it is done
	seed uint64
	done func() bool

	mu         sync.Mutex
	deeds      []deed
	operations atomic.Int64 // that are done
}

// run works until it is done.
func (d *doer) run(ctx context.Context) {
	var all sync.WaitGroup
	for worker := range deedWorkers {
		all.Go(func() {
			random := rand.New(rand.NewPCG(d.seed, uint64(worker)))
			for i := 0; !d.done(); i++ {
				d.operate(ctx, random, fmt.Sprintf("%s%d.%d", d.name, worker, i))
			}
		})
	}
	all.Wait()
}

// operate calls once, or until an operation with a key has committed or fails by
// itself.
func (d *doer) operate(ctx context.Context, random *rand.Rand, op string) {
	defer d.operations.Add(1)
	for call := 0; ; call++ {
		does := d.call(ctx, random, op, call)
		d.tell(does)
		if does.outcome == thole.Committed {
			return
		}
		time.Sleep(deedPause)
		if !d.keys || errors.Is(does.err, errOwn) || ctx.Err() != nil {
			return
		}
	}
}

func (d *doer) call(ctx context.Context, random *rand.Rand, op string, call int) deed {
	if !d.keys && random.IntN(4) == 0 {
		return d.statement(ctx, random, op)
	}
	return d.session(ctx, random, op, call)
}

func (d *doer) tell(does deed) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.deeds = append(d.deeds, does)
}

const addEffect = "insert into effects (marker, changes) values (?, ?)"

// statement is a deed outside a session.
func (d *doer) statement(ctx context.Context, random *rand.Rand, op string) deed {
	does := deed{op: op, marker: op, rows: 1}
	switch random.IntN(3) {
	case 0:
		_, does.err = d.db.ExecContext(ctx, addEffect, op, 1)
	case 1:
		_, does.err = d.db.ExecContext(ctx, "insert into effects (marker, changes) values ('"+op+"', 1)")
	default:
		does.err = d.db.GetContext(ctx, new(string), addEffect+" returning marker", op, 1)
	}
	does.outcome = thole.OutcomeOf(does.err)
	return does
}

// session is a deed in a session, which may end in any way.
func (d *doer) session(ctx context.Context, random *rand.Rand, op string, call int) deed {
	does := deed{op: op, marker: fmt.Sprintf("%s/%d", op, call), rows: 1 + random.IntN(3), counts: true}
	opts := thole.SessionOptions{}
	if d.keys {
		opts.IdempotencyKey = op
	}
	ctx, cancel := context.WithTimeout(ctx, deedFor)
	defer cancel()
	end := random.IntN(20)
	if end == 0 {
		defer time.AfterFunc(rand.N(3*time.Millisecond), cancel).Stop()
	}
	nests := random.IntN(4) == 0
	counter := random.IntN(counters)
	does.err = d.db.WithSessionOptions(ctx, opts, func(tx *thole.Tx) error {
		if err := does.do(tx, counter, nests); err != nil {
			return err
		}
		if end == 1 {
			return errOwn
		}
		return nil
	})
	does.outcome = thole.OutcomeOf(does.err)
	return does
}

func (does *deed) do(tx *thole.Tx, counter int, nests bool) error {
	for range does.rows {
		if err := nestIf(nests, tx, does.add); err != nil {
			return err
		}
	}
	if err := readRows(tx, ""); err != nil {
		return err
	}
	_, err := tx.ExecContext(tx.Context(), "update counters set n = n + 1 where id = ?", counter)
	return err
}

func (does *deed) add(tx *thole.Tx) error {
	return tx.GetContext(tx.Context(), new(string), addEffect+" returning marker", does.marker, does.rows)
}

func nestIf(nests bool, tx *thole.Tx, fn func(tx *thole.Tx) error) error {
	if !nests {
		return fn(tx)
	}
	return tx.WithSession(tx.Context(), fn)
}

// found is what the table has of a marker.
type found struct{ rows, changes int }

// wantTruth compares what the calls were told with what is there.
func wantTruth(t *testing.T, e *effects, deeds []deed) {
	t.Helper()
	there, counted := e.all(), e.counted()
	wantSound(t, "deeds", lies(there, counted, deeds))
}

// wantNoGuess shows that the truth could not be guessed where a call was told that
// nobody knows: either guess is a lie somewhere.
func wantNoGuess(t *testing.T, e *effects, deeds []deed) {
	t.Helper()
	there, counted := e.all(), e.counted()
	for outcome, found := range map[thole.Outcome]string{thole.Committed: "lost: ", thole.RolledBack: "false failure: "} {
		guessed := slices.Clone(deeds)
		for i := range guessed {
			if guessed[i].outcome == thole.Unknown {
				guessed[i].outcome = outcome
			}
		}
		if beginning(found, lies(there, counted, guessed)) == 0 {
			t.Errorf("with %v told in place of unknown nothing is %q", outcome, found)
		}
	}
}

// lies are what is untrue of what calls were told.
func lies(there map[string]found, counted int, deeds []deed) (all []string) {
	done, acked := make(map[string]int), make(map[string]bool) // by operation
	known := make(map[string]bool)
	for _, does := range deeds {
		is := there[does.marker]
		known[does.marker] = true
		outcome := does.outcome
		acked[does.op] = acked[does.op] || outcome == thole.Committed
		if errors.Is(does.err, thole.ErrAlreadyCommitted) {
			outcome = thole.RolledBack // it was another call
		}
		if lie := lie(outcome, is.rows, is.changes, [2]int{does.rows, does.rows * does.rows}); lie != "" {
			all = append(all, fmt.Sprintf("%s: %s was told %v (%v)", lie, does.marker, outcome, does.err))
		}
		if is.rows == 0 {
			continue
		}
		done[does.op]++
		if does.counts {
			counted--
		}
	}
	for op := range acked {
		if n := done[op]; n > 1 || acked[op] && n == 0 {
			all = append(all, fmt.Sprintf("operation %s was done %d times; acknowledged: %v", op, n, acked[op]))
		}
	}
	for marker := range there {
		if !known[marker] {
			all = append(all, "nobody's: "+marker)
		}
	}
	if counted != 0 {
		all = append(all, fmt.Sprintf("the counters have %d more than there are sessions with rows", counted))
	}
	return all
}

// count is how many calls had an outcome.
func (d *doer) count(outcome thole.Outcome) int {
	n := 0
	for _, does := range d.deeds {
		if does.outcome == outcome {
			n++
		}
	}
	return n
}

// all is what is there, by marker.
func (e *effects) all() map[string]found {
	e.t.Helper()
	rows, err := e.conn.Query(e.t.Context(), "select marker, count(*), sum(changes) from effects group by marker")
	if err != nil {
		e.t.Fatal(err)
	}
	there := make(map[string]found)
	var marker string
	var is found
	for rows.Next() {
		if err := rows.Scan(&marker, &is.rows, &is.changes); err != nil {
			e.t.Fatal(err)
		}
		there[marker] = is
	}
	if err := rows.Err(); err != nil {
		e.t.Fatal(err)
	}
	return there
}

// counted is how many sessions are in the counters.
func (e *effects) counted() (n int) {
	e.t.Helper()
	e.ask("select sum(n) from counters", nil, &n)
	return n
}

// makeCounters makes them.
func (e *effects) makeCounters() {
	e.t.Helper()
	for _, text := range []string{makeCounters, "insert into counters select i, 0 from generate_series(0, 7) i"} {
		if _, err := e.conn.Exec(e.t.Context(), text); err != nil {
			e.t.Fatal(err)
		}
	}
}

// quiet is the logger of a DB that has much to complain of.
var quiet = slog.New(slog.DiscardHandler)

// Package faults tests that sessions keep their word when all else fails. On
// SQLite the disk fails or is full, and the process is killed; the load is made of
// sessions that read lists and append to them, so that package history can tell
// whether what they were told can be true. On PostgreSQL connections end at any
// message, and the server is killed; there rows have a marker of who made them.
package faults

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"modernc.org/sqlite"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/faults/history"
)

// lists is how many there are. With few of them sessions get in each other's
// way.
const lists = 4

// Open opens the database of a load.
func Open(ctx context.Context, path string) (*thole.DB, error) {
	return thole.OpenConfig(ctx, &thole.Config{
		SQLite:  &thole.SQLiteConfig{Path: path, Driver: checkpointOften},
		Logger:  slog.New(slog.DiscardHandler),
		Session: thole.SessionOptions{LockTimeout: time.Minute}, // a machine that is busy elsewhere is no failure
	})
}

// checkpointOften has a short load write to the database itself and begin its
// log anew.
func checkpointOften(d *sqlite.Driver) error {
	d.RegisterConnectionHook(func(c sqlite.ExecQuerierContext, _ string) error {
		_, err := c.ExecContext(context.Background(), "PRAGMA wal_autocheckpoint=16", nil)
		return err
	})
	return nil
}

// Create makes the lists. Each has a page of its own and needs another soon, so
// that a part of a commit is a part of a session.
func Create(ctx context.Context, db *thole.DB) error {
	return db.WithSession(ctx, func(tx *thole.Tx) error {
		const table = "CREATE TABLE IF NOT EXISTS lists (list INTEGER PRIMARY KEY, tokens TEXT, page BLOB)"
		if _, err := tx.ExecContext(tx.Context(), table); err != nil {
			return err
		}
		for list := range lists {
			const row = "INSERT OR IGNORE INTO lists VALUES (?, '', zeroblob(3000))"
			if _, err := tx.ExecContext(tx.Context(), row, list); err != nil {
				return err
			}
		}
		return nil
	})
}

// Load is sessions that end in every way, in disorder.
type Load struct {
	DB   *thole.DB
	Name string // begins the ids of its sessions
	Seed uint64

	// Told is called when a session has ended, with its error, by whoever ran
	// it.
	Told func(history.Session, error)

	// Early breaks the rule that nil means committed, to see whether that is
	// found: a session is told so before its COMMIT.
	Early bool
}

// clock tells what came first in this process.
var clock atomic.Int64

// Run runs sessions in so many goroutines, each so many, or until ctx is done.
func (l *Load) Run(ctx context.Context, workers, each int) {
	var all sync.WaitGroup
	for worker := range workers {
		all.Go(func() {
			random := rand.New(rand.NewPCG(l.Seed, uint64(worker)))
			for i := 0; i < each && ctx.Err() == nil; i++ {
				l.session(ctx, random, fmt.Sprintf("%s%d.%d", l.Name, worker, i))
			}
		})
	}
	all.Wait()
}

// errOwn ends sessions that fail by themselves.
var errOwn = errors.New("fn's own error")

// ending is how a session is meant to end.
type ending uint8

const (
	commits ending = iota
	fails
	panics
	cancelled
)

// running is a session in progress.
type running struct {
	load  *Load
	lists []int // that it appends to
	nests bool
	ends  ending
	seen  history.Session // of the last attempt
	early bool            // it was told already
}

// draw decides what a session does.
func (l *Load) draw(random *rand.Rand, id string) *running {
	r := &running{load: l, seen: history.Session{ID: id}}
	for range random.IntN(4) { // one that appends nothing is read-only
		r.lists = append(r.lists, random.IntN(lists))
	}
	r.nests = random.IntN(4) == 0
	endings := []ending{fails, panics, cancelled, cancelled}
	if n := random.IntN(12); n < len(endings) {
		r.ends = endings[n]
	}
	return r
}

// session runs a session and tells what it did.
func (l *Load) session(ctx context.Context, random *rand.Rand, id string) {
	r := l.draw(random, id)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if r.ends == cancelled {
		const longest = 3 * time.Millisecond
		defer time.AfterFunc(rand.N(longest), cancel).Stop()
	}
	began := clock.Add(1)
	err := r.run(ctx)
	r.seen.Began, r.seen.Ended = began, clock.Add(1)
	if !r.early {
		l.tell(&r.seen, err)
	}
}

// tell tells what became of a session.
func (l *Load) tell(seen *history.Session, err error) {
	seen.Outcome = thole.OutcomeOf(err)
	seen.Trusted = errors.Is(err, errOwn) && !errors.Is(err, thole.ErrTxAborted) && !errors.Is(err, errPanic)
	l.Told(*seen, err)
}

// errPanic is a panic of a session's own. It can't say that what it has read was
// undone, and so is not trusted.
var errPanic = fmt.Errorf("panic: %w", errOwn)

func (r *running) run(ctx context.Context) (err error) {
	defer func() {
		if caught := recover(); caught != nil {
			if caught != any(errPanic) {
				panic(caught)
			}
			err = errPanic
		}
	}()
	return r.load.DB.WithSessionOptions(ctx, thole.SessionOptions{ReadOnly: len(r.lists) == 0}, r.fn)
}

func (r *running) fn(tx *thole.Tx) error {
	r.seen = history.Session{ID: r.seen.ID} // this may be another attempt
	if err := r.work(tx); err != nil {
		return err
	}
	switch r.ends {
	case fails:
		return errOwn
	case panics:
		panic(errPanic)
	}
	if r.load.Early {
		r.early = true
		r.load.tell(&r.seen, nil)
	}
	return nil
}

func (r *running) work(tx *thole.Tx) error {
	if len(r.lists) == 0 {
		return r.readAll(tx)
	}
	if r.nests {
		if err := r.undo(tx); err != nil {
			return err
		}
	}
	for i, list := range r.lists {
		added := history.Append{List: list, Token: history.Token(r.seen.ID, i+1, len(r.lists))}
		if err := r.nest(tx, func(tx *thole.Tx) error { return r.add(tx, added) }); err != nil {
			return err
		}
		r.seen.Appends = append(r.seen.Appends, added)
	}
	return nil
}

func (r *running) readAll(tx *thole.Tx) error {
	for list := range lists {
		if _, err := r.read(tx, list); err != nil {
			return err
		}
	}
	return nil
}

// undo appends in a nested session that fails, which is no failure of r's.
func (r *running) undo(tx *thole.Tx) error {
	err := tx.WithSession(tx.Context(), func(tx *thole.Tx) error {
		if err := r.add(tx, history.Append{List: r.lists[0], Token: history.Undone(r.seen.ID)}); err != nil {
			return err
		}
		return errOwn
	})
	if errors.Is(err, errOwn) {
		return nil
	}
	return err
}

// nest runs fn in a nested session when r nests.
func (r *running) nest(tx *thole.Tx, fn func(tx *thole.Tx) error) error {
	if !r.nests {
		return fn(tx)
	}
	return tx.WithSession(tx.Context(), fn)
}

// add reads a list and writes it with one token more: what others have written
// meanwhile would be lost.
func (r *running) add(tx *thole.Tx, a history.Append) error {
	tokens, err := r.read(tx, a.List)
	if err != nil {
		return err
	}
	text := strings.Join(append(tokens, a.Token), " ")
	_, err = tx.ExecContext(tx.Context(), "UPDATE lists SET tokens = ? WHERE list = ?", text, a.List)
	return err
}

func (r *running) read(tx *thole.Tx, list int) ([]string, error) {
	var text string
	if err := tx.GetContext(tx.Context(), &text, "SELECT tokens FROM lists WHERE list = ?", list); err != nil {
		return nil, err
	}
	tokens := strings.Fields(text)
	r.seen.Reads = append(r.seen.Reads, history.Read{List: list, Tokens: tokens})
	return tokens, nil
}

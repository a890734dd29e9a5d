package faults

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/link"
	"github.com/tholedb/thole/internal/testdb"
)

// work is something that a program does, with the marker of the row that it
// makes.
type work struct {
	run   func(ctx context.Context, db *thole.DB, marker string) error
	whole [2]int // rows with the marker, and their changes
	until string // the statement before which nothing is done
}

const (
	insert = "insert into effects (marker) values (?)"
	change = "update effects set changes = changes + 1 where marker = ?"
	other  = "update effects set changes = changes + 1 where marker = 'nobody'"
)

// works are run one after the other, and each over a connection that ends at each
// of its messages.
var works = map[string]work{
	"session":      {inSession(thole.SessionOptions{}, threeStatements), [2]int{1, 1}, "commit"},
	"retried":      {inSession(thole.SessionOptions{Isolation: sql.LevelSerializable, MaxAttempts: 3}, threeStatements), [2]int{1, 1}, "commit"},
	"savepoints":   {inSession(thole.SessionOptions{}, savepoints), [2]int{1, 1}, "commit"},
	"rows":         {inSession(thole.SessionOptions{}, readAndWrite), [2]int{1, 0}, "commit"},
	"array":        {inSession(thole.SessionOptions{}, insertAll(2)), [2]int{1, 7}, "commit"},
	"copy":         {inSession(thole.SessionOptions{}, insertAll(1000)), [2]int{1, 7}, "commit"},
	"read-only":    {inSession(thole.SessionOptions{ReadOnly: true}, readRows), [2]int{}, "nothing"},
	"rolled back":  {rolledBack, [2]int{}, "nothing"},
	"key":          {withKey, [2]int{1, 1}, "nothing"},
	"script":       {script, [2]int{1, 1}, "commit"},
	"returning":    {returning, [2]int{1, 0}, ""},
	"arguments":    {arguments, [2]int{1, 0}, ""},
	"no arguments": {noArguments, [2]int{1, 0}, ""},
}

func inSession(opts thole.SessionOptions, fn func(tx *thole.Tx, marker string) error) func(context.Context, *thole.DB, string) error {
	return func(ctx context.Context, db *thole.DB, marker string) error {
		return db.WithSessionOptions(ctx, opts, func(tx *thole.Tx) error { return fn(tx, marker) })
	}
}

// withKey is never unknown: the key tells.
func withKey(ctx context.Context, db *thole.DB, marker string) error {
	return inSession(thole.SessionOptions{IdempotencyKey: marker}, threeStatements)(ctx, db, marker)
}

func arguments(ctx context.Context, db *thole.DB, marker string) error {
	_, err := db.ExecContext(ctx, insert, marker)
	return err
}

func noArguments(ctx context.Context, db *thole.DB, marker string) error {
	_, err := db.ExecContext(ctx, literally(insert, marker))
	return err
}

func returning(ctx context.Context, db *thole.DB, marker string) error {
	return db.GetContext(ctx, new(string), insert+" returning marker", marker)
}

// script is a session of its own.
func script(ctx context.Context, db *thole.DB, marker string) error {
	_, err := db.ExecContext(ctx, literally(insert+"; "+change, marker))
	return err
}

// literally has the marker in the text.
func literally(query, marker string) string { return strings.ReplaceAll(query, "?", "'"+marker+"'") }

func threeStatements(tx *thole.Tx, marker string) error {
	if err := tx.GetContext(tx.Context(), new(string), insert+" returning marker", marker); err != nil {
		return err
	}
	if _, err := tx.ExecContext(tx.Context(), change, marker); err != nil {
		return err
	}
	_, err := tx.ExecContext(tx.Context(), other)
	return err
}

// savepoints has a nested session that stays, and one that is undone.
func savepoints(tx *thole.Tx, marker string) error {
	if _, err := tx.ExecContext(tx.Context(), insert, marker); err != nil {
		return err
	}
	nested := func(end error) error {
		return tx.WithSession(tx.Context(), func(tx *thole.Tx) error {
			if _, err := tx.ExecContext(tx.Context(), change, marker); err != nil {
				return err
			}
			return end
		})
	}
	if err := nested(errOwn); !errors.Is(err, errOwn) {
		return err
	}
	return nested(nil)
}

// readRows reads rows one by one.
func readRows(tx *thole.Tx, _ string) error {
	rows, err := tx.QueryContext(tx.Context(), "select marker from effects limit 3")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(new(string)); err != nil {
			return err
		}
	}
	return rows.Err()
}

func readAndWrite(tx *thole.Tx, marker string) error {
	if err := readRows(tx, marker); err != nil {
		return err
	}
	_, err := tx.ExecContext(tx.Context(), insert, marker)
	return err
}

func rolledBack(ctx context.Context, db *thole.DB, marker string) error {
	err := db.WithSession(ctx, func(tx *thole.Tx) error {
		if err := threeStatements(tx, marker); err != nil {
			return err
		}
		return errOwn
	})
	if errors.Is(err, errOwn) && thole.OutcomeOf(err) == thole.RolledBack {
		return nil
	}
	return err
}

// effect is a row of effects.
type effect struct {
	Marker  string
	Changes int
}

func (effect) TableName() string { return "effects" }

// insertAll adds so many rows, of which one has the marker.
func insertAll(n int) func(tx *thole.Tx, marker string) error {
	return func(tx *thole.Tx, marker string) error {
		rows := slices.Repeat([]effect{{"another", 7}}, n)
		rows[n/2].Marker = marker
		return thole.InsertAll(tx.Context(), tx, rows)
	}
}

// modes are the options of a URL that say how statements run.
var modes = map[string]string{
	"by name":        "default_query_exec_mode=cache_statement",
	"by description": "default_query_exec_mode=cache_describe",
	"by text":        "default_query_exec_mode=exec",
	"pooler":         "pooler=transaction",
}

// fates are the ways to end a connection at a message.
var fates = []link.Fate{
	{Ends: link.Before}, {Ends: link.After}, {Ends: link.Before, Reset: true}, {Ends: link.After, Reset: true}, {Ends: link.Inside},
}

// cuts does work over a link that is cut.
type cuts struct {
	t       *testing.T
	link    *link.Link
	effects *effects
	ping    func() error
	run     func(marker string) error
	told    func(error) thole.Outcome
	whole   [2]int
	until   string
	from    []string // states of the connection

	runs   int
	points map[thole.Outcome]int // that were cut, by what was told
	lies   []string
}

// newCuts is for work with thole.
func newCuts(t *testing.T, options string, w work) *cuts {
	t.Helper()
	own := testdb.Postgres(t)
	c := &cuts{
		t: t, link: new(link.Link), effects: newEffects(t, own), told: thole.OutcomeOf,
		whole: w.whole, until: w.until, from: []string{"used"}, points: make(map[thole.Outcome]int),
	}
	cfg, err := thole.ParseURL(own + "&" + options)
	if err != nil {
		t.Fatal(err)
	}
	c.link.Stand(cfg.Postgres)
	cfg.Postgres.MaxConns = 1
	cfg.Logger = quiet
	db, err := thole.OpenConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	c.ping = func() error { return db.GetContext(t.Context(), new(int), "select 1") }
	c.run = func(marker string) error { return w.run(t.Context(), db, marker) }
	return c
}

// newNaive is for a session of pgx alone, whose errors are believed as far as
// they are called safe to retry.
func newNaive(t *testing.T) *cuts {
	t.Helper()
	own := testdb.Postgres(t)
	c := &cuts{
		t: t, link: new(link.Link), effects: newEffects(t, own),
		whole: [2]int{1, 0}, from: []string{"used"}, points: make(map[thole.Outcome]int),
	}
	cfg, err := pgxpool.ParseConfig(own)
	if err != nil {
		t.Fatal(err)
	}
	c.link.Stand(cfg)
	cfg.MaxConns = 1
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	c.ping = func() error { return pool.Ping(t.Context()) }
	c.run = func(marker string) error {
		return pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), "insert into effects (marker) values ($1)", marker)
			return err
		})
	}
	c.told = func(err error) thole.Outcome {
		switch {
		case err == nil:
			return thole.Committed
		case pgconn.SafeToRetry(err):
			return thole.RolledBack
		default:
			return thole.Unknown
		}
	}
	return c
}

// states are what the pool's one connection may be when the work begins.
var states = map[string]func(c *cuts){
	"new": func(c *cuts) { c.connect() },
	"used": func(c *cuts) {
		c.connect()
		if err := c.run(fmt.Sprint("before", c.runs)); err != nil {
			c.t.Errorf("without a cut: %v", err)
		}
	},
	"dead": func(c *cuts) {
		c.connect()
		c.link.Cut()
	},
}

// connect has the pool connect anew: its connection is dead, which it may not
// know.
func (c *cuts) connect() {
	c.t.Helper()
	err := c.ping()
	if err != nil {
		err = c.ping()
	}
	if err != nil {
		c.t.Fatalf("without a cut: %v", err)
	}
}

// everywhere does the work with each cut that there is.
func (c *cuts) everywhere() {
	for _, state := range c.from {
		for _, fate := range fates {
			for _, sent := range []bool{true, false} {
				for n := 1; c.at(fmt.Sprintf("%s, message %d, sent %v, %+v", state, n, sent, fate), states[state], sent, n, fate); n++ {
				}
			}
		}
	}
}

// at does the work with a connection that ends at the n-th message from a side.
// It reports whether there was one.
func (c *cuts) at(point string, begin func(*cuts), sent bool, n int, fate link.Fate) bool {
	begin(c)
	c.runs++
	marker, mark := fmt.Sprint("m", c.runs), c.link.Mark()
	c.link.Judge(func(m link.Message) link.Fate {
		if m.Sent != sent || n == 0 {
			return link.Fate{}
		}
		if n--; n > 0 {
			return link.Fate{}
		}
		return fate
	})
	err := c.run(marker)
	c.link.Judge(nil)
	c.link.Cut()
	c.effects.awaitNobody()
	rows, changes := c.effects.of(marker)
	outcome := c.told(err)
	wrong := lie(outcome, rows, changes, c.whole)
	switch {
	case n > 0 && err != nil:
		wrong = "it failed without a cut"
	case n == 0:
		c.points[outcome]++
	}
	messages := c.link.Since(mark)
	if wrong == "" && outcome == thole.Unknown && !c.mayBeDone(messages) {
		wrong = "unknown for no reason"
	}
	if wrong != "" {
		c.lies = append(c.lies, fmt.Sprintf("%s: %s: told %v (%v)\n%s", point, wrong, outcome, err, messages))
	}
	return n == 0
}

// mayBeDone reports whether the client has sent the statement that counts, or may
// have, as it had its answer to the one before.
func (c *cuts) mayBeDone(messages string) bool {
	return strings.Contains(messages, c.until) || strings.HasSuffix(messages, "Z T")
}

// Every connection is cut at each message, and what is told of the work is true.
func TestCuts(t *testing.T) {
	t.Parallel()
	var points atomic.Int64
	t.Cleanup(func() { t.Logf("%d cut points", points.Load()) })
	for mode, options := range modes {
		for name, w := range works {
			if mode != "by name" && name != "session" {
				continue // an outcome has nothing to do with how statements run
			}
			t.Run(mode+"/"+name, func(t *testing.T) {
				t.Parallel()
				c := newCuts(t, options, w)
				if name == "session" {
					c.from = []string{"new", "used", "dead"}
				}
				c.everywhere()
				points.Add(c.count())
				wantSound(t, "cut", c.lies)
			})
		}
	}
}

// count is how many points were cut.
func (c *cuts) count() (n int64) {
	for _, of := range c.points {
		n += int64(of)
	}
	c.t.Logf("%d cut points: %v", n, c.points)
	return n
}

// What pgx calls safe to retry is a lie at some points.
func TestCutsHaveTeeth(t *testing.T) {
	t.Parallel()
	c := newNaive(t)
	c.everywhere()
	n := slices.IndexFunc(c.lies, func(lie string) bool { return strings.Contains(lie, "false failure") })
	if n < 0 {
		t.Fatalf("nothing was found at %d points", c.count())
	}
	t.Logf("found: %s", c.lies[n])
}

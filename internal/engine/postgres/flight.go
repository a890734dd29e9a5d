package postgres

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tholedb/thole/internal/engine"
)

// This file sends what opens a transaction or a savepoint in the same flight as
// the statement that needs it, by pgconn's pipeline: the server skips the rest up
// to Sync where one of them fails, so that no statement runs outside its
// transaction.
//
// https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-PIPELINING

// command is a text of our own that waits for a statement to go ahead of.
type command struct {
	text   string
	params [][]byte

	begins    bool // the transaction
	savepoint int  // the number of the one that it opens, or 0
	fixes     bool // the mode of the transaction, which a SELECT behind it does as well
}

// ahead are the commands that wait, in their order.
type ahead struct {
	commands []command
	begun    bool // the server has begun the transaction
}

// opening is what begins a transaction with its options.
func opening(opts engine.Options) []command {
	if plain(opts) {
		return plainOpening
	}
	begin := "begin" + isolations[opts.Isolation].option
	if opts.ReadOnly {
		begin += " read only"
	}
	if opts.Deferrable {
		begin += " deferrable"
	}
	commands := []command{{text: begin, begins: true}}
	if set := settings(opts); set.text != "" {
		return append(commands, set)
	}
	if opts.ReadOnly {
		// Before its first query a transaction can still be set to read-write:
		// https://www.postgresql.org/docs/current/sql-set-transaction.html
		commands = append(commands, command{text: "select 1", fixes: true})
	}
	return commands
}

// plainOpening begins a transaction that has no options. What is put behind it
// goes elsewhere.
var plainOpening = []command{{text: "begin", begins: true}}[:1:1]

func plain(o engine.Options) bool {
	return !o.ReadOnly && o.Isolation == sql.LevelDefault && o.LockTimeout == 0 && o.StatementTimeout == 0 && len(o.Settings) == 0
}

// settings sets what lasts as long as the transaction.
func settings(opts engine.Options) command {
	var set command
	if opts.LockTimeout == 0 && opts.StatementTimeout == 0 && len(opts.Settings) == 0 {
		return set
	}
	add := func(name, value string) {
		n := len(set.params)
		set.text += fmt.Sprintf(", set_config($%d, $%d, true)", n+1, n+2)
		set.params = append(set.params, []byte(name), []byte(value))
	}
	if opts.LockTimeout > 0 {
		add("lock_timeout", milliseconds(opts.LockTimeout))
	}
	if opts.StatementTimeout > 0 {
		add("statement_timeout", milliseconds(opts.StatementTimeout))
	}
	for _, name := range slices.Sorted(maps.Keys(opts.Settings)) {
		add(name, opts.Settings[name])
	}
	set.text = "select " + strings.TrimPrefix(set.text, ", ")
	return set
}

// milliseconds are those of a timeout, whole. The server takes an int32 and reads
// 0 as none, so d is rounded up, and down from 24 days.
func milliseconds(d time.Duration) string {
	ms := d / time.Millisecond
	if d%time.Millisecond > 0 {
		ms++
	}
	return strconv.FormatInt(int64(min(ms, math.MaxInt32)), 10)
}

// savepoint opens a savepoint. With readOnly nothing is written until it ends.
func savepoint(number int, readOnly bool) []command {
	commands := []command{{text: "savepoint " + savepointName(number), savepoint: number}}
	if readOnly {
		commands = append(commands, command{text: "set local transaction_read_only = on"})
	}
	return commands
}

func savepointName(number int) string { return "thole_" + strconv.Itoa(number) }

// push lets commands wait.
func (a *ahead) push(commands ...command) { a.commands = append(a.commands, commands...) }

// withdraw drops a savepoint that was not sent, with what waits behind it. It
// reports whether there was one.
func (a *ahead) withdraw(number int) bool {
	i := slices.IndexFunc(a.commands, func(c command) bool { return c.savepoint == number })
	if i >= 0 {
		a.commands = a.commands[:i:i]
	}
	return i >= 0
}

// has reports whether a savepoint was not sent.
func (a *ahead) has(number int) bool {
	return slices.ContainsFunc(a.commands, func(c command) bool { return c.savepoint == number })
}

// waiting reports whether anything waits.
func (a *ahead) waiting() bool { return a != nil && len(a.commands) > 0 }

// send puts the commands into a flight.
func (a *ahead) send(flight *pgconn.Pipeline, query string) {
	if !a.waiting() {
		return
	}
	if i := slices.IndexFunc(a.commands, func(c command) bool { return c.fixes }); i >= 0 && equalFold(firstWord(query), "select") {
		a.commands = slices.Concat(a.commands[:i], a.commands[i+1:])
	}
	for _, c := range a.commands {
		flight.SendQueryParams(c.text, c.params, nil, nil, nil)
	}
}

// land takes note of the commands that were answered, up to the first that
// failed.
func (a *ahead) land(flight *pgconn.Pipeline) error {
	for a.waiting() {
		if err := endOf(flight); err != nil {
			return err
		}
		a.begun = a.begun || a.commands[0].begins
		a.commands = a.commands[1:]
	}
	return nil
}

// endOf reads the next answer of a flight to its end.
func endOf(flight *pgconn.Pipeline) error {
	got, err := flight.GetResults()
	if err != nil {
		return err
	}
	if reader, ok := got.(*pgconn.ResultReader); ok {
		_, err = reader.Close()
	}
	return err
}

// catchUp sends what waits, for what can't be in a flight.
func (c *conn) catchUp(ctx context.Context) error {
	if !c.ahead.waiting() {
		return nil
	}
	flight := c.wire.StartPipeline(ctx)
	c.ahead.send(flight, "")
	if err := flight.Sync(); err != nil {
		return err
	}
	err := c.ahead.land(flight)
	if closing := flight.Close(); err == nil {
		err = closing
	}
	return err
}

// fly sends a statement behind what waits. One that is not ready is described
// first, in a flight of its own; what it does is done in the second.
func (c *conn) fly(ctx context.Context, run *running, ready bool) (r *result, err error) {
	flight := c.wire.StartPipeline(ctx)
	defer func() {
		if r == nil { // it failed, or an argument panicked
			c.callOff(flight, run)
		}
	}()
	reader, err := c.cross(ctx, flight, run, ready)
	if err != nil {
		return nil, err
	}
	return &result{conn: c, reader: reader, flight: flight}, nil
}

// callOff ends a flight whose statement has no result. What that says was said
// before.
func (c *conn) callOff(flight *pgconn.Pipeline, run *running) {
	if !c.wire.IsClosed() && !run.synced {
		_ = flight.Sync() // the connection is closed where that fails
	}
	_ = flight.Close()
}

// cross takes a flight to the answer of its statement.
func (c *conn) cross(ctx context.Context, flight *pgconn.Pipeline, run *running, ready bool) (*pgconn.ResultReader, error) {
	c.ahead.send(flight, run.text)
	if !ready {
		var err error
		if run.known, err = c.describe(flight, run); err != nil {
			return nil, err
		}
		run.fresh = true
		if err := c.encode(run.known, run.args); err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	c.post(flight, run)
	run.synced = true
	if err := flight.Sync(); err != nil {
		return nil, err
	}
	if err := c.ahead.land(flight); err != nil {
		return nil, err
	}
	got, err := flight.GetResults()
	if err != nil {
		return nil, err
	}
	return got.(*pgconn.ResultReader), nil
}

// describe has the server look at a statement, behind what waits, and keeps what
// it says.
func (c *conn) describe(flight *pgconn.Pipeline, run *running) (*statement, error) {
	name := ""
	dead := c.known.dead
	if run.protocol == byName {
		name = nameOf(c.key(run.text))
		dead = append(dead, name) // which the server may have from an attempt that failed
	}
	for _, forgotten := range dead {
		flight.SendDeallocate(forgotten)
	}
	flight.SendPrepare(name, run.text, nil)
	flight.SendFlushRequest()
	if err := flight.Flush(); err != nil {
		return nil, err
	}
	if err := c.ahead.land(flight); err != nil {
		return nil, err
	}
	for range dead {
		if err := endOf(flight); err != nil {
			return nil, err
		}
	}
	c.known.dead = nil
	got, err := flight.GetResults()
	if err != nil {
		return nil, err
	}
	known := newStatement(c.key(run.text), name, got.(*pgconn.StatementDescription), c.types())
	c.known.add(known)
	return known, nil
}

// post puts the statement itself into a flight.
func (c *conn) post(flight *pgconn.Pipeline, run *running) {
	c.sent, c.used = true, true
	switch known := run.known; {
	case known == nil:
		flight.SendQueryParams(run.text, c.builder.ParamValues, nil, c.builder.ParamFormats, nil)
	case known.wire.Name == "":
		flight.SendQueryParams(run.text, c.builder.ParamValues, known.params.ParamOIDs, c.builder.ParamFormats, nil)
	default:
		flight.SendQueryStatement(known.wire, c.builder.ParamValues, c.builder.ParamFormats, run.formats())
	}
}

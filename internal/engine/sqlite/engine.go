// Package sqlite is the engine for SQLite. Everything that knows SQLite is here.
//
// One connection writes and several read: who wants one waits for it in line, see [pool]. A file is in WAL mode, so
// that readers and the writer don't wait for each other. A database in memory has one connection for both.
//
// A session begins with its first statement (session.go). Those that write share transactions (writer.go), but for the
// slow ones (pace.go); between two of them the writer looks after the log (wal.go) and leaves room for other processes
// (others.go). Statements stay prepared on their connection (cache.go).
package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"modernc.org/sqlite"

	"github.com/tholedb/thole/internal/engine"
	"github.com/tholedb/thole/internal/sqltext"
)

// lockTimeout is how long a session waits where its options don't say.
const lockTimeout = 5 * time.Second

// Engine is an open database.
type Engine struct {
	name   string
	cfg    Config // complete, its path absolute
	env    engine.Env
	driver sqlite.Driver
	image  []byte // what the database in memory is at first; nil for an empty one

	sparing engine.Sparing // with lines about waiting in vain

	writer        writer
	groupPatience time.Duration

	readers *pool[*slot] // in memory the writer's
	reading []*slot      // of readers
}

var _ engine.Engine = (*Engine)(nil)

// slot is the place of one connection in a pool.
type slot struct {
	home   *pool[*slot]
	conn   *conn                       // nil until it is needed, and when the last one was broken
	holder atomic.Pointer[engine.Info] // who has it, if that is known
}

func (e *Engine) makePools() {
	e.writer.slot, e.writer.pace = &slot{}, pace{}
	e.writer.line = newPool([]*slot{e.writer.slot}, e.drop)
	e.writer.line.back = e.handBack
	e.writer.slot.home = e.writer.line
	e.readers = e.writer.line
	if e.cfg.inMemory() {
		return
	}
	e.locate()
	for range e.cfg.Readers {
		e.reading = append(e.reading, new(slot))
	}
	e.readers = newPool(slices.Clone(e.reading), e.drop)
	for _, s := range e.reading {
		s.home = e.readers
	}
}

// drop closes the connection of a slot for good.
func (e *Engine) drop(s *slot) {
	if s.conn == nil {
		return
	}
	if err := s.conn.close(); err != nil {
		e.env.Log.Warn("closing a connection failed", "database", e.name, "error", explain(context.Background(), err))
	}
	s.conn = nil
}

// claim is what somebody wants a connection for.
type claim struct {
	readOnly bool
	shares   bool          // the transaction of others
	patience time.Duration // zero is until the context is done
	timeout  time.Duration // of each statement
	info     *engine.Info
}

// acquire waits for a connection. [Engine.release] gives it back.
func (e *Engine) acquire(ctx context.Context, want claim) (*slot, error) {
	from := e.writer.line
	if want.readOnly {
		from = e.readers
	}
	s, err := from.get(ctx, want.patience)
	if err != nil {
		return nil, e.explainWait(ctx, from, want, err)
	}
	s.holder.Store(want.info)
	if err := e.makeReady(ctx, s, want); err != nil {
		e.handBack(s)
		return nil, err
	}
	return s, nil
}

// makeReady makes the connection of a slot what somebody wants.
func (e *Engine) makeReady(ctx context.Context, s *slot, want claim) (err error) {
	w := &e.writer
	if s == w.slot && w.group != nil && !w.mayJoin(want) {
		_ = w.commit(context.WithoutCancel(ctx)) // those who share the transaction are told
		e.replaceBroken(s)
	}
	if s == w.slot && !want.shares {
		w.schema = schema{} // it may ATTACH another one
	}
	if s.conn == nil {
		if s.conn, err = e.connect(ctx, want.readOnly); err != nil {
			return during(ctx, "open connection", err)
		}
	}
	if err := s.conn.mend(ctx); err != nil {
		return during(ctx, "roll back what is left on the connection", err)
	}
	if err := s.conn.setQueryOnly(ctx, want.readOnly); err != nil {
		return explain(ctx, err)
	}
	s.conn.timeout = want.timeout
	return nil
}

// explainWait says why there was no connection, and who has it.
func (e *Engine) explainWait(ctx context.Context, from *pool[*slot], want claim, err error) *engine.Error {
	if errors.Is(err, errPoolClosed) {
		return &engine.Error{Kind: engine.ErrClosed, Message: engine.ErrClosed.Error()}
	}
	doing := fmt.Sprintf("wait for a reader, all %d are in use, %s", e.cfg.Readers, e.env.Sessions)
	if from == e.writer.line {
		doing = "wait for the writer, " + e.holds()
	}
	failed := &engine.Error{
		Kind: engine.ErrLocked, Message: fmt.Sprintf("%s: gave up after %s", doing, want.patience), Retry: engine.RetryAsked,
	}
	if !errors.Is(err, errWaited) {
		failed = during(ctx, doing, err)
	}
	if (errors.Is(failed, engine.ErrLocked) || errors.Is(failed, engine.ErrTimeout)) && e.sparing.Now() {
		e.env.Log.WarnContext(ctx, "thole: "+failed.Message, "database", e.name)
	}
	if from == e.writer.line && e.waitsForItself(want.info) {
		failed.Message += "; it can't let go, for this call is inside it: use its Tx, or the ctx of Tx.Context"
		failed.Err = errors.Join(failed.Err, engine.ErrNested)
		if errors.Is(failed.Kind, engine.ErrLocked) {
			failed.Kind, failed.Retry = engine.ErrNested, engine.RetryNever
		}
	}
	return failed
}

// waitsForItself reports whether the session that has the writer is around the running call. One that was opened by the
// same calls as the one that waits is another goroutine's: it is the one that waits which is found on the stack.
func (e *Engine) waitsForItself(waits *engine.Info) bool {
	holder := e.writer.slot.holder.Load()
	return holder != nil && (waits == nil || holder.Caller != waits.Caller) && holder.Caller.Encloses()
}

// holds says who holds the writer.
func (e *Engine) holds() string {
	if info := e.writer.slot.holder.Load(); info != nil {
		return info.String() + " holds it"
	}
	return "somebody has just had it"
}

// release gives a connection back, on which no transaction is open.
func (e *Engine) release(s *slot) {
	s.holder.Store(nil)
	if s.conn != nil {
		e.replaceBroken(s)
	}
	s.home.put(s)
	if s != e.writer.slot && e.writer.slot.holder.Load() != nil {
		runtime.Gosched() // readers that never pause would keep the writer from coming back from the disk
	}
}

// replaceBroken drops a connection that is broken, but for the one that the database lives in.
func (e *Engine) replaceBroken(s *slot) {
	switch {
	case !s.conn.broken:
	case e.cfg.inMemory():
		e.env.Log.Error("the connection of a database in memory is in an unknown state", "database", e.name)
	default:
		e.env.Log.Warn("replacing a connection", "database", e.name)
		e.drop(s)
	}
}

// Name implements [engine.Engine].
func (e *Engine) Name() string { return "sqlite" }

// DriverName implements [engine.Engine].
func (e *Engine) DriverName() string { return "sqlite3" }

// Dialect implements [engine.Engine].
func (e *Engine) Dialect() sqltext.Dialect { return sqltext.SQLite }

// timeLayout is how a time is written, in UTC: as SQLite's own functions and CURRENT_TIMESTAMP write it, so that equal
// times are equal texts, and sort. https://sqlite.org/lang_datefunc.html
const timeLayout = "2006-01-02 15:04:05.999999"

// CheckNamedValue leaves the conversion to database/sql: SQLite has no types of its own, and of times only texts.
func (e *Engine) CheckNamedValue(value *driver.NamedValue) error {
	converted, err := driver.DefaultParameterConverter.ConvertValue(value.Value)
	if err != nil {
		if kind := reflect.ValueOf(value.Value).Kind(); kind == reflect.Slice {
			return fmt.Errorf("SQLite has no arrays: wrap the %T in thole.Array", value.Value)
		}
		return err
	}
	value.Value = converted
	if at, ok := converted.(time.Time); ok {
		at = at.UTC()
		if year := at.Year(); year < 0 || year > 9999 {
			return errors.New("the year of a time is one from 0 to 9999 on SQLite")
		}
		value.Value = at.Format(timeLayout)
	}
	return nil
}

// Array implements [engine.Engine]. It is a JSON text.
func (e *Engine) Array(list any) (any, error) {
	if reflect.ValueOf(list).IsNil() {
		return nil, nil
	}
	elements := reflect.ValueOf(list)
	if elements.Type().Elem().Kind() == reflect.Uint8 { // would be written in base64
		numbers := make([]uint, elements.Len())
		for i := range numbers {
			numbers[i] = uint(elements.Index(i).Uint())
		}
		list = numbers
	}
	text, err := json.Marshal(list)
	return string(text), err
}

// Isolation implements [engine.Engine]. Every transaction is serializable, https://sqlite.org/isolation.html, and those
// that read do so from one snapshot, so that each level up to that is served, and Deferrable.
func (e *Engine) Isolation(asked sql.IsolationLevel) (sql.IsolationLevel, error) {
	switch asked {
	case sql.LevelDefault, sql.LevelReadUncommitted, sql.LevelReadCommitted, sql.LevelRepeatableRead,
		sql.LevelSnapshot, sql.LevelSerializable:
		return sql.LevelSerializable, nil
	}
	return 0, &engine.Error{Message: "SQLite has no isolation level " + asked.String(), Err: errors.ErrUnsupported}
}

// String is the path as it was configured, or "in-memory".
func (e *Engine) String() string { return e.name }

// Ping reads from the database.
func (e *Engine) Ping(ctx context.Context) error {
	s, err := e.acquire(ctx, claim{readOnly: true, patience: lockTimeout})
	if err != nil {
		return err
	}
	defer e.release(s)
	if _, err := s.conn.ask(ctx, "SELECT count(*) FROM sqlite_schema"); err != nil {
		return during(ctx, "ping database", err)
	}
	return nil
}

// Close implements [engine.Engine].
func (e *Engine) Close(ctx context.Context) error {
	e.readers.close()
	e.writer.line.close()
	out := e.readers.drain(ctx)
	if e.writer.line != e.readers {
		out += e.writer.line.drain(ctx)
	}
	if out == 0 {
		return nil
	}
	doing := fmt.Sprintf("close database, %d connections in use, %s", out, e.env.Sessions)
	return during(ctx, doing, ctx.Err())
}

package thole

import (
	"cmp"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tholedb/thole/internal/engine"
	"github.com/tholedb/thole/internal/engine/postgres"
	"github.com/tholedb/thole/internal/sqltext"
)

// Pgx is what [*pgxpool.Pool] and [pgx.Tx] share: the DBTX of code that sqlc
// generates for pgx, with Begin and CopyFrom.
type Pgx interface {
	Begin(ctx context.Context) (pgx.Tx, error)
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, rows pgx.CopyFromSource) (int64, error)
	SendBatch(ctx context.Context, batch *pgx.Batch) pgx.BatchResults
}

var (
	_ Pgx    = (*pgxpool.Pool)(nil)
	_ Pgx    = pgx.Tx(nil)
	_ pgx.Tx = (*pgxTx)(nil)
)

// Pgx is the database for code that is written for pgx, with pgx's own types and
// placeholders: $1 or pgx.NamedArgs. What has a ctx with a session runs in it; a
// transaction begun on it is a session of its own, with [Config.Session] and one
// attempt, or nested in that; unlike pgx's it can't be committed when the ctx of
// Begin has ended. It is nil on SQLite. Errors are those of the DB, and unwrap to
// pgx's; where a row is missing it is [pgx.ErrNoRows]. Rows keep their connection
// until they are closed, also when their ctx has ended.
func (db *DB) Pgx() Pgx {
	if db.Engine() != Postgres {
		return nil
	}
	return &pgxHandle{db: db}
}

// Pool is the pool of connections that the DB stands on, for what needs one of its
// own, as LISTEN or River's client. What runs there belongs to no session and is
// looked at by nobody. It is nil on SQLite.
func (db *DB) Pool() *pgxpool.Pool {
	if on, ok := db.engine.(interface{ Pool() *pgxpool.Pool }); ok {
		return on.Pool()
	}
	return nil
}

// Pgx is the session for code that takes a [pgx.Tx], see [DB.Pgx]. It sends
// nothing; its Commit and Rollback refuse with [ErrTxControl] and make the session
// fail: WithSession ends it. Begin opens a nested session, which Commit and
// Rollback of what it returns end. It is nil on SQLite.
//
// Where SendBatch, CopyFrom, Prepare or a statement with one of pgx's options comes
// first, BEGIN takes a round trip of its own.
//
// Conn and LargeObjects give what pgx has beneath, where nobody looks at what
// runs: a transaction that is ended there makes the session fail, its outcome
// unknown.
func (tx *Tx) Pgx() pgx.Tx {
	if tx.Engine() != Postgres {
		return nil
	}
	return &pgxTx{pgxHandle: pgxHandle{db: tx.db, tx: tx}, end: joined{tx}}
}

// pgxHandle runs statements for pgx's interfaces.
type pgxHandle struct {
	db *DB
	tx *Tx // nil for a DB
}

// Exec implements [Pgx].
func (h *pgxHandle) Exec(ctx context.Context, text string, args ...any) (tag pgconn.CommandTag, err error) {
	c, call := h.at(ctx, text)
	defer func() { err = c.settled(err, text) }()
	text, args, special, err := rewritten(call, text, args)
	if err != nil {
		return tag, err
	}
	prepared := h.prepared(text)
	_, err = c.exec(call, text, nil, func(st *statement) (_ driver.Result, err error) {
		on := st.conn.(postgres.Native)
		if !special && prepared == "" {
			tag, err = on.ExecNative(st.ctx, text, args)
			return nil, err
		}
		conn, err := on.Native(st.ctx, text, cmp.Or(prepared, text))
		if err == nil {
			tag, err = conn.Exec(st.ctx, text, args...)
		}
		return nil, err
	})
	return tag, err
}

// Query implements [Pgx]. As with pgx the rows are never nil, and tell an error
// too.
func (h *pgxHandle) Query(ctx context.Context, text string, args ...any) (pgx.Rows, error) {
	c, call := h.at(ctx, text)
	c.reads = true // pgx's rows end with their ctx when they are read on
	rows, err := h.query(c, call, text, args)
	if err != nil {
		_ = c.Close() // what it says, the statement has said
		return &noRows{err: err}, err
	}
	return rows, nil
}

func (h *pgxHandle) query(c *conn, call *call, text string, args []any) (pgx.Rows, error) {
	text, args, special, err := rewritten(call, text, args)
	if err != nil {
		return nil, err
	}
	var got pgx.Rows
	prepared := h.prepared(text)
	kept, err := c.query(call, text, nil, func(st *statement) (_ driver.Rows, err error) {
		on := st.conn.(postgres.Native)
		if !special && prepared == "" {
			rows, err := on.QueryNative(st.ctx, text, args)
			if err == nil {
				got = rows
			}
			return driverRows{rows}, err
		}
		conn, err := on.Native(st.ctx, text, cmp.Or(prepared, text))
		if err == nil {
			got, err = conn.Query(st.ctx, text, args...) //nolint:sqlclosecheck // the caller's to close
		}
		return driverRows{got}, err
	})
	if err != nil {
		return nil, err
	}
	return &pgxRows{Rows: got, kept: kept.(*rows), conn: c}, nil
}

// QueryRow implements [Pgx].
func (h *pgxHandle) QueryRow(ctx context.Context, text string, args ...any) pgx.Row {
	rows, _ := h.Query(ctx, text, args...) // which they tell
	return pgxRow{rows}
}

// CopyFrom implements [Pgx].
func (h *pgxHandle) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, from pgx.CopyFromSource) (n int64, err error) {
	if from == nil {
		return 0, failure(nil, "copy rows: there is no source")
	}
	source := &copySource{CopyFromSource: from}
	text := "insert into " + sqltext.Quote(table...) + " (" + sqltext.QuoteList(columns) + ")" // for messages
	c, call := h.at(ctx, text)
	defer func() { err = c.settled(err, text) }()
	_, err = c.exec(call, text, nil, func(st *statement) (driver.Result, error) {
		conn, err := st.conn.(postgres.Native).Native(st.ctx, text, text)
		if err == nil {
			n, err = conn.CopyFrom(st.ctx, table, columns, source)
		}
		return nil, err
	})
	if err != nil && source.err != nil {
		err = errors.Join(err, source.err)
	}
	return n, err
}

// copySource keeps the error of a source, which pgx tells the server alone.
type copySource struct {
	pgx.CopyFromSource
	err error
}

// Err implements [pgx.CopyFromSource].
func (s *copySource) Err() error {
	s.err = s.CopyFromSource.Err()
	return s.err
}

// Values implements [pgx.CopyFromSource].
func (s *copySource) Values() ([]any, error) {
	values, err := s.CopyFromSource.Values()
	if err != nil {
		s.err = err
	}
	return values, err
}

// SendBatch implements [Pgx]. Outside a session the statements of a batch happen
// together or not at all.
func (h *pgxHandle) SendBatch(ctx context.Context, batch *pgx.Batch) pgx.BatchResults {
	text := fmt.Sprintf("a batch of %d statements", batch.Len())
	c, call := h.at(ctx, text)
	c.reads = true
	var sent pgx.BatchResults
	kept, err := c.query(call, text, nil, func(st *statement) (driver.Rows, error) {
		texts := make([]string, 0, batch.Len())
		for _, queued := range batch.QueuedQueries {
			texts = append(texts, queued.SQL)
			if verb := sqltext.Control(h.db.engine.Dialect(), queued.SQL); verb != 0 {
				return nil, refused(adviceFor(verb))
			}
		}
		conn, err := st.conn.(postgres.Native).Native(st.ctx, text, texts...)
		if err != nil {
			return nil, err
		}
		sent = conn.SendBatch(st.ctx, batch)
		if sent.Tx() == nil {
			return driverBatch{sent}, nil
		}
		_ = sent.Close() // nothing of it is kept
		return nil, refused("refuse Batch.BeginTx: use WithSession, which begins and ends the transaction")
	})
	if err != nil {
		_ = c.Close() // what it says, the statement has said
		return &noBatch{err: err}
	}
	return &pgxBatch{BatchResults: sent, kept: kept.(*rows), conn: c}
}

// Begin implements [Pgx].
func (h *pgxHandle) Begin(ctx context.Context) (pgx.Tx, error) {
	if err := checkContext(ctx); err != nil {
		return nil, err
	}
	outer := h.tx
	if outer == nil {
		outer = h.db.current(ctx)
	}
	if outer == nil {
		return h.db.beginPgx(ctx)
	}
	inner, err := outer.nest(ctx, SessionOptions{ReadOnly: outer.opts.ReadOnly})
	if err != nil {
		return nil, err
	}
	return &pgxTx{pgxHandle: pgxHandle{db: h.db, tx: inner}, end: endsTx{inner, func() {}}}, nil
}

// beginPgx opens a session that its pgx.Tx ends.
func (db *DB) beginPgx(ctx context.Context) (pgx.Tx, error) {
	opts := SessionOptions{MaxAttempts: 1}.or(db.defaults) // nobody runs it again
	ctx, cancel := opts.bound(ctx)
	tx, err := db.begin(ctx, opts, &engine.Info{Label: opts.Label, Caller: engine.Here(), Began: time.Now()}, 1)
	if err != nil {
		cancel()
		return nil, err
	}
	return &pgxTx{pgxHandle: pgxHandle{db: db, tx: tx}, end: endsTx{tx, cancel}}, nil
}

// at is where a statement with ctx runs, and how: its text is not rewritten.
func (h *pgxHandle) at(ctx context.Context, text string) (*conn, *call) {
	q := queries{on: h.db, in: h.tx}
	made := q.at(ctx)
	made.query, made.bound = text, true
	return &conn{db: h.db}, made
}

// rewritten is a statement with what stands for other arguments put in. A special
// one has arguments that tell pgx how to run it.
func rewritten(call *call, text string, args []any) (_ string, _ []any, special bool, err error) {
	if len(args) == 0 {
		return text, args, false, nil
	}
	switch first := args[0].(type) {
	case pgx.NamedArgs, pgx.StrictNamedArgs:
		text, args, err = first.(pgx.QueryRewriter).RewriteQuery(call.Context, nil, text, args[1:])
		if err != nil {
			return "", nil, false, because(nil, err, "read statement")
		}
		call.query = text
		return text, args, false, nil
	case pgx.QueryRewriter, pgx.QueryExecMode, pgx.QueryResultFormats, pgx.QueryResultFormatsByOID:
		return text, args, true, nil
	}
	return text, args, false, nil
}

// prepared is what [pgxTx.Prepare] has given the name, or "".
func (h *pgxHandle) prepared(name string) string {
	if h.tx == nil {
		return ""
	}
	h.tx.session.mu.Lock()
	defer h.tx.session.mu.Unlock()
	return h.tx.session.named[name]
}

// refused is why a batch must not be kept.
func refused(why string) error {
	return &engine.Error{Kind: engine.ErrTxControl, Message: why, Aborts: engine.AbortsLevel}
}

// pgxTx is a session as a pgx.Tx.
type pgxTx struct {
	pgxHandle
	end interface {
		Commit() error
		Rollback() error
	}
}

// Commit implements [pgx.Tx]. It does not end with ctx, as WithSession's does not.
func (t *pgxTx) Commit(context.Context) error { return t.end.Commit() }

// Rollback implements [pgx.Tx].
func (t *pgxTx) Rollback(context.Context) error { return t.end.Rollback() }

// endsTx ends a level that a handle opened.
type endsTx struct {
	tx     *Tx
	cancel context.CancelFunc // releases the session's timeout
}

func (e endsTx) Commit() error {
	if e.tx.isDone() {
		return e.closed()
	}
	defer e.cancel()
	err := e.tx.end(nil)
	if err != nil && OutcomeOf(err) == RolledBack {
		return errors.Join(err, pgx.ErrTxCommitRollback) // as pgx says it
	}
	return err
}

func (e endsTx) Rollback() error {
	if e.tx.isDone() {
		return e.closed()
	}
	defer e.cancel()
	asked := failure(nil, "Rollback was called")
	if err := e.tx.end(asked); err != error(asked) { //nolint:errorlint // asked itself is not a failure
		return err
	}
	return nil
}

// closed is what pgx says of a transaction that has ended, beside the reason.
func (e endsTx) closed() error { return errors.Join(pgx.ErrTxClosed, e.tx.whyDone()) }

// Conn implements [pgx.Tx]. It begins the transaction; it is nil when that fails.
func (t *pgxTx) Conn() *pgx.Conn {
	conn, _ := t.native(t.tx.ctx, "the connection of a session")
	return conn
}

// native is the session's connection, for what runs beside thole.
func (t *pgxTx) native(ctx context.Context, text string) (conn *pgx.Conn, err error) {
	c, call := t.at(ctx, text)
	_, err = c.exec(call, text, nil, func(st *statement) (_ driver.Result, err error) {
		conn, err = st.conn.(postgres.Native).Native(st.ctx, text)
		return nil, err
	})
	return conn, err
}

// LargeObjects implements [pgx.Tx]. It begins the transaction; where that fails
// they are the zero value, which panics when it is used.
func (t *pgxTx) LargeObjects() pgx.LargeObjects {
	var objects pgx.LargeObjects
	const text = "-- large objects" // in place of BEGIN
	c, call := t.at(t.tx.ctx, text)
	_, _ = c.exec(call, text, nil, func(st *statement) (driver.Result, error) {
		conn, err := st.conn.(postgres.Native).Native(st.ctx, text)
		if err != nil {
			return nil, err
		}
		within, err := conn.BeginTx(st.ctx, pgx.TxOptions{BeginQuery: text})
		if err == nil {
			objects = within.LargeObjects()
		}
		return nil, err
	})
	return objects
}

// Prepare implements [pgx.Tx]. The statement lives as long as the connection, and
// runs by its name in the session. Behind a pooler that is the server's connection,
// which others have after the session: deallocate it there.
func (t *pgxTx) Prepare(ctx context.Context, name, text string) (described *pgconn.StatementDescription, err error) {
	c, call := t.at(ctx, text)
	_, err = c.exec(call, text, nil, func(st *statement) (driver.Result, error) {
		conn, err := st.conn.(postgres.Native).Native(st.ctx, "prepare "+sqltext.Quote(name), text)
		if err == nil {
			described, err = conn.Prepare(st.ctx, name, text)
		}
		return nil, err
	})
	if err == nil {
		t.tx.session.name(name, text)
	}
	return described, err
}

// name keeps a statement that was prepared by a name.
func (s *session) name(name, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.named == nil {
		s.named = make(map[string]string)
	}
	s.named[name] = text
}

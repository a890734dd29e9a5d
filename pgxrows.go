package thole

import (
	"database/sql/driver"
	"errors"
	"io"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// pgxRows are rows of a session, or outside one, that are read by pgx's types.
// They keep the session busy until they are closed.
type pgxRows struct {
	pgx.Rows
	kept *rows
	conn *conn
	err  error // of reading
}

// driverRows let a session close pgx's rows.
type driverRows struct{ pgx.Rows }

// Columns implements [driver.Rows].
func (driverRows) Columns() []string { return nil }

// Next is never called: pgxRows reads.
func (driverRows) Next([]driver.Value) error { return io.EOF }

// Close implements [driver.Rows].
func (r driverRows) Close() error {
	r.Rows.Close()
	return r.Rows.Err()
}

// Next implements [pgx.Rows].
func (r *pgxRows) Next() bool {
	r.kept.mu.Lock()
	defer r.kept.mu.Unlock()
	if r.kept.closed {
		return false
	}
	err := r.kept.st.ctx.Err()
	if err == nil && r.Rows.Next() {
		return true
	}
	if err == nil {
		err = r.Rows.Err()
	}
	r.kept.read = err == nil
	if err != nil {
		r.kept.cause = r.kept.st.cut(err)
	}
	r.close()
	return false
}

// Scan implements [pgx.Rows].
func (r *pgxRows) Scan(dest ...any) error {
	r.kept.mu.Lock()
	defer r.kept.mu.Unlock()
	if r.kept.closed {
		return r.kept.st.whyClosed()
	}
	err := r.Rows.Scan(dest...)
	if err != nil {
		r.err = r.kept.st.unscanned(err)
		r.close()
		return r.err
	}
	return nil
}

// unscanned says which column could not be scanned. The error of pgx has the
// value.
func (st *statement) unscanned(err error) error {
	told := failure(nil, "read rows: a row can't be scanned: see that there is a destination for each column, and a column for each field")
	if at, ok := errors.AsType[pgx.ScanArgError](err); ok {
		told = failure(nil, "read rows: column %q can't be scanned", at.FieldName)
	}
	told.Engine, told.Query, told.Err = Postgres, st.query, err
	return told
}

// Values implements [pgx.Rows].
func (r *pgxRows) Values() ([]any, error) {
	r.kept.mu.Lock()
	defer r.kept.mu.Unlock()
	if r.kept.closed {
		return nil, r.kept.st.whyClosed()
	}
	values, err := r.Rows.Values()
	if err != nil {
		return nil, r.kept.st.unscanned(err)
	}
	return values, nil
}

// RawValues implements [pgx.Rows].
func (r *pgxRows) RawValues() [][]byte {
	r.kept.mu.Lock()
	defer r.kept.mu.Unlock()
	if r.kept.closed {
		return nil
	}
	return r.Rows.RawValues()
}

// FieldDescriptions implements [pgx.Rows].
func (r *pgxRows) FieldDescriptions() []pgconn.FieldDescription {
	r.kept.mu.Lock()
	defer r.kept.mu.Unlock()
	if r.kept.closed {
		return nil // the connection may be somebody else's
	}
	return r.Rows.FieldDescriptions()
}

// CommandTag implements [pgx.Rows].
func (r *pgxRows) CommandTag() pgconn.CommandTag {
	r.kept.mu.Lock()
	defer r.kept.mu.Unlock()
	return r.Rows.CommandTag()
}

// Close implements [pgx.Rows].
func (r *pgxRows) Close() {
	r.kept.mu.Lock()
	defer r.kept.mu.Unlock()
	r.close()
}

func (r *pgxRows) close() {
	if r.kept.closed {
		return
	}
	if err := r.conn.settled(r.kept.close(), r.kept.st.query); err != nil && r.kept.cause == nil {
		r.kept.cause = err
	}
}

// Err implements [pgx.Rows].
func (r *pgxRows) Err() error {
	r.kept.mu.Lock()
	defer r.kept.mu.Unlock()
	if r.err != nil {
		return r.err
	}
	return r.kept.cause
}

// pgxRow is the first of rows.
type pgxRow struct{ rows pgx.Rows }

// Scan implements [pgx.Row].
func (r pgxRow) Scan(dest ...any) error {
	defer r.rows.Close()
	if !r.rows.Next() {
		if err := r.rows.Err(); err != nil {
			return err
		}
		return pgx.ErrNoRows
	}
	if err := r.rows.Scan(dest...); err != nil {
		return err
	}
	r.rows.Close()
	return r.rows.Err()
}

// noRows are those of a query that failed.
type noRows struct{ err error }

var _ pgx.Rows = (*noRows)(nil)

func (*noRows) Close()                                       {}
func (r *noRows) Err() error                                 { return r.err }
func (*noRows) CommandTag() pgconn.CommandTag                { return pgconn.CommandTag{} }
func (*noRows) FieldDescriptions() []pgconn.FieldDescription { return nil }
func (*noRows) Next() bool                                   { return false }
func (r *noRows) Scan(...any) error                          { return r.err }
func (r *noRows) Values() ([]any, error)                     { return nil, r.err }
func (*noRows) RawValues() [][]byte                          { return nil }
func (*noRows) Conn() *pgx.Conn                              { return nil }
func (*noRows) TypeMap() *pgtype.Map                         { return nil }

// pgxBatch are the results of a batch, which keep the session busy until they are
// closed.
type pgxBatch struct {
	pgx.BatchResults
	kept *rows
	conn *conn
}

// driverBatch lets a session close them.
type driverBatch struct{ pgx.BatchResults }

// Columns implements [driver.Rows].
func (driverBatch) Columns() []string { return nil }

// Next is never called: pgxBatch reads.
func (driverBatch) Next([]driver.Value) error { return io.EOF }

// Exec implements [pgx.BatchResults].
func (b *pgxBatch) Exec() (pgconn.CommandTag, error) {
	b.kept.mu.Lock()
	defer b.kept.mu.Unlock()
	if b.kept.closed {
		return pgconn.CommandTag{}, b.kept.st.whyClosed()
	}
	tag, err := b.BatchResults.Exec()
	return tag, b.cut(err)
}

// Query implements [pgx.BatchResults].
func (b *pgxBatch) Query() (pgx.Rows, error) {
	b.kept.mu.Lock()
	defer b.kept.mu.Unlock()
	if b.kept.closed {
		err := b.kept.st.whyClosed()
		return &noRows{err: err}, err
	}
	rows, err := b.BatchResults.Query()
	return batchRows{rows, b}, b.cut(err)
}

// QueryRow implements [pgx.BatchResults].
func (b *pgxBatch) QueryRow() pgx.Row {
	rows, _ := b.Query() // which they tell
	return pgxRow{rows}
}

// Close implements [pgx.BatchResults].
func (b *pgxBatch) Close() error {
	b.kept.mu.Lock()
	defer b.kept.mu.Unlock()
	return b.conn.settled(b.kept.close(), b.kept.st.query)
}

// cut explains why the batch ended early.
func (b *pgxBatch) cut(err error) error {
	if err == nil {
		return nil
	}
	return b.kept.st.cut(err)
}

// batchRows are the rows of one of its statements. They end with it.
type batchRows struct {
	pgx.Rows
	batch *pgxBatch
}

// lock reports whether the batch is open still, and keeps it so until unlock.
func (r batchRows) lock() (open bool, unlock func()) {
	kept := r.batch.kept
	kept.mu.Lock()
	return !kept.closed, kept.mu.Unlock
}

// Next implements [pgx.Rows].
func (r batchRows) Next() bool {
	open, unlock := r.lock()
	defer unlock()
	return open && r.Rows.Next()
}

// Scan implements [pgx.Rows].
func (r batchRows) Scan(dest ...any) error {
	open, unlock := r.lock()
	defer unlock()
	if !open {
		return r.batch.kept.st.whyClosed()
	}
	if err := r.Rows.Scan(dest...); err != nil {
		return r.batch.kept.st.unscanned(err)
	}
	return nil
}

// Values implements [pgx.Rows].
func (r batchRows) Values() ([]any, error) {
	open, unlock := r.lock()
	defer unlock()
	if !open {
		return nil, r.batch.kept.st.whyClosed()
	}
	values, err := r.Rows.Values()
	if err != nil {
		return nil, r.batch.kept.st.unscanned(err)
	}
	return values, nil
}

// RawValues implements [pgx.Rows].
func (r batchRows) RawValues() [][]byte {
	open, unlock := r.lock()
	defer unlock()
	if !open {
		return nil
	}
	return r.Rows.RawValues()
}

// FieldDescriptions implements [pgx.Rows].
func (r batchRows) FieldDescriptions() []pgconn.FieldDescription {
	open, unlock := r.lock()
	defer unlock()
	if !open {
		return nil // the connection may be somebody else's
	}
	return r.Rows.FieldDescriptions()
}

// CommandTag implements [pgx.Rows].
func (r batchRows) CommandTag() pgconn.CommandTag {
	_, unlock := r.lock()
	defer unlock()
	return r.Rows.CommandTag()
}

// Close implements [pgx.Rows].
func (r batchRows) Close() {
	open, unlock := r.lock()
	defer unlock()
	if open {
		r.Rows.Close()
	}
}

// Err implements [pgx.Rows].
func (r batchRows) Err() error {
	open, unlock := r.lock()
	defer unlock()
	if !open {
		return r.batch.kept.cause
	}
	return r.batch.cut(r.Rows.Err())
}

// noBatch are the results of a batch that was not sent.
type noBatch struct{ err error }

func (b *noBatch) Exec() (pgconn.CommandTag, error) { return pgconn.CommandTag{}, b.err }
func (b *noBatch) Query() (pgx.Rows, error)         { return &noRows{err: b.err}, b.err }
func (b *noBatch) QueryRow() pgx.Row                { return pgxRow{&noRows{err: b.err}} }
func (b *noBatch) Close() error                     { return b.err }
func (b *noBatch) Tx() pgx.Tx                       { return nil }

package thole

import (
	"database/sql/driver"
	"io"
	"reflect"
	"sync"
	"time"

	"github.com/tholedb/thole/internal/engine"
)

// rows are a statement's, as database/sql sees them.
type rows struct {
	driver.Rows
	st *statement

	mu     sync.Mutex // database/sql may close them while they are shut
	closed bool
}

// Next reads a row. A failure in the middle makes the session fail on both
// engines, for who breaks out of a loop often forgets to look.
func (r *rows) Next(dest []driver.Value) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return r.st.tx.whyDone()
	}
	err := r.st.ctx.Err()
	if err == nil {
		err = r.Rows.Next(dest)
	}
	if err == nil || err == io.EOF { //nolint:errorlint // the contract of driver.Rows
		return err
	}
	failed := r.st.failed(err)
	if r.st.tx != nil {
		r.st.tx.abort(engine.AbortsLevel, because(ErrTxAborted, failed, "session can't go on"))
	}
	return failed
}

// Close lets the session go on.
func (r *rows) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	defer r.st.end()
	if err := r.Rows.Close(); err != nil {
		return r.st.failed(err)
	}
	return nil
}

// draining is how long open rows may be read to their end before their
// statement is cancelled, when a session ends.
const draining = 100 * time.Millisecond

// shut closes rows that were left open.
func (r *rows) shut() {
	timer := time.AfterFunc(draining, r.st.cancel)
	defer timer.Stop()
	_ = r.Close() // the session fails anyway
}

// HasNextResultSet, NextResultSet and the methods for column types are the
// driver's, where it has them.
func (r *rows) HasNextResultSet() bool {
	sets, ok := r.Rows.(driver.RowsNextResultSet)
	return ok && sets.HasNextResultSet()
}

// NextResultSet goes on to the next result.
func (r *rows) NextResultSet() error {
	if sets, ok := r.Rows.(driver.RowsNextResultSet); ok {
		return sets.NextResultSet()
	}
	return io.EOF
}

// ColumnTypeScanType is a Go type that the column can be scanned into.
func (r *rows) ColumnTypeScanType(column int) reflect.Type {
	if types, ok := r.Rows.(driver.RowsColumnTypeScanType); ok {
		return types.ColumnTypeScanType(column)
	}
	return reflect.TypeFor[any]()
}

// ColumnTypeDatabaseTypeName is the engine's name of the column's type.
func (r *rows) ColumnTypeDatabaseTypeName(column int) string {
	if types, ok := r.Rows.(driver.RowsColumnTypeDatabaseTypeName); ok {
		return types.ColumnTypeDatabaseTypeName(column)
	}
	return ""
}

// ColumnTypeLength is the length of a column of variable length.
func (r *rows) ColumnTypeLength(column int) (int64, bool) {
	if types, ok := r.Rows.(driver.RowsColumnTypeLength); ok {
		return types.ColumnTypeLength(column)
	}
	return 0, false
}

// ColumnTypeNullable says whether the column may be null.
func (r *rows) ColumnTypeNullable(column int) (nullable, known bool) {
	if types, ok := r.Rows.(driver.RowsColumnTypeNullable); ok {
		return types.ColumnTypeNullable(column)
	}
	return false, false
}

// ColumnTypePrecisionScale is that of a decimal column.
func (r *rows) ColumnTypePrecisionScale(column int) (precision, scale int64, ok bool) {
	if types, ok := r.Rows.(driver.RowsColumnTypePrecisionScale); ok {
		return types.ColumnTypePrecisionScale(column)
	}
	return 0, 0, false
}

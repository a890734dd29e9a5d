package thole

import (
	"database/sql/driver"
	"io"
	"reflect"
	"sync"
	"time"
)

// rows are a statement's, as database/sql sees them.
type rows struct {
	driver.Rows
	st *statement

	mu     sync.Mutex // database/sql may close them while they are shut
	closed bool
	read   bool  // to the end
	cause  error // why they were closed before that, if it is known
}

// Next reads a row. A failure in the middle makes the session fail on both
// engines, for who breaks out of a loop often forgets to look.
func (r *rows) Next(dest []driver.Value) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.cause != nil:
		return r.cause
	case r.closed:
		return r.st.whyClosed()
	}
	err := r.st.ctx.Err()
	if err == nil {
		err = r.Rows.Next(dest)
	}
	r.read = err == io.EOF //nolint:errorlint // the contract of driver.Rows
	if err == nil {
		inUTC(dest)
	}
	if err == nil || r.read {
		return err
	}
	r.cause = r.st.cut(err)
	return r.cause
}

// inUTC makes times the same on both engines; pgx has them in the zone of the
// machine.
func inUTC(values []driver.Value) {
	for i, value := range values {
		if at, ok := value.(time.Time); ok {
			values[i] = at.UTC()
		}
	}
}

// Close lets the session go on.
func (r *rows) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.close()
}

func (r *rows) close() error {
	if r.closed {
		return r.cause // whoever closes them late has not been told
	}
	r.closed = true
	defer r.st.end()
	if err := r.Rows.Close(); err != nil {
		return r.st.failed(err)
	}
	if err := r.st.ctx.Err(); err != nil && !r.read && r.st.tx != nil {
		return r.st.cut(err)
	}
	return nil
}

// expire closes rows whose ctx has ended, unless somebody else has.
func (r *rows) expire() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	if !r.read && r.cause == nil {
		r.cause = r.st.cut(r.st.ctx.Err())
	}
	if err := r.close(); r.cause == nil {
		r.cause = err
	}
	return true
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

// Columns are the names of the columns; none any more once the rows are closed,
// when the connection may be somebody else's.
func (r *rows) Columns() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	return r.Rows.Columns()
}

// ColumnTypeScanType is a Go type that the column can be scanned into.
func (r *rows) ColumnTypeScanType(column int) reflect.Type {
	r.mu.Lock()
	defer r.mu.Unlock()
	if types, ok := r.Rows.(driver.RowsColumnTypeScanType); ok && !r.closed {
		return types.ColumnTypeScanType(column)
	}
	return reflect.TypeFor[any]()
}

// ColumnTypeDatabaseTypeName is the engine's name of the column's type.
func (r *rows) ColumnTypeDatabaseTypeName(column int) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if types, ok := r.Rows.(driver.RowsColumnTypeDatabaseTypeName); ok && !r.closed {
		return types.ColumnTypeDatabaseTypeName(column)
	}
	return ""
}

// ColumnTypeLength is the length of a column of variable length.
func (r *rows) ColumnTypeLength(column int) (int64, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if types, ok := r.Rows.(driver.RowsColumnTypeLength); ok && !r.closed {
		return types.ColumnTypeLength(column)
	}
	return 0, false
}

// ColumnTypeNullable says whether the column may be null.
func (r *rows) ColumnTypeNullable(column int) (nullable, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if types, ok := r.Rows.(driver.RowsColumnTypeNullable); ok && !r.closed {
		return types.ColumnTypeNullable(column)
	}
	return false, false
}

// ColumnTypePrecisionScale is that of a decimal column.
func (r *rows) ColumnTypePrecisionScale(column int) (precision, scale int64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if types, ok := r.Rows.(driver.RowsColumnTypePrecisionScale); ok && !r.closed {
		return types.ColumnTypePrecisionScale(column)
	}
	return 0, 0, false
}

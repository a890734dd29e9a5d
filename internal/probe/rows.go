package probe

import (
	"database/sql/driver"
	"io"
	"reflect"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tholedb/thole/internal/engine"
	"github.com/tholedb/thole/internal/engine/postgres"
)

// follow notes how a statement ended, and how many of its rows are read after that.
func follow[T any](p *Probe, st *Statement, got T, err error) (T, error) {
	p.noted(st, affected(got), err)
	if err != nil {
		return got, err
	}
	switch rows := any(got).(type) {
	case *engine.Kept:
	case driver.Rows:
		if watched, ok := any(&watchedRows{Rows: rows, probe: p, note: st}).(T); ok {
			return watched, nil
		}
	case *postgres.Rows:
		rows.Told(func(tag pgconn.CommandTag, _ error) { p.wereRead(st, tag.RowsAffected()) })
	}
	return got, nil
}

// wereRead notes how many rows of a statement were read.
func (p *Probe) wereRead(st *Statement, rows int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	st.Rows = rows
}

// watchedRows are rows that are counted. What the driver says of their columns it
// says, and where it says nothing they answer as database/sql does then.
type watchedRows struct {
	driver.Rows
	probe *Probe
	note  *Statement
	read  int64
}

var _ interface {
	driver.Rows
	driver.RowsColumnTypeDatabaseTypeName
	driver.RowsColumnTypeLength
	driver.RowsColumnTypeNullable
	driver.RowsColumnTypePrecisionScale
	driver.RowsColumnTypeScanType
	driver.RowsNextResultSet
} = (*watchedRows)(nil)

// Next implements [driver.Rows].
func (r *watchedRows) Next(values []driver.Value) error {
	err := r.Rows.Next(values)
	if err == nil {
		r.read++
		return nil
	}
	r.probe.wereRead(r.note, r.read)
	return err
}

// Close implements [driver.Rows].
func (r *watchedRows) Close() error {
	r.probe.wereRead(r.note, r.read)
	return r.Rows.Close()
}

// HasNextResultSet implements [driver.RowsNextResultSet].
func (r *watchedRows) HasNextResultSet() bool {
	rows, ok := r.Rows.(driver.RowsNextResultSet)
	return ok && rows.HasNextResultSet()
}

// NextResultSet implements [driver.RowsNextResultSet].
func (r *watchedRows) NextResultSet() error {
	if rows, ok := r.Rows.(driver.RowsNextResultSet); ok {
		return rows.NextResultSet()
	}
	return io.EOF
}

// ColumnTypeDatabaseTypeName implements
// [driver.RowsColumnTypeDatabaseTypeName].
func (r *watchedRows) ColumnTypeDatabaseTypeName(i int) string {
	if rows, ok := r.Rows.(driver.RowsColumnTypeDatabaseTypeName); ok {
		return rows.ColumnTypeDatabaseTypeName(i)
	}
	return ""
}

// ColumnTypeLength implements [driver.RowsColumnTypeLength].
func (r *watchedRows) ColumnTypeLength(i int) (length int64, ok bool) {
	if rows, ok := r.Rows.(driver.RowsColumnTypeLength); ok {
		return rows.ColumnTypeLength(i)
	}
	return 0, false
}

// ColumnTypeNullable implements [driver.RowsColumnTypeNullable].
func (r *watchedRows) ColumnTypeNullable(i int) (nullable, ok bool) {
	if rows, ok := r.Rows.(driver.RowsColumnTypeNullable); ok {
		return rows.ColumnTypeNullable(i)
	}
	return false, false
}

// ColumnTypePrecisionScale implements [driver.RowsColumnTypePrecisionScale].
func (r *watchedRows) ColumnTypePrecisionScale(i int) (precision, scale int64, ok bool) {
	if rows, ok := r.Rows.(driver.RowsColumnTypePrecisionScale); ok {
		return rows.ColumnTypePrecisionScale(i)
	}
	return 0, 0, false
}

// ColumnTypeScanType implements [driver.RowsColumnTypeScanType].
func (r *watchedRows) ColumnTypeScanType(i int) reflect.Type {
	if rows, ok := r.Rows.(driver.RowsColumnTypeScanType); ok {
		return rows.ColumnTypeScanType(i)
	}
	return reflect.TypeFor[any]()
}

package engine

import (
	"bytes"
	"database/sql/driver"
	"errors"
	"io"
	"reflect"
)

// Kept are rows that were read to their end, so that what they came from can go
// on.
type Kept struct {
	columns []Column
	rows    [][]driver.Value
	next    int
}

var _ interface {
	driver.Rows
	driver.RowsColumnTypeDatabaseTypeName
	driver.RowsColumnTypeLength
	driver.RowsColumnTypeNullable
	driver.RowsColumnTypePrecisionScale
	driver.RowsColumnTypeScanType
} = (*Kept)(nil)

// Keep reads rows to their end and closes them. What their columns are is asked
// for while they are open.
func Keep(rows driver.Rows) (kept *Kept, err error) {
	defer func() { err = errors.Join(err, rows.Close()) }()
	kept = &Kept{columns: ColumnsOf(rows)}
	for {
		row := make([]driver.Value, len(kept.columns))
		if err := rows.Next(row); errors.Is(err, io.EOF) {
			return kept, nil
		} else if err != nil {
			return nil, err
		}
		for i, value := range row {
			if b, ok := value.([]byte); ok {
				row[i] = bytes.Clone(b) // the driver's own buffer
			}
		}
		kept.rows = append(kept.rows, row)
	}
}

// Len is how many rows there are.
func (k *Kept) Len() int { return len(k.rows) }

// Columns implements [driver.Rows].
func (k *Kept) Columns() []string {
	names := make([]string, len(k.columns))
	for i, c := range k.columns {
		names[i] = c.Name
	}
	return names
}

// Close implements [driver.Rows].
func (k *Kept) Close() error { return nil }

// Next implements [driver.Rows].
func (k *Kept) Next(values []driver.Value) error {
	if k.next == len(k.rows) {
		return io.EOF
	}
	copy(values, k.rows[k.next])
	k.next++
	return nil
}

// ColumnTypeDatabaseTypeName implements
// [driver.RowsColumnTypeDatabaseTypeName].
func (k *Kept) ColumnTypeDatabaseTypeName(i int) string { return k.columns[i].DatabaseType }

// ColumnTypeLength implements [driver.RowsColumnTypeLength].
func (k *Kept) ColumnTypeLength(i int) (int64, bool) {
	return k.columns[i].Length, k.columns[i].HasLength
}

// ColumnTypeNullable implements [driver.RowsColumnTypeNullable].
func (k *Kept) ColumnTypeNullable(i int) (nullable, ok bool) {
	return k.columns[i].Nullable, k.columns[i].NullableKnown
}

// ColumnTypePrecisionScale implements [driver.RowsColumnTypePrecisionScale].
func (k *Kept) ColumnTypePrecisionScale(i int) (precision, scale int64, ok bool) {
	return k.columns[i].Precision, k.columns[i].Scale, k.columns[i].IsDecimal
}

// ColumnTypeScanType implements [driver.RowsColumnTypeScanType].
func (k *Kept) ColumnTypeScanType(i int) reflect.Type { return k.columns[i].ScanType }

// Column is what a driver says of a column.
type Column struct {
	Name, DatabaseType string

	Length    int64
	HasLength bool

	Nullable, NullableKnown bool

	Precision, Scale int64
	IsDecimal        bool

	ScanType reflect.Type
}

// ColumnsOf asks open rows for their columns.
func ColumnsOf(rows driver.Rows) []Column {
	names := rows.Columns()
	columns := make([]Column, len(names))
	for i, name := range names {
		c := Column{Name: name, ScanType: reflect.TypeFor[any]()}
		if r, ok := rows.(driver.RowsColumnTypeDatabaseTypeName); ok {
			c.DatabaseType = r.ColumnTypeDatabaseTypeName(i)
		}
		if r, ok := rows.(driver.RowsColumnTypeLength); ok {
			c.Length, c.HasLength = r.ColumnTypeLength(i)
		}
		if r, ok := rows.(driver.RowsColumnTypeNullable); ok {
			c.Nullable, c.NullableKnown = r.ColumnTypeNullable(i)
		}
		if r, ok := rows.(driver.RowsColumnTypePrecisionScale); ok {
			c.Precision, c.Scale, c.IsDecimal = r.ColumnTypePrecisionScale(i)
		}
		if r, ok := rows.(driver.RowsColumnTypeScanType); ok {
			c.ScanType = r.ColumnTypeScanType(i)
		}
		columns[i] = c
	}
	return columns
}

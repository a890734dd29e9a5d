package postgres

import (
	"bytes"
	"cmp"
	"database/sql/driver"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// result is what the server answers to a statement: rows, and then its tag.
type result struct {
	conn   *conn
	reader *pgconn.ResultReader
	flight *pgconn.Pipeline // that the statement was sent in, or nil
	known  *statement       // what it ran by, or nil

	native bool // is read by pgx's types
	names  []string
	values []converter

	kept *keptRows // where they were read to their end

	ready  bool // the next row was read already
	closed bool
	tag    pgconn.CommandTag
	err    error
	traced func(pgconn.CommandTag, error) // is told the end, or nil
}

var _ interface {
	driver.Rows
	driver.RowsColumnTypeDatabaseTypeName
	driver.RowsColumnTypeLength
	driver.RowsColumnTypePrecisionScale
	driver.RowsColumnTypeScanType
} = (*result)(nil)

// begin reads up to the first row, so that a statement which fails before it
// fails at once.
func (r *result) begin() error {
	r.ready = r.reader.NextRow()
	if !r.ready {
		if err := r.close(); err != nil {
			return err
		}
	}
	if r.native {
		return nil
	}
	fields := r.reader.FieldDescriptions()
	if r.known != nil && len(r.known.names) == len(fields) {
		r.names, r.values = r.known.names, r.known.values
		return nil
	}
	r.names, r.values = columns(fields, r.conn.types())
	return nil
}

// close reads to the end, and lets the connection go on.
func (r *result) close() error {
	if r.closed {
		return r.err
	}
	r.closed = true
	r.tag, r.err = r.reader.Close()
	if r.flight != nil {
		r.err = cmp.Or(r.err, r.flight.Close())
	}
	if r.err == nil && r.conn.see(r.tag, r.known) {
		r.err = errControlled
	}
	if r.err == nil && r.conn.autocommits && r.conn.missedStandbys() {
		r.err = errUnreplicated()
	}
	if r.traced != nil {
		r.traced(r.tag, r.err)
	}
	return r.err
}

// Columns implements [driver.Rows].
func (r *result) Columns() []string { return slices.Clone(r.names) }

// Close implements [driver.Rows].
func (r *result) Close() error { return r.close() }

// Next implements [driver.Rows].
func (r *result) Next(dest []driver.Value) error {
	if !r.advance() {
		return cmp.Or(r.close(), io.EOF)
	}
	for i, src := range r.reader.Values() {
		if src == nil {
			dest[i] = nil
			continue
		}
		var err error
		if dest[i], err = r.values[i](src); err != nil {
			return fmt.Errorf("read column %d: %w", i, err)
		}
	}
	return nil
}

// advance goes to the next row, and closes the rows where there is none.
func (r *result) advance() bool {
	if r.kept != nil {
		return r.kept.advance()
	}
	if r.closed || !r.ready && !r.reader.NextRow() {
		_ = r.close() // is told by who asks
		return false
	}
	r.ready = false
	return true
}

// ColumnTypeDatabaseTypeName implements
// [driver.RowsColumnTypeDatabaseTypeName]. It is the OID of a type that pgx does
// not know.
func (r *result) ColumnTypeDatabaseTypeName(column int) string {
	oid := r.field(column).DataTypeOID
	if t, ok := r.conn.types().TypeForOID(oid); ok {
		return strings.ToUpper(t.Name)
	}
	return strconv.FormatUint(uint64(oid), 10)
}

// lengthOfLength is how much of a type's modifier is no length.
//
// https://www.postgresql.org/docs/current/catalog-pg-attribute.html (atttypmod)
const lengthOfLength = 4

// ColumnTypeLength implements [driver.RowsColumnTypeLength].
func (r *result) ColumnTypeLength(column int) (length int64, ok bool) {
	switch field := r.field(column); field.DataTypeOID {
	case pgtype.TextOID, pgtype.ByteaOID:
		return math.MaxInt64, true
	case pgtype.VarcharOID, pgtype.BPCharOID:
		return int64(field.TypeModifier - lengthOfLength), true
	case pgtype.VarbitOID:
		return int64(field.TypeModifier), true
	}
	return 0, false
}

// ColumnTypePrecisionScale implements [driver.RowsColumnTypePrecisionScale].
func (r *result) ColumnTypePrecisionScale(column int) (precision, scale int64, ok bool) {
	field := r.field(column)
	if field.DataTypeOID != pgtype.NumericOID {
		return 0, 0, false
	}
	modifier := field.TypeModifier - lengthOfLength
	return int64(modifier >> 16 & 0xffff), int64(modifier & 0xffff), true
}

// scanTypes are the Go types of values, where they are not strings.
var scanTypes = map[uint32]reflect.Type{
	pgtype.BoolOID:        reflect.TypeFor[bool](),
	pgtype.ByteaOID:       reflect.TypeFor[[]byte](),
	pgtype.DateOID:        reflect.TypeFor[time.Time](),
	pgtype.Float4OID:      reflect.TypeFor[float32](),
	pgtype.Float8OID:      reflect.TypeFor[float64](),
	pgtype.Int2OID:        reflect.TypeFor[int16](),
	pgtype.Int4OID:        reflect.TypeFor[int32](),
	pgtype.Int8OID:        reflect.TypeFor[int64](),
	pgtype.NumericOID:     reflect.TypeFor[float64](),
	pgtype.TimestampOID:   reflect.TypeFor[time.Time](),
	pgtype.TimestamptzOID: reflect.TypeFor[time.Time](),
}

// ColumnTypeScanType implements [driver.RowsColumnTypeScanType].
func (r *result) ColumnTypeScanType(column int) reflect.Type {
	if t, ok := scanTypes[r.field(column).DataTypeOID]; ok {
		return t
	}
	return reflect.TypeFor[string]()
}

func (r *result) field(column int) pgconn.FieldDescription {
	return r.reader.FieldDescriptions()[column]
}

// keptRows are rows that were read to their end, so that their connection can go on.
type keptRows struct {
	fields []pgconn.FieldDescription
	rows   [][][]byte
	next   int
}

func (k *keptRows) advance() bool {
	k.next++
	return k.next <= len(k.rows)
}

// keep reads the rows to their end, as pgx reads them.
func (r *result) keep() error {
	kept := &keptRows{fields: slices.Clone(r.reader.FieldDescriptions())}
	for r.advance() {
		row := make([][]byte, len(kept.fields))
		for i, value := range r.reader.Values() {
			row[i] = bytes.Clone(value) // nil stays nil
		}
		kept.rows = append(kept.rows, row)
	}
	err := r.close()
	r.kept = kept
	return err
}

package thole

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"reflect"
	"time"
)

// This file reads rows for the functions that read them to their end, or close
// them, before they return. They need nothing of database/sql but its
// conversions, and of those only the unusual ones.

// source is where a reader gets its rows from: *sql.Rows, or direct.
type source interface {
	Columns() ([]string, error)
	Next() bool
	Scan(dest ...any) error
	Err() error
	Close() error
}

// direct are rows of the engine.
type direct struct {
	rows    *rows
	conn    *conn
	columns []string
	values  []driver.Value // of the row
	err     error

	convert *sql.Rows // of one column, that of feed; nil until it is needed
	feed    feed
}

var _ source = (*direct)(nil)

// read runs a query whose rows the caller reads, and closes, before it returns.
func (q *queries) read(ctx context.Context, query string, args []any) (*direct, error) {
	r := q.positional(ctx, query, args)
	c := &conn{db: q.on, reads: true}
	values, err := c.values(r.args)
	if err != nil {
		return nil, err
	}
	got, err := c.QueryContext(r.ctx, r.text, values)
	if err != nil {
		_ = c.Close() // what it says, the statement has said
		return nil, err
	}
	d := &direct{rows: got.(*rows), conn: c, columns: got.Columns()}
	d.values = make([]driver.Value, len(d.columns))
	return d, nil
}

// readOn is read on a DB or a Tx. A Querier that embeds one may have a
// QueryContext of its own.
func readOn(ctx context.Context, q Querier, query string, args []any) (source, error) {
	if q == nil {
		return nil, failure(nil, "read rows: the Querier is nil")
	}
	switch q := q.(type) {
	case *DB:
		return asSource(q.read(ctx, query, args))
	case *Tx:
		return asSource(q.read(ctx, query, args))
	}
	rows, err := q.QueryContext(ctx, query, args...) //nolint:rowserrcheck // the reader does
	if err != nil {
		return nil, err
	}
	return rows, nil
}

func asSource(d *direct, err error) (source, error) {
	if err != nil {
		return nil, err
	}
	return d, nil
}

// unread closes rows that could not be read because of err, and returns that
// with what became of their statement. What the rows themselves say tells it.
func unread(rows source, err error) error {
	d, ok := rows.(*direct)
	if !ok || d.err != nil || d.conn.tx != nil {
		return err
	}
	outcome := Outcome(d.conn.auto.Abandon())
	if closing := d.Close(); closing != nil {
		return errors.Join(err, closing)
	}
	return withOutcome(outcome, err)
}

// Columns implements [source].
func (d *direct) Columns() ([]string, error) { return d.columns, nil }

// Next implements [source].
func (d *direct) Next() bool {
	if d.err == nil {
		d.err = d.rows.Next(d.values)
	}
	return d.err == nil
}

// Err implements [source].
func (d *direct) Err() error {
	if errors.Is(d.err, io.EOF) {
		return nil
	}
	return d.err
}

// Close implements [source]. It may be called again.
func (d *direct) Close() error {
	if d.convert != nil {
		_ = d.convert.Close() // it holds nothing
	}
	err := d.rows.Close()
	_ = d.conn.Close() // what it says, the rows have said
	return err
}

// Scan implements [source], with database/sql's conversions and its errors.
func (d *direct) Scan(dest ...any) error {
	for i, value := range d.values {
		done, err := assign(dest[i], value)
		if !done {
			err = d.scanByView(dest[i], value)
		}
		if err != nil {
			return fmt.Errorf("sql: Scan error on column index %d, name %q: %w", i, d.columns[i], err)
		}
	}
	return nil
}

// scanByView has database/sql convert a value.
func (d *direct) scanByView(dest any, value driver.Value) (err error) {
	if d.convert == nil {
		views, done := d.conn.db.views()
		defer done()
		d.convert, err = views.QueryContext(&call{Context: context.Background(), feed: &d.feed}, "") //nolint:rowserrcheck // they have no end
		if err != nil {
			return err
		}
	}
	d.feed.value = value
	d.convert.Next()
	err = d.convert.Scan(dest)
	if raw, ok := dest.(*sql.RawBytes); ok {
		*raw = bytes.Clone(*raw) // the next column has the same buffer
	}
	if inner := errors.Unwrap(err); inner != nil {
		return inner // without the index and the name of its column
	}
	return err
}

// feed is rows of one value, which is another each time.
type feed struct{ value driver.Value }

func (*feed) Columns() []string { return []string{""} }
func (*feed) Close() error      { return nil }

func (f *feed) Next(values []driver.Value) error {
	values[0] = f.value
	return nil
}

// assign converts a value as database/sql does, if that is one of the usual
// conversions. It reports whether it was one.
func assign(dest any, value driver.Value) (done bool, err error) {
	switch d := dest.(type) {
	case *any:
		if b, ok := value.([]byte); ok {
			value = bytes.Clone(b)
		}
		*d = value
		return true, nil
	case *string:
		return assignString(d, value), nil
	case *[]byte:
		return assignBytes(d, value), nil
	case *sql.RawBytes:
		return assignBytes((*[]byte)(d), value), nil
	case *time.Time:
		at, ok := value.(time.Time)
		if ok {
			*d = at
		}
		return ok, nil
	case sql.Scanner:
		return true, d.Scan(value)
	}
	v := reflect.ValueOf(dest).Elem()
	if v.Kind() == reflect.Pointer {
		return assignPointer(v, value)
	}
	return assignKind(v, value), nil
}

func assignString(d *string, value driver.Value) bool {
	switch value := value.(type) {
	case string:
		*d = value
	case []byte:
		*d = string(value)
	default:
		return false
	}
	return true
}

func assignBytes(d *[]byte, value driver.Value) bool {
	switch value := value.(type) {
	case string:
		*d = []byte(value)
	case []byte:
		*d = bytes.Clone(value)
	case nil:
		*d = nil
	default:
		return false
	}
	return true
}

// assignPointer makes what a pointer points to; NULL is nil.
func assignPointer(v reflect.Value, value driver.Value) (done bool, err error) {
	if value == nil {
		v.SetZero()
		return true, nil
	}
	to := reflect.New(v.Type().Elem())
	if done, err = assign(to.Interface(), value); done && err == nil {
		v.Set(to)
	}
	return done, err
}

// assignKind converts numbers, booleans and strings, whatever their types are
// called.
func assignKind(v reflect.Value, value driver.Value) bool {
	switch value := value.(type) {
	case int64:
		return assignInt(v, value)
	case float64:
		if v.Kind() == reflect.Float64 {
			v.SetFloat(value)
			return true
		}
	case bool:
		if v.Kind() == reflect.Bool {
			v.SetBool(value)
			return true
		}
	case string:
		if v.Kind() == reflect.String {
			v.SetString(value)
			return true
		}
	}
	return false
}

func assignInt(v reflect.Value, value int64) bool {
	switch {
	case v.CanInt() && !v.OverflowInt(value):
		v.SetInt(value)
	case v.CanUint() && value >= 0 && !v.OverflowUint(uint64(value)):
		v.SetUint(uint64(value))
	case v.Kind() == reflect.Float64:
		v.SetFloat(float64(value))
	case v.Type() == reflect.TypeFor[bool]() && (value == 0 || value == 1):
		v.SetBool(value == 1)
	default:
		return false
	}
	return true
}

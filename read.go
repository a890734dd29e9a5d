package thole

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"strings"
	"time"

	"github.com/tholedb/thole/internal/fields"
)

// One reads the only row of a query. T is
//
//   - a struct: a column goes to the field of its name, see below;
//   - a map[string]any: a column goes to the key of its name;
//   - anything else that a single column scans into: a number, a string,
//     [time.Time], [JSON], [Array], a [sql.Scanner];
//   - a pointer to any of these; NULL is nil where it is one to a single value.
//
// A field is found by its db tag, else by its name in snake case (UserID by
// user_id) or in lower case as sqlx does it. "home.city" is the field City of the
// struct in the field Home; the fields of an embedded struct are found by their
// own names. A column without a field is an error, which names both; a field
// without a column stays as it was.
//
// No row is [sql.ErrNoRows]. More than one is an error: [DB.GetContext] takes the
// first.
func One[T any](ctx context.Context, q Querier, query string, args ...any) (T, error) {
	var one T
	rows, err := readOn(ctx, q, query, args)
	if err != nil {
		return one, err
	}
	defer func() { _ = rows.Close() }() // they were read to the end, or something worse has happened
	found, err := newReader(rows, reflect.TypeFor[T]()).next(reflect.ValueOf(&one).Elem())
	switch {
	case err != nil:
	case !found:
		err = sql.ErrNoRows
	case rows.Next():
		err = unread(rows, failure(nil, "read rows: there is more than one, where there should be one: %q", shorten(query)))
	default:
		err = rows.Err()
	}
	if err != nil {
		return *new(T), err
	}
	return one, nil
}

// All reads the rows of a query, as [One] reads one. Without rows it is an empty
// slice, and not nil.
func All[T any](ctx context.Context, q Querier, query string, args ...any) ([]T, error) {
	all := []T{}
	for row, err := range Each[T](ctx, q, query, args...) {
		if err != nil {
			return nil, err
		}
		all = append(all, row)
	}
	return all, nil
}

// Each reads the rows of a query one after the other, as [One] reads one. It
// sends the query when the loop begins, and again for each loop, holds one row at
// a time, and closes the rows when the loop ends or is left. An error comes in
// the place of a row, and is the last.
//
//	for user, err := range thole.Each[User](ctx, tx, "SELECT * FROM users") {
//		if err != nil {
//			return err
//		}
//		…
//	}
//
// In a session nothing else can run until the loop has ended ([ErrBusy]).
func Each[T any](ctx context.Context, q Querier, query string, args ...any) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		rows, err := readOn(ctx, q, query, args)
		if err != nil {
			yield(*new(T), err)
			return
		}
		defer func() { _ = rows.Close() }() // who leaves the loop has no use for what it says
		for r := newReader(rows, reflect.TypeFor[T]()); ; {
			var row T
			more, err := r.next(reflect.ValueOf(&row).Elem())
			switch {
			case err != nil:
				yield(*new(T), err)
				return
			case !more || !yield(row, nil):
				return
			}
		}
	}
}

// destination is what a pointer points to.
func destination(dest any) (reflect.Value, error) {
	v := reflect.ValueOf(dest)
	if v.Kind() != reflect.Pointer || v.IsNil() {
		return v, failure(nil, "read rows: the destination is a pointer that is not nil, not %T", dest)
	}
	return v.Elem(), nil
}

// readFirst reads the first row, and closes the rows.
func readFirst(rows source, dest reflect.Value) error {
	defer func() { _ = rows.Close() }() // a Scanner may panic
	found, err := newReader(rows, dest.Type()).next(dest)
	closing := rows.Close()
	switch {
	case err != nil:
		return err
	case !found:
		return sql.ErrNoRows
	}
	return closing
}

// readAll appends all rows to a slice, and closes them.
func readAll(rows source, dest reflect.Value) error {
	defer func() { _ = rows.Close() }() // they were read to the end, or something worse has happened
	for r := newReader(rows, dest.Type().Elem()); ; {
		row := reflect.New(dest.Type().Elem()).Elem()
		if more, err := r.next(row); err != nil || !more {
			return err
		}
		dest.Set(reflect.Append(dest, row))
	}
}

// reader scans rows into values of a type.
type reader struct {
	rows    source
	of      reflect.Type // but for a pointer to a struct, to the struct
	err     error        // why it can't
	columns []string
	fields  []*fields.Field // of a struct, by column
	into    []any           // what the columns are scanned into
}

func newReader(rows source, t reflect.Type) *reader {
	r := &reader{rows: rows, of: t}
	if t.Kind() == reflect.Pointer && (fields.IsStruct(t.Elem()) || isMap(t.Elem())) {
		r.of = t.Elem()
	}
	if r.columns, r.err = rows.Columns(); r.err != nil {
		return r
	}
	r.into = make([]any, len(r.columns))
	switch {
	case fields.IsStruct(r.of):
		r.findFields()
	case isMap(r.of):
	case len(r.columns) != 1:
		r.err = failure(nil, "read rows: %d columns don't go into one %s: %s", len(r.columns), r.of, strings.Join(r.columns, ", "))
	}
	return r
}

// isMap reports whether columns go to the keys of such a map.
func isMap(t reflect.Type) bool {
	return t.Kind() == reflect.Map && t.Key().Kind() == reflect.String && t.Elem() == reflect.TypeFor[any]() &&
		!reflect.PointerTo(t).Implements(reflect.TypeFor[sql.Scanner]())
}

func (r *reader) findFields() {
	s := fields.Of(r.of)
	for _, column := range r.columns {
		field, err := s.Find(column)
		if err != nil {
			r.err = because(nil, err, "read rows")
			return
		}
		r.fields = append(r.fields, field)
	}
}

// next scans the next row into v; it reports whether there was one.
func (r *reader) next(v reflect.Value) (bool, error) {
	if r.err != nil {
		return false, unread(r.rows, r.err)
	}
	if !r.rows.Next() {
		return false, r.rows.Err()
	}
	if err := r.scan(v); err != nil {
		return true, unread(r.rows, err)
	}
	return true, nil
}

func (r *reader) scan(v reflect.Value) error {
	if r.of != v.Type() {
		v.Set(reflect.New(r.of))
		v = v.Elem()
	}
	switch {
	case fields.IsStruct(r.of):
		for i, field := range r.fields {
			r.into[i] = scannable(field.Set(v).Addr().Interface())
		}
	case isMap(r.of):
		return r.scanMap(v)
	default:
		r.into[0] = scannable(v.Addr().Interface())
	}
	return r.scanInto(v.Type())
}

// scanMap makes a map of the row.
func (r *reader) scanMap(v reflect.Value) error {
	row := make([]any, len(r.columns))
	for i := range row {
		r.into[i] = &row[i]
	}
	if err := r.scanInto(v.Type()); err != nil {
		return err
	}
	v.Set(reflect.MakeMapWithSize(v.Type(), len(row)))
	for i, column := range r.columns {
		value := reflect.New(v.Type().Elem()).Elem()
		if row[i] != nil {
			value.Set(reflect.ValueOf(row[i]))
		}
		v.SetMapIndex(reflect.ValueOf(column).Convert(v.Type().Key()), value)
	}
	return nil
}

// scanInto scans the row. The text of database/sql's error has the value in it;
// ours says what went where.
func (r *reader) scanInto(t reflect.Type) error {
	err := r.rows.Scan(r.into...)
	if err == nil {
		return nil
	}
	at := 0
	if _, scanErr := fmt.Sscanf(err.Error(), "sql: Scan error on column index %d", &at); scanErr != nil || at >= len(r.columns) {
		return err // not about a value: the rows are closed
	}
	where := t.String()
	if r.fields != nil {
		where = fmt.Sprintf("%s.%s, a %s", t, r.fields[at].Go, r.fields[at].Type)
	}
	what := "its value doesn't convert"
	if strings.Contains(err.Error(), "converting NULL to") {
		what = "it is NULL; a pointer or sql.Null takes that"
	}
	failed := failure(nil, "read column %q into %s: %s", r.columns[at], where, what)
	failed.Column, failed.Err = r.columns[at], err
	return failed
}

// scannable is what a column is scanned into where that is a pointer. SQLite has
// no times, so that those which are no column's, as max(at), come as text.
func scannable(pointer any) any {
	switch p := pointer.(type) {
	case *time.Time:
		return timeScanner(func(at time.Time, valid bool) error {
			if !valid {
				return errors.New("converting NULL to time.Time is unsupported")
			}
			*p = at
			return nil
		})
	case **time.Time:
		return timeScanner(func(at time.Time, valid bool) error {
			if *p = nil; valid {
				*p = &at
			}
			return nil
		})
	case *sql.NullTime:
		return timeScanner(func(at time.Time, valid bool) error {
			*p = sql.NullTime{Time: at, Valid: valid}
			return nil
		})
	case *sql.Null[time.Time]:
		return timeScanner(func(at time.Time, valid bool) error {
			*p = sql.Null[time.Time]{V: at, Valid: valid}
			return nil
		})
	}
	return pointer
}

// timeScanner is given the time that a column has, or that it has none.
type timeScanner func(at time.Time, valid bool) error

// Scan implements [sql.Scanner].
func (set timeScanner) Scan(value any) error {
	switch value := value.(type) {
	case nil:
		return set(time.Time{}, false)
	case time.Time:
		return set(value, true)
	case string:
		return set.parse(value)
	case []byte:
		return set.parse(string(value))
	}
	return fmt.Errorf("a %T is no time", value)
}

// The texts that are times: as thole writes them on SQLite and its functions do,
// and as JSON and PostgreSQL do.
var timeLayouts = []string{
	"2006-01-02 15:04:05.999999999", time.RFC3339Nano, "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02 15:04:05.999999999Z07",
	time.DateOnly, "2006-01-02 15:04", "2006-01-02T15:04:05.999999999", "2006-01-02T15:04",
}

func (set timeScanner) parse(text string) error {
	for _, layout := range timeLayouts {
		if at, err := time.Parse(layout, text); err == nil {
			return set(at.UTC(), true)
		}
	}
	return errors.New("the text is no time")
}

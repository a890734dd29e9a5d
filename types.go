package thole

import (
	"bytes"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/tholedb/thole/internal/sqltext"
)

// JSON is a value that is stored as JSON: in a jsonb or json column on
// PostgreSQL, as text on SQLite. Both have the operators -> and ->>, with the
// same SQL for keys and indexes: `data ->> 'name'`
// (https://www.postgresql.org/docs/current/functions-json.html,
// https://www.sqlite.org/json1.html#jptr).
//
// NULL is no value of it, for JSON has its own null: use *JSON[T] or
// sql.Null[JSON[T]] for a column that may be NULL.
type JSON[T any] struct{ V T }

// Value implements [driver.Valuer].
func (j JSON[T]) Value() (driver.Value, error) {
	text, err := json.Marshal(j.V)
	if err != nil {
		return nil, fmt.Errorf("write %T as JSON: %w", j.V, err)
	}
	return string(text), nil
}

// Scan implements [sql.Scanner].
func (j *JSON[T]) Scan(value any) error {
	text, err := textOf(value)
	if err != nil {
		return fmt.Errorf("read JSON: %w", err)
	}
	var v T
	if err := json.Unmarshal(text, &v); err != nil {
		return fmt.Errorf("read JSON into %T: %w", v, err)
	}
	j.V = v
	return nil
}

// MarshalJSON is that of V.
func (j JSON[T]) MarshalJSON() ([]byte, error) { return json.Marshal(j.V) }

// UnmarshalJSON is that of V.
func (j *JSON[T]) UnmarshalJSON(text []byte) error { return json.Unmarshal(text, &j.V) }

// Array is a list that is stored as one value: as an array on PostgreSQL
// (https://www.postgresql.org/docs/current/arrays.html), as JSON on SQLite. In
// SQL that looks into it the engines differ: `? = ANY (tags)` there,
// `? IN (SELECT value FROM json_each(tags))` here.
//
// A nil Array is NULL; to tell NULL when reading, use *Array[T] or
// sql.Null[Array[T]], for a NULL reads as nil. An element that may be NULL is a
// pointer: Array[*string].
type Array[T any] []T

// list is an Array of any type.
type list interface{ elements() any }

var (
	_ list          = Array[int](nil)
	_ driver.Valuer = Array[int](nil)
	_ sql.Scanner   = (*Array[int])(nil)
	_ driver.Valuer = JSON[int]{}
	_ sql.Scanner   = (*JSON[int])(nil)
)

func (a Array[T]) elements() any { return []T(a) }

// asList is the slice of an argument that is an Array, a pointer to one, or a
// sql.Null of one; a nil one for NULL.
func asList(arg any) (slice any, ok bool) {
	v := reflect.ValueOf(arg)
	if arg != nil && v.Type().PkgPath() == "database/sql" && v.Kind() == reflect.Struct && v.NumField() == 2 { // sql.Null[T]{V, Valid}
		if null, isList := reflect.TypeAssert[list](v.Field(0)); isList {
			if arg = null; !v.Field(1).Bool() {
				arg = reflect.Zero(v.Field(0).Type()).Interface()
			}
		}
	}
	found, ok := arg.(list)
	if !ok {
		return nil, false
	}
	if v := reflect.ValueOf(found); v.Kind() == reflect.Pointer && v.IsNil() {
		return reflect.Zero(v.Type().Elem()).Interface().(list).elements(), true
	}
	return found.elements(), true
}

// Value implements [driver.Valuer], for what is not thole: it is JSON.
func (a Array[T]) Value() (driver.Value, error) {
	if a == nil {
		return nil, nil
	}
	text, err := json.Marshal([]T(a))
	if err != nil {
		return nil, fmt.Errorf("write %T as JSON: %w", a, err)
	}
	return string(text), nil
}

// Scan implements [sql.Scanner]. It reads JSON, and arrays of one dimension as
// PostgreSQL writes them.
func (a *Array[T]) Scan(value any) error {
	if value == nil {
		*a = nil
		return nil
	}
	text, err := textOf(value)
	if err != nil {
		return fmt.Errorf("read array: %w", err)
	}
	var read []T
	if sqltext.IsArray(string(text)) {
		read, err = readElements[T](string(text))
	} else {
		read, err = readJSONElements[T](text)
	}
	if err != nil {
		return fmt.Errorf("read array into %T: %w", read, err)
	}
	*a = read
	return nil
}

// readElements reads an array of PostgreSQL's.
func readElements[T any](array string) ([]T, error) {
	elements, err := sqltext.Elements(array)
	if err != nil {
		return nil, err
	}
	read := make([]T, len(elements))
	for i, element := range elements {
		if err := readElement(element, &read[i]); err != nil {
			return nil, fmt.Errorf("element %d: %w", i, err)
		}
	}
	return read, nil
}

// readJSONElements reads a list in JSON. A null that encoding/json would pass over
// is the error that it is in an array of PostgreSQL's.
func readJSONElements[T any](list []byte) (read []T, err error) {
	if err := json.Unmarshal(list, &read); err != nil || takesNull[T]() || !bytes.Contains(list, []byte("null")) {
		return read, err
	}
	var elements []*json.RawMessage
	if err := json.Unmarshal(list, &elements); err != nil {
		return nil, err
	}
	if i := slices.Index(elements, nil); i >= 0 {
		return nil, fmt.Errorf("element %d: %w", i, errNull)
	}
	return read, nil
}

// takesNull reports whether a variable of the type can be nil.
func takesNull[T any]() bool {
	switch reflect.TypeFor[T]().Kind() {
	case reflect.Pointer, reflect.Interface, reflect.Slice, reflect.Map:
		return true
	}
	return reflect.PointerTo(reflect.TypeFor[T]()).Implements(reflect.TypeFor[json.Unmarshaler]())
}

var errNull = errors.New("converting NULL to a value is unsupported")

// readElement gives the text of an element to a variable, by database/sql's own
// rules but for bytes and times.
func readElement[T any](text *string, into *T) error {
	var value any
	if text != nil {
		value = *text
	}
	if set := bytesSetter(into); set != nil && text != nil {
		data, err := sqltext.Bytes(*text)
		set(data)
		return err
	}
	if scanner, ok := scannable(into).(sql.Scanner); ok {
		return scanner.Scan(value)
	}
	var read sql.Null[T]
	if err := read.Scan(value); err != nil {
		return err
	}
	if !read.Valid && !takesNull[T]() {
		return errNull
	}
	*into = read.V
	return nil
}

// bytesSetter sets a variable that takes bytes.
func bytesSetter(into any) func([]byte) {
	switch into := into.(type) {
	case *[]byte:
		return func(data []byte) { *into = data }
	case **[]byte:
		return func(data []byte) { *into = &data }
	case *sql.Null[[]byte]:
		return func(data []byte) { *into = sql.Null[[]byte]{V: data, Valid: true} }
	}
	return nil
}

// textOf is the text that a column has.
func textOf(value any) ([]byte, error) {
	switch value := value.(type) {
	case string:
		return []byte(value), nil
	case []byte:
		return value, nil
	case int64, float64, bool: // of a column of SQLite's whose type makes a number of what looks like one
		return json.Marshal(value)
	case nil:
		return nil, errNull
	}
	return nil, fmt.Errorf("a %T is none", value)
}

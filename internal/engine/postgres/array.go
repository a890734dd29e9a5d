package postgres

import (
	"database/sql/driver"
	"fmt"
	"reflect"

	"github.com/tholedb/thole/internal/sqltext"
)

// Array implements [engine.Engine]. pgx encodes a slice as an array of the type
// that the server asks for, if it knows that. Any type can be written as text,
// those of the user's own among them, so that is what a list of texts becomes.
func (e *Engine) Array(list any) (any, error) {
	v := reflect.ValueOf(list)
	switch {
	case v.IsNil():
		return nil, nil
	case v.Type().Elem().Kind() == reflect.Uint8:
		return widened(v), nil
	}
	array := []byte{'{'}
	for i := range v.Len() {
		if i > 0 {
			array = append(array, ',')
		}
		text, null, ok, err := elementText(v.Index(i))
		switch {
		case err != nil:
			return nil, fmt.Errorf("element %d of an array: %w", i, err)
		case !ok:
			return list, nil
		case null:
			array = append(array, "NULL"...)
		default:
			array = sqltext.AppendElement(array, text)
		}
	}
	if v.Len() == 0 && !isText(v.Type().Elem()) {
		return list, nil
	}
	return string(append(array, '}')), nil
}

// widened is a list of small numbers as pgx knows one; it would be bytes to it.
func widened(v reflect.Value) []int16 {
	numbers := make([]int16, v.Len())
	for i := range numbers {
		numbers[i] = int16(v.Index(i).Uint())
	}
	return numbers
}

// isText reports whether values of the type are texts.
func isText(t reflect.Type) bool {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.Kind() == reflect.String
}

// elementText is the text that an element is; ok is false if it is none.
func elementText(v reflect.Value) (text string, null, ok bool, err error) {
	if valuer, is := reflect.TypeAssert[driver.Valuer](v); is {
		if v.Kind() == reflect.Pointer && v.IsNil() {
			return "", true, true, nil
		}
		value, err := valuer.Value()
		if err != nil {
			return "", false, false, err
		}
		if value == nil {
			return "", true, true, nil
		}
		text, ok = value.(string)
		return text, false, ok, nil
	}
	for v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
		if v.IsNil() {
			return "", true, true, nil
		}
		v = v.Elem()
	}
	return v.String(), false, v.Kind() == reflect.String, nil
}

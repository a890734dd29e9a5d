package postgres

import (
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"
)

// Array implements [engine.Engine]. pgx encodes a slice as an array of the type
// that the server asks for, if it knows that. Any type can be written as text,
// those of the user's own among them, so that is what a list of texts becomes.
func (e *Engine) Array(list any) (any, error) {
	v := reflect.ValueOf(list)
	if v.IsNil() {
		return nil, nil
	}
	var b strings.Builder
	b.WriteByte('{')
	for i := range v.Len() {
		if i > 0 {
			b.WriteByte(',')
		}
		text, null, ok, err := elementText(v.Index(i))
		switch {
		case err != nil:
			return nil, fmt.Errorf("element %d of an array: %w", i, err)
		case !ok:
			return list, nil
		case null:
			b.WriteString("NULL")
		default:
			b.WriteString(quoteElement(text))
		}
	}
	if v.Len() == 0 && !isText(v.Type().Elem()) {
		return list, nil
	}
	b.WriteByte('}')
	return b.String(), nil
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
	if valuer, is := v.Interface().(driver.Valuer); is {
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

// quoteElement writes an element so that nothing in it has a meaning,
// https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO.
func quoteElement(text string) string {
	return `"` + elementEscapes.Replace(text) + `"`
}

var elementEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// IsArray reports whether a text is an array as PostgreSQL writes it, and not
// JSON: {1,2} or, with other bounds, [0:1]={1,2}.
func IsArray(text []byte) bool {
	if len(text) == 0 {
		return false
	}
	return text[0] == '{' || text[0] == '[' && strings.Contains(before(string(text), '{'), "]=")
}

// before is the text in front of the first c.
func before(text string, c byte) string {
	head, _, _ := strings.Cut(text, string(c))
	return head
}

// ReadArray reads an array of one dimension.
func ReadArray[T any](text []byte) ([]T, error) {
	elements, err := splitArray(string(text))
	if err != nil {
		return nil, err
	}
	read := make([]T, len(elements))
	for i, e := range elements {
		if err := scanElement(e, &read[i]); err != nil {
			return nil, fmt.Errorf("element %d: %w", i, err)
		}
	}
	return read, nil
}

// element is one of an array's.
type element struct {
	text string
	null bool
}

var errArray = errors.New("the text is no array of one dimension")

// splitArray finds the elements of an array.
func splitArray(text string) ([]element, error) {
	if text != "" && text[0] == '[' {
		_, text, _ = strings.Cut(text, "=")
	}
	if len(text) < 2 || text[0] != '{' || text[len(text)-1] != '}' {
		return nil, errArray
	}
	text = text[1 : len(text)-1]
	elements := []element{}
	for text != "" || len(elements) > 0 {
		e, rest, err := cutElement(text)
		if err != nil {
			return nil, err
		}
		elements = append(elements, e)
		if rest == "" {
			break
		}
		text = rest[1:] // behind the comma
		if text == "" {
			return nil, errArray
		}
	}
	return elements, nil
}

// cutElement reads the element that a text begins with.
func cutElement(text string) (e element, rest string, err error) {
	if text == "" || text[0] == '{' {
		return e, "", errArray
	}
	if text[0] != '"' {
		end := strings.IndexByte(text, ',')
		if end < 0 {
			end = len(text)
		}
		e.text = text[:end]
		e.null = strings.EqualFold(e.text, "NULL")
		if e.text == "" || strings.ContainsAny(e.text, `{}"\`) {
			return e, "", errArray
		}
		return e, text[end:], nil
	}
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch {
		case text[i] == '\\' && i+1 < len(text):
			i++
			b.WriteByte(text[i])
		case text[i] != '"':
			b.WriteByte(text[i])
		case i+1 < len(text) && text[i+1] != ',':
			return e, "", errArray
		default:
			return element{text: b.String()}, text[i+1:], nil
		}
	}
	return e, "", errArray
}

// scanElement gives an element to a variable, by database/sql's own rules but for
// what the text of an array writes in another way.
func scanElement[T any](e element, into *T) error {
	if scanner, ok := any(into).(sql.Scanner); ok {
		if e.null {
			return scanner.Scan(nil)
		}
		return scanner.Scan(e.text)
	}
	if e.null {
		if k := reflect.TypeFor[T]().Kind(); k != reflect.Pointer && k != reflect.Interface && k != reflect.Slice {
			return errors.New("converting NULL to a value is unsupported")
		}
		return nil
	}
	switch p := any(into).(type) {
	case *[]byte:
		data, err := hex.DecodeString(strings.TrimPrefix(e.text, `\x`))
		*p = data
		return err
	case *time.Time:
		at, err := parseTime(e.text)
		*p = at
		return err
	case **time.Time:
		at, err := parseTime(e.text)
		*p = &at
		return err
	}
	var value sql.Null[T]
	if err := value.Scan(e.text); err != nil {
		return err
	}
	*into = value.V
	return nil
}

// parseTime reads a time or a date of an array, as the server writes it in ISO
// style, https://www.postgresql.org/docs/current/datatype-datetime.html.
func parseTime(text string) (time.Time, error) {
	for _, layout := range []string{
		"2006-01-02 15:04:05.999999999Z07", "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02 15:04:05.999999999", time.DateOnly,
	} {
		if at, err := time.Parse(layout, text); err == nil {
			return at.UTC(), nil
		}
	}
	return time.Time{}, errors.New("it is no time")
}

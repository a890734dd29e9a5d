package thole

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tholedb/thole/internal/fields"
	"github.com/tholedb/thole/internal/sqltext"
)

// call is a statement's ctx on its way through database/sql, which would watch
// it in a goroutine, and answer before the session has. The connection has the
// ctx itself.
type call struct {
	context.Context

	query string // as it was given; the connection is given the engine's text
	bound bool   // the arguments belong to that text already
	err   error  // why it can't run
	feed  *feed  // the rows of it, see [direct]
}

func (*call) Deadline() (time.Time, bool) { return time.Time{}, false }
func (*call) Done() <-chan struct{}       { return nil }
func (*call) Err() error                  { return nil }

// original is the ctx that a call was made with.
func original(ctx context.Context) context.Context {
	if c, ok := ctx.(*call); ok {
		return c.Context
	}
	return ctx
}

// bind turns a query and its arguments into the engine's own.
func (db *DB) bind(query string, args []any) (text string, bound []any, err error) {
	if strings.IndexByte(query, ':') >= 0 && areNamed(args) {
		t, err := db.template(query, true)
		if err != nil {
			return "", nil, err
		}
		switch {
		case t.Names == nil:
		case areNative(args):
			return db.bindNames(t, args)
		default:
			return db.bindNames(t, args[0])
		}
	}
	t, err := db.template(query, false)
	if err != nil {
		return "", nil, err
	}
	if len(args) != t.Params && !areNative(args) {
		return "", nil, wrongNumber(t.Params, len(args))
	}
	return db.bindLists(t, args)
}

func wrongNumber(want, got int) error {
	return fmt.Errorf("it takes %d arguments, not %d", want, got)
}

// areNamed reports whether args give values to names: one struct or map with
// string keys, or a pointer to it, or each a sql.NamedArg.
func areNamed(args []any) bool {
	if areNative(args) {
		return true
	}
	if len(args) != 1 || args[0] == nil {
		return false
	}
	if _, ok := args[0].(driver.Valuer); ok {
		return false
	}
	t := reflect.TypeOf(args[0])
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.Kind() == reflect.Map && t.Key().Kind() == reflect.String || fields.IsStruct(t)
}

// areNative reports whether args are database/sql's own named arguments, which
// SQLite also finds by its @name and $name.
func areNative(args []any) bool {
	return len(args) > 0 && !slices.ContainsFunc(args, func(arg any) bool { _, ok := arg.(sql.NamedArg); return !ok })
}

// bindNames gives each name of the query its value from source.
func (db *DB) bindNames(t *sqltext.Template, source any) (text string, bound []any, err error) {
	values, err := valuesOf(source)
	if err != nil {
		return "", nil, err
	}
	bound, err = values.all(t.Names)
	if err != nil {
		return "", nil, err
	}
	return db.bindLists(t, bound)
}

// bindRows repeats the row of VALUES for each element of a slice.
func (db *DB) bindRows(t *sqltext.Template, rows reflect.Value) (text string, bound []any, err error) {
	if rows.Len() == 0 {
		return "", nil, errors.New("the slice has no elements, so that there is nothing to do")
	}
	if text, err = t.WithRows(rows.Len()); err != nil {
		return "", nil, err
	}
	for i := range rows.Len() {
		values, err := valuesOf(rows.Index(i).Interface())
		if err != nil {
			return "", nil, fmt.Errorf("element %d: %w", i, err)
		}
		row, err := values.all(t.Names)
		if err != nil {
			return "", nil, fmt.Errorf("element %d: %w", i, err)
		}
		bound = append(bound, row...)
	}
	return text, bound, nil
}

// bindNamed is bind for who says that arg gives values to names.
func (db *DB) bindNamed(query string, arg any) (text string, bound []any, err error) {
	t, err := db.template(query, true)
	if err != nil {
		return "", nil, err
	}
	if v := reflect.ValueOf(arg); arg != nil && (v.Kind() == reflect.Slice || v.Kind() == reflect.Array) {
		return db.bindRows(t, v)
	}
	if t.Names == nil && t.Params > 0 {
		return "", nil, errors.New("its placeholders have no names: write :name")
	}
	return db.bindNames(t, arg)
}

// bindLists makes the text for the slices among the arguments that stand in the
// parentheses of an IN.
func (db *DB) bindLists(t *sqltext.Template, args []any) (text string, bound []any, err error) {
	var lists map[int]int
	for _, param := range t.Lists() {
		if param >= len(args) {
			continue // its name is SQLite's own
		}
		if list, ok := listIn(args[param]); ok {
			if lists == nil {
				lists = map[int]int{}
				args = slices.Clone(args)
			}
			if list.IsNil() { // a list without elements, and not NULL
				list = reflect.MakeSlice(list.Type(), 0, 0)
			}
			lists[param] = list.Len()
			args[param] = list.Interface()
		}
	}
	if lists == nil {
		return t.Text, args, nil
	}
	text, order, err := t.With(lists)
	if err != nil {
		return "", nil, err
	}
	for _, arg := range order {
		value := args[arg.Param]
		_, isList := lists[arg.Param]
		switch {
		case !arg.IsWhole():
			value = reflect.ValueOf(value).Index(arg.Element).Interface()
		case isList:
			if value, err = db.engine.Array(value); err != nil {
				return "", nil, err
			}
		}
		bound = append(bound, value)
	}
	return text, bound, nil
}

// listIn is the slice that an argument is. What has a value as a whole, such as
// bytes, is none.
func listIn(arg any) (list reflect.Value, ok bool) {
	if _, isValue := arg.(driver.Valuer); isValue || arg == nil {
		return list, false
	}
	v := reflect.ValueOf(arg)
	if v.Kind() == reflect.Pointer && !v.IsNil() {
		return listIn(v.Elem().Interface())
	}
	return v, v.Kind() == reflect.Slice && v.Type().Elem() != reflect.TypeFor[byte]()
}

// values are what the names of a query are given.
type values func(name string) (any, error)

// all is the value of each name.
func (get values) all(names []string) ([]any, error) {
	bound := make([]any, 0, len(names))
	for _, name := range names {
		value, err := get(name)
		if err != nil {
			return nil, err
		}
		bound = append(bound, value)
	}
	return bound, nil
}

// valuesOf is what arg gives to names: a struct, a map, or a list of
// sql.NamedArg.
func valuesOf(arg any) (values, error) {
	if list, ok := arg.([]any); ok {
		return valuesOfList(list), nil
	}
	v := reflect.ValueOf(arg)
	for v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	switch {
	case arg == nil:
		return nil, errors.New("the argument with its names is nil")
	case v.Kind() == reflect.Pointer, v.Kind() == reflect.Map && v.IsNil():
		return nil, fmt.Errorf("the argument with its names is a nil %T", arg)
	case v.Kind() == reflect.Map && v.Type().Key().Kind() == reflect.String:
		return valuesOfMap(v), nil
	case fields.IsStruct(v.Type()):
		return valuesOfStruct(v), nil
	}
	return nil, fmt.Errorf("its names need a struct or a map with string keys, not %T", arg)
}

func valuesOfList(list []any) values {
	return func(name string) (any, error) {
		for _, arg := range list {
			if named, ok := arg.(sql.NamedArg); ok && named.Name == name {
				return named.Value, nil
			}
		}
		return nil, fmt.Errorf("it names :%s, and no sql.Named does", name)
	}
}

// valuesOfMap finds "a.b" as a key, or in a map within.
func valuesOfMap(v reflect.Value) values {
	return func(name string) (any, error) {
		if found := v.MapIndex(reflect.ValueOf(name).Convert(v.Type().Key())); found.IsValid() {
			return found.Interface(), nil
		}
		outer, inner, dotted := strings.Cut(name, ".")
		if dotted {
			if found := v.MapIndex(reflect.ValueOf(outer).Convert(v.Type().Key())); found.IsValid() {
				if get, err := valuesOf(found.Interface()); err == nil {
					return get(inner)
				}
			}
		}
		return nil, fmt.Errorf("it names :%s, and the %s has no such key", name, v.Type())
	}
}

func valuesOfStruct(v reflect.Value) values {
	s := fields.Of(v.Type())
	return func(name string) (any, error) {
		field, err := s.Find(name)
		if err != nil {
			return nil, fmt.Errorf("it names :%s, and %w", name, err)
		}
		return field.Get(v), nil
	}
}

// templates are the queries that were parsed, by their text.
type templates struct {
	mu    sync.RWMutex
	known map[templateKey]*sqltext.Template
}

type templateKey struct {
	query string
	named bool
}

// Of the queries that a program has, as many are kept, and of each as much.
const (
	keptTemplates    = 1000
	longestKeptQuery = 16 << 10
)

// template finds the placeholders of a query.
func (db *DB) template(query string, named bool) (*sqltext.Template, error) {
	key := templateKey{query, named}
	db.templates.mu.RLock()
	known := db.templates.known[key]
	db.templates.mu.RUnlock()
	if known != nil {
		return known, nil
	}
	t, err := sqltext.Parse(db.engine.Dialect(), query, named)
	if err != nil || len(query) > longestKeptQuery {
		return t, err
	}
	db.templates.keep(key, t)
	return t, nil
}

// keep keeps a template, in the place of any other when there are too many.
func (ts *templates) keep(key templateKey, t *sqltext.Template) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.known == nil {
		ts.known = map[templateKey]*sqltext.Template{}
	}
	for other := range ts.known {
		if len(ts.known) < keptTemplates {
			break
		}
		delete(ts.known, other)
	}
	ts.known[key] = t
}

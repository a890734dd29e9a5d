// Package schema reads models: structs whose fields are the columns of a table.
package schema

import (
	"database/sql/driver"
	"fmt"
	"reflect"
	"strings"
	"sync"

	"github.com/tholedb/thole/internal/fields"
)

// Table is the table of a model. It doesn't change.
type Table struct {
	Name    []string // its schema, if it is given, and its own name
	Columns []Column
}

// Column is a column of a model.
type Column struct {
	*fields.Field
	Tag
}

// namer is a model that says how its table is called: "items" or "shop.items".
type namer interface{ TableName() string }

var tables sync.Map // of *Table by type

// Of is the table of a struct type.
func Of(t reflect.Type) (*Table, error) {
	if table, ok := tables.Load(t); ok {
		return table.(*Table), nil
	}
	table, err := read(t)
	if err != nil {
		return nil, fmt.Errorf("model %s: %w", t, err)
	}
	tables.Store(t, table)
	return table, nil
}

func read(t reflect.Type) (*Table, error) {
	if !fields.IsStruct(t) {
		return nil, fmt.Errorf("it is no struct with fields")
	}
	table := &Table{Name: []string{plural(fields.Snake(t.Name()))}}
	if named, ok := reflect.TypeAssert[namer](reflect.New(t)); ok {
		table.Name = strings.Split(named.TableName(), ".")
	}
	if table.Name[0] == "" {
		return nil, fmt.Errorf("its table has no name: give it a TableName method")
	}
	for _, field := range fields.Of(t).Fields {
		column, err := readColumn(field)
		if err != nil {
			return nil, fmt.Errorf("field %s: %w", field.Go, err)
		}
		if _, err := fields.Of(t).Find(field.Name); err != nil {
			return nil, err
		}
		table.Columns = append(table.Columns, column)
	}
	return table, nil
}

var valuer = reflect.TypeFor[driver.Valuer]()

func readColumn(field *fields.Field) (Column, error) {
	column := Column{Field: field}
	t := field.Type
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if fields.IsStruct(t) && !t.Implements(valuer) && !reflect.PointerTo(t).Implements(valuer) {
		return column, fmt.Errorf("%s is no column's value: embed it, wrap it in thole.JSON, or leave it out by db:\"-\"", field.Type)
	}
	tag, err := ParseTag(field.Tag.Get("schema"))
	if err != nil {
		return column, fmt.Errorf("schema tag: %w", err)
	}
	column.Tag = tag
	return column, nil
}

// LeftOut reports whether a value of the column is left to the database: it is
// zero, and the database has another.
func (c *Column) LeftOut(value any) bool {
	if !c.Generated && c.Default == "" {
		return false
	}
	if zero, ok := value.(interface{ IsZero() bool }); ok && value != nil && reflect.ValueOf(value).Kind() != reflect.Pointer {
		return zero.IsZero()
	}
	return value == nil || reflect.ValueOf(value).IsZero()
}

// plural is the plural of an English noun, by the rules that have no exceptions
// to learn.
func plural(noun string) string {
	switch {
	case noun == "":
		return ""
	case strings.HasSuffix(noun, "y") && !strings.ContainsAny(noun[max(0, len(noun)-2):len(noun)-1], "aeiou"):
		return noun[:len(noun)-1] + "ies"
	case strings.HasSuffix(noun, "s"), strings.HasSuffix(noun, "x"), strings.HasSuffix(noun, "z"),
		strings.HasSuffix(noun, "ch"), strings.HasSuffix(noun, "sh"):
		return noun + "es"
	}
	return noun + "s"
}

package thole

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/tholedb/thole/internal/engine"
	"github.com/tholedb/thole/internal/schema"
	"github.com/tholedb/thole/internal/sqltext"
)

// Insert adds a row to the table of a model and returns it as the database has
// stored it, with what it has generated.
//
// T is a struct, or a pointer to one, whose fields are the columns, by the names
// that [One] reads them by. The table is the plural of its name in snake case
// (order_items for OrderItem), or what its method TableName returns, which may
// have a schema in it ("shop.items"). A field that is no column is left out by
// db:"-". The schema tag of a field says more about its column:
//
//	type Shield struct {
//		ID       int64     `schema:"primary key, generated"`
//		Name     string    `schema:"unique"`
//		Material string    `schema:"default 'wood', check (material <> '')"`
//		Owner    *int64    `schema:"references warriors (id) on delete set null, index"`
//		Forged   time.Time `schema:"default current_timestamp"`
//	}
//
// A field that is zero and whose column is generated or has a default is left to
// the database. To write a zero there, make it a pointer.
//
// It is one statement with RETURNING, on both engines
// (https://www.postgresql.org/docs/current/dml-returning.html,
// https://www.sqlite.org/lang_returning.html).
func Insert[T any](ctx context.Context, q Querier, row T) (T, error) {
	stored, err := insert(ctx, q, reflect.ValueOf(row), reflect.TypeFor[T]())
	if err != nil {
		return *new(T), err
	}
	return stored.Interface().(T), nil
}

func insert(ctx context.Context, q Querier, row reflect.Value, t reflect.Type) (stored reflect.Value, err error) {
	if q == nil {
		return stored, failure(nil, "insert row: the Querier is nil")
	}
	m, err := modelOf(t)
	if err != nil {
		return stored, err
	}
	given, err := m.structOf(row)
	if err != nil {
		return stored, err
	}
	query, args := m.insertOne(given)
	pointer := reflect.New(given.Type())
	pointer.Elem().Set(given) // what is no column stays
	unshare(pointer.Elem())
	if err := q.GetContext(ctx, pointer.Interface(), query, args...); err != nil {
		if errors.Is(err, sql.ErrNoRows) {
			err = because(nil, err, "insert row: the database kept none (is there a trigger or a rule?)")
		}
		return stored, err
	}
	if m.pointer {
		return pointer, nil
	}
	return pointer.Elem(), nil
}

// unshare copies what is embedded by pointers, which is the caller's.
func unshare(v reflect.Value) {
	for i := range v.NumField() {
		field := v.Field(i)
		if !v.Type().Field(i).Anonymous || !field.CanSet() {
			continue
		}
		if field.Kind() == reflect.Pointer && !field.IsNil() && field.Elem().Kind() == reflect.Struct {
			own := reflect.New(field.Type().Elem())
			own.Elem().Set(field.Elem())
			field.Set(own)
			field = own.Elem()
		}
		if field.Kind() == reflect.Struct {
			unshare(field)
		}
	}
}

// model is the type of the rows that are inserted.
type model struct {
	*schema.Table
	pointer bool // to the struct
}

func modelOf(t reflect.Type) (model, error) {
	m := model{pointer: t.Kind() == reflect.Pointer}
	if m.pointer {
		t = t.Elem()
	}
	table, err := schema.Of(t)
	if err != nil {
		return m, because(nil, err, "insert rows")
	}
	m.Table = table
	return m, nil
}

// structOf is the struct that a row is.
func (m model) structOf(row reflect.Value) (reflect.Value, error) {
	if !m.pointer {
		return row, nil
	}
	if row.IsNil() {
		return row, failure(nil, "insert rows: a row is a nil %s", row.Type())
	}
	return row.Elem(), nil
}

// written are the columns of a row that the database is given.
func (m model) written(row reflect.Value) (columns []int, values []any) {
	for i := range m.Columns {
		value := m.Columns[i].Get(row)
		if !m.Columns[i].LeftOut(value) {
			columns, values = append(columns, i), append(values, value)
		}
	}
	return columns, values
}

// names are the names of columns.
func (m model) names(columns []int) []string {
	names := make([]string, len(columns))
	for i, column := range columns {
		names[i] = m.Columns[column].Name
	}
	return names
}

func (m model) insertOne(row reflect.Value) (query string, args []any) {
	columns, args := m.written(row)
	all := make([]string, len(m.Columns))
	for i := range m.Columns {
		all[i] = m.Columns[i].Name
	}
	values := " DEFAULT VALUES"
	if len(columns) > 0 {
		values = " (" + sqltext.QuoteList(m.names(columns)) + ") VALUES (" + strings.Repeat(", ?", len(columns))[2:] + ")"
	}
	return "INSERT INTO " + sqltext.Quote(m.Name...) + values + " RETURNING " + sqltext.QuoteList(all), args
}

// InsertAll adds rows, of which [Insert] says what they are, all or none, and
// reads nothing back. In a session it is a savepoint, outside one a session.
//
// It is the fast way for many rows: on PostgreSQL COPY from a thousand rows on
// (https://www.postgresql.org/docs/current/sql-copy.html), below one statement
// with an array for each column; on SQLite prepared statements of many rows
// each. Rows that leave different columns to the database go in groups, and not
// in their order. It asks PostgreSQL for the types of the columns, which is one
// round trip.
func InsertAll[T any](ctx context.Context, q Querier, rows []T) error {
	if q == nil {
		return failure(nil, "insert rows: the Querier is nil")
	}
	m, err := modelOf(reflect.TypeFor[T]())
	if err != nil || len(rows) == 0 {
		return err
	}
	groups, err := m.group(reflect.ValueOf(rows))
	if err != nil {
		return err
	}
	return q.WithSession(ctx, func(tx *Tx) error {
		for _, g := range groups {
			if err := tx.insertGroup(ctx, m, g); err != nil {
				return err
			}
		}
		return nil
	})
}

// group is rows that write the same columns.
type group struct {
	columns []int
	rows    []reflect.Value
}

// group puts the rows together that write the same columns.
func (m model) group(rows reflect.Value) ([]*group, error) {
	var groups []*group
	byColumns := map[string]*group{}
	key := make([]byte, len(m.Columns))
	for i := range rows.Len() {
		row, err := m.structOf(rows.Index(i))
		if err != nil {
			return nil, err
		}
		for c := range m.Columns {
			key[c] = 'w'
			if m.Columns[c].LeftOut(m.Columns[c].Get(row)) {
				key[c] = '-'
			}
		}
		g := byColumns[string(key)]
		if g == nil {
			columns, _ := m.written(row)
			g = &group{columns: columns}
			byColumns[string(key)] = g
			groups = append(groups, g)
		}
		g.rows = append(g.rows, row)
	}
	return groups, nil
}

// insertGroup hands rows to the engine.
func (tx *Tx) insertGroup(ctx context.Context, m model, g *group) error {
	if len(g.columns) == 0 {
		return tx.insertDefaults(ctx, m, len(g.rows))
	}
	query := "INSERT INTO " + sqltext.Quote(m.Name...) + " (" + sqltext.QuoteList(m.names(g.columns)) + ")"
	c := &conn{db: tx.db, tx: tx}
	st, err := c.start(&call{Context: ctx, query: query, bound: true}, query)
	if err != nil {
		return err
	}
	defer st.end()
	err = tx.session.inner.InsertRows(st.ctx, engine.Rows{
		Table: m.Name, Columns: m.names(g.columns), Len: len(g.rows),
		Row: func(i int, values []driver.NamedValue) error {
			for at, column := range g.columns {
				values[at].Value = m.Columns[column].Get(g.rows[i])
				if err := c.CheckNamedValue(&values[at]); err != nil {
					return fmt.Errorf("row %d, column %q: %w", i, m.Columns[column].Name, err)
				}
			}
			return nil
		},
	})
	if err != nil {
		return st.failed(err)
	}
	return nil
}

// insertDefaults adds rows of which the database knows everything.
func (tx *Tx) insertDefaults(ctx context.Context, m model, rows int) error {
	for range rows {
		if _, err := tx.ExecContext(ctx, "INSERT INTO "+sqltext.Quote(m.Name...)+" DEFAULT VALUES"); err != nil {
			return err
		}
	}
	return nil
}

package postgres

import (
	"bytes"
	"context"
	"database/sql/driver"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tholedb/thole/internal/engine"
	"github.com/tholedb/thole/internal/sqltext"
)

// copiedFrom is from how many rows on COPY is faster than a statement.
const copiedFrom = 1000

// InsertRows implements [engine.Session]. Every value goes as text, which each
// type of the server can read, those that pgx doesn't know included.
func (s *session) InsertRows(ctx context.Context, rows engine.Rows) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	b := bulk{conn: s.conn, Rows: rows, values: make([]driver.NamedValue, len(rows.Columns))}
	if err := b.findTypes(ctx); err != nil {
		return err
	}
	if b.hasOthers() || rows.Len >= copiedFrom && !b.copyless {
		return b.copy(ctx)
	}
	for from := 0; from < rows.Len; from += copiedFrom {
		if err := b.unnest(ctx, from, min(from+copiedFrom, rows.Len)); err != nil {
			return err
		}
	}
	return nil
}

// bulk is rows on their way into a table.
type bulk struct {
	*conn
	engine.Rows
	columns  []columnType
	values   []driver.NamedValue // of a row
	copyless bool                // COPY can't write to it: it is a view, or has row-level security
}

// columnType is the type of a column.
type columnType struct {
	oid   uint32 // of what a domain is over
	array uint32 // the type of arrays of it; 0 if unnest doesn't give back what went in
}

// findTypes asks the server for the types of the columns.
//
// https://www.postgresql.org/docs/current/catalog-pg-attribute.html
func (b *bulk) findTypes(ctx context.Context) error {
	const query = `select a.attname, coalesce(nullif(t.typbasetype, 0), t.oid),
			case when t.typdelim = ',' and coalesce(b.typtype, t.typtype) <> 'c' then t.typarray else 0 end,
			c.relkind not in ('r', 'p', 'f') or pg_catalog.row_security_active(c.oid)
		from pg_catalog.pg_attribute a join pg_catalog.pg_type t on t.oid = a.atttypid
			left join pg_catalog.pg_type b on b.oid = t.typbasetype
			join pg_catalog.pg_class c on c.oid = a.attrelid
		where a.attrelid = $1::text::pg_catalog.regclass and a.attnum > 0 and not a.attisdropped`
	if err := b.start(ctx, query); err != nil {
		return err
	}
	b.sent, b.used = true, true
	found := b.wire.ExecParams(ctx, query, [][]byte{[]byte(sqltext.Quote(b.Table...))}, nil, nil, nil).Read()
	if found.Err != nil {
		return found.Err
	}
	types := map[string]columnType{}
	for _, row := range found.Rows {
		types[string(row[0])] = columnType{oid(row[1]), oid(row[2])}
		b.copyless = string(row[3]) == "t"
	}
	for _, column := range b.Columns {
		t, ok := types[column]
		if !ok {
			return &engine.Error{Message: fmt.Sprintf("table %s has no column %q", sqltext.Quote(b.Table...), column), Column: column}
		}
		b.columns = append(b.columns, t)
	}
	return nil
}

func oid(text []byte) uint32 {
	n, _ := strconv.ParseUint(string(text), 10, 32) // the server has written it
	return uint32(n)
}

// hasOthers reports whether a column is an array, of which there are no arrays, or
// of a type that unnest takes apart.
func (b *bulk) hasOthers() bool {
	for _, t := range b.columns {
		if t.array == 0 {
			return true
		}
	}
	return false
}

// into is the table with its columns.
func (b *bulk) into() string {
	return sqltext.Quote(b.Table...) + " (" + sqltext.QuoteList(b.Columns) + ")"
}

// row reads the values of a row and hands each to take, as text or NULL.
func (b *bulk) row(i int, take func(column int, text string, null bool)) error {
	if err := b.Row(i, b.values); err != nil {
		return &engine.Error{Message: err.Error(), Err: err}
	}
	for column := range b.Columns {
		text, null, err := b.text(b.columns[column].oid, b.values[column].Value)
		if err != nil {
			return &engine.Error{Message: fmt.Sprintf("row %d, column %q: %s", i, b.Columns[column], err), Column: b.Columns[column], Err: err}
		}
		take(column, text, null)
	}
	return nil
}

// text is a value as the server reads it for a type.
func (b *bulk) text(oid uint32, value any) (text string, null bool, err error) {
	if valuer, ok := value.(driver.Valuer); ok {
		if v := reflect.ValueOf(value); v.Kind() == reflect.Pointer && v.IsNil() {
			return "", true, nil
		}
		own := value
		if value, err = valuer.Value(); err != nil {
			return "", false, fmt.Errorf("value of a %T: %w", own, err)
		}
	}
	if value == nil {
		return "", true, nil
	}
	if v := reflect.ValueOf(value); v.Kind() == reflect.String {
		return v.String(), false, nil
	}
	encoded, err := b.types().Encode(oid, pgtype.TextFormatCode, value, []byte{}) // nil is NULL, and not an empty text
	if err != nil {
		return "", false, &argumentError{fmt.Sprintf("%T does not encode as %s", value, b.typeName(oid)), err}
	}
	return string(encoded), encoded == nil, nil
}

// unnest inserts rows by one statement, to which each column is an array.
func (b *bulk) unnest(ctx context.Context, from, to int) error {
	arrays := make([][]byte, len(b.Columns))
	for i := from; i < to; i++ {
		err := b.row(i, func(column int, text string, null bool) {
			arrays[column] = append(arrays[column], ',')
			if null {
				arrays[column] = append(arrays[column], "NULL"...)
			} else {
				arrays[column] = sqltext.AppendElement(arrays[column], text)
			}
		})
		if err != nil {
			return err
		}
	}
	types, marks := make([]uint32, len(arrays)), make([]string, len(arrays))
	for i := range arrays {
		arrays[i] = append(arrays[i], '}')
		arrays[i][0] = '{'
		types[i] = b.columns[i].array
		marks[i] = "$" + strconv.Itoa(i+1)
	}
	text := "insert into " + b.into() + " select * from unnest(" + strings.Join(marks, ", ") + ")"
	if err := b.start(ctx, text); err != nil {
		return err
	}
	b.sent, b.used = true, true
	return b.wire.ExecParams(ctx, text, arrays, types, nil, nil).Read().Err
}

// copiedAtOnce is about how many bytes a COPY has. The rows are made on the
// caller's goroutine, where what a Valuer does may panic, and pgx reads a COPY on
// one of its own.
const copiedAtOnce = 4 << 20

// copy inserts by COPY, in the text format.
//
// https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-FILE-FORMATS
func (b *bulk) copy(ctx context.Context) error {
	var lines []byte
	for i := range b.Len {
		err := b.row(i, func(column int, text string, null bool) {
			if column > 0 {
				lines = append(lines, '\t')
			}
			if null {
				lines = append(lines, `\N`...)
			} else {
				lines = append(lines, copyEscapes.Replace(text)...)
			}
		})
		if err != nil {
			return err
		}
		lines = append(lines, '\n')
		if len(lines) < copiedAtOnce && i < b.Len-1 {
			continue
		}
		if err := b.copyLines(ctx, lines); err != nil {
			return err
		}
		lines = lines[:0]
	}
	return nil
}

func (b *bulk) copyLines(ctx context.Context, lines []byte) error {
	if err := b.start(ctx, "insert into "+b.into()); err != nil { // a COPY of the caller's would be refused
		return err
	}
	b.sent, b.used = true, true
	_, err := b.wire.CopyFrom(ctx, bytes.NewReader(lines), "copy "+b.into()+" from stdin")
	return err
}

// copyEscapes writes what has a meaning to COPY.
var copyEscapes = strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\r", `\r`, "\t", `\t`)

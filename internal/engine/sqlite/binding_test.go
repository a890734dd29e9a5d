package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tholedb/thole/internal/sqltext"
)

// FuzzBinding has SQLite judge: a query that it takes with its own ?1, it takes
// as well when that was written $1, :p1, or ?, with the same rows.
func FuzzBinding(f *testing.F) {
	e, err := Open(f.Context(), Config{}, quiet)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = e.Close(context.Background()) })
	c := e.writer.slot.conn
	const tables = `CREATE TABLE t (id INTEGER, name TEXT, data TEXT);
		INSERT INTO t VALUES (1, 'a', '{"k": 1, "?": [":a"]}'), (2, ':b ?', NULL); PRAGMA query_only=1`
	if err := c.settle(f.Context(), tables); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, query string) {
		spelled, params := respell(query)
		if spelled == nil || refused(query) != nil || changesConnectionIn(query) != "" {
			return
		}
		want, err := c.judge(t, query, params)
		if err != nil {
			return
		}
		for form, text := range spelled {
			tmpl, err := sqltext.Parse(sqltext.SQLite, text, form == "names")
			if err != nil {
				t.Fatalf("%s: %q, that is %q: %v", form, query, text, err)
			}
			order := []int(nil) // of names: that of their appearance
			for _, name := range tmpl.Names {
				var n int
				_, _ = fmt.Sscanf(name, "p%d", &n)
				order = append(order, n)
			}
			got, err := c.judge(t, tmpl.Text, params, order...)
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Fatalf("%s: %q written as %q was sent as %q: error %v (-want +got):\n%s", form, query, text, tmpl.Text, err, diff)
			}
		}
	})
}

// respell writes the parameters ?1 of a query in the other forms that it can be
// written in, and returns the highest number.
func respell(query string) (spelled map[string]string, params int) {
	var dollars, names, marks strings.Builder
	next, ordered := 1, true
	for tok := range sqltext.SQLite.Tokens(query) {
		switch tok.Kind {
		case sqltext.Named, sqltext.Positional, sqltext.Mark:
			return nil, 0
		case sqltext.Numbered:
			var n int
			if _, err := fmt.Sscanf(tok.Text, "?%d", &n); err != nil || n < 1 || n > 50 || tok.Text != fmt.Sprint("?", n) {
				return nil, 0
			}
			params = max(params, n)
			dollars.WriteString(" $" + tok.Text[1:] + " ")
			names.WriteString(":p" + tok.Text[1:] + " ")
			marks.WriteString("? ")
			ordered = ordered && n == next
			next++
		default:
			for _, b := range []*strings.Builder{&dollars, &names, &marks} {
				b.WriteString(tok.Text)
			}
		}
	}
	spelled = map[string]string{"dollars": dollars.String(), "names": names.String()}
	if ordered {
		spelled["marks"] = marks.String()
	}
	return spelled, params
}

// judge is the rows of a query, whose parameters have their numbers for values,
// in another order if there is one.
func (c *conn) judge(t *testing.T, query string, params int, order ...int) (rows []string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if order == nil {
		for i := range params {
			order = append(order, i+1)
		}
	}
	var args []driver.NamedValue
	for i, n := range order {
		args = append(args, driver.NamedValue{Ordinal: i + 1, Value: int64(n)})
	}
	got, err := c.raw.QueryContext(ctx, query, args)
	if err != nil {
		return nil, err
	}
	defer func() { _ = got.Close() }()
	values := make([]driver.Value, len(got.Columns()))
	for range 100 {
		if err := got.Next(values); errors.Is(err, io.EOF) {
			return rows, nil
		} else if err != nil {
			return nil, err
		}
		rows = append(rows, fmt.Sprint(values))
	}
	return rows, nil
}

package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tholedb/thole/internal/sqltext"
	"github.com/tholedb/thole/internal/testdb"
)

// FuzzBinding has the server judge: a query that it takes with its own $1, it
// takes as well when that was written :p1, or ?, with the same types of its
// parameters and the same rows.
func FuzzBinding(f *testing.F) {
	conn, err := pgx.Connect(f.Context(), testdb.Postgres(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = conn.Close(context.Background()) })
	const tables = `create table t (id int, name text, data jsonb, list int[], at timestamptz);
		insert into t values (1, 'a', '{"k": 1, "?": [":a"]}', '{1,2,3}', '2026-11-27 12:30:00'), (2, ':b ?', null, null, null)`
	if _, err := conn.Exec(f.Context(), tables); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, query string) {
		named, marks := respell(query)
		if named == "" {
			return
		}
		want, ok := judge(t, conn, query)
		if !ok {
			return
		}
		for form, spelled := range map[string]string{"names": named, "marks": marks} {
			if spelled == "" {
				continue
			}
			tmpl, err := sqltext.Parse(sqltext.Postgres, spelled, form == "names")
			if err != nil {
				t.Fatalf("%s: %q, that is %q: %v", form, query, spelled, err)
			}
			got, ok := judge(t, conn, tmpl.Text)
			if diff := cmp.Diff(want, got); !ok || diff != "" {
				t.Fatalf("%s: %q written as %q was sent as %q, accepted: %t (-want +got):\n%s", form, query, spelled, tmpl.Text, ok, diff)
			}
		}
	})
}

// respell writes the parameters of a query as names, and as marks if they are
// numbered in their order; "" where a query can't be written so.
func respell(query string) (named, marks string) {
	var names, questions strings.Builder
	next := 1
	ordered := true
	for tok := range sqltext.Postgres.Tokens(query) {
		switch tok.Kind {
		case sqltext.Named, sqltext.Numbered, sqltext.Escape:
			return "", "" // a slice, or operators that touch
		case sqltext.Mark:
			names.WriteString("?")
			questions.WriteString("??")
		case sqltext.Positional:
			names.WriteString(":p" + tok.Text[1:] + " ")
			questions.WriteString(" ? ") // @? is an operator
			ordered = ordered && tok.Text == fmt.Sprint("$", next)
			next++
		default:
			names.WriteString(tok.Text)
			questions.WriteString(tok.Text)
		}
	}
	if !ordered || strings.Contains(questions.String(), "???") {
		return names.String(), ""
	}
	return names.String(), questions.String()
}

// judgement is what the server makes of a query.
type judgement struct {
	Params []uint32
	Rows   [][]string
	Code   string // of the error when it ran
}

// judge has the server prepare a query and run it in a transaction that can
// change nothing. The order of parameters is left aside, for names have their
// own.
func judge(t *testing.T, conn *pgx.Conn, query string) (j judgement, ok bool) {
	t.Helper()
	if sqltext.Control(sqltext.Postgres, query) != 0 || copiesOverConnection(query) || strings.ContainsRune(query, 0) {
		return j, false
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := conn.Exec(ctx, "begin read only; set local statement_timeout = 500"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if _, err := conn.Exec(context.WithoutCancel(ctx), "rollback"); err != nil {
			t.Fatal(err)
		}
	}()
	prepared, err := conn.PgConn().Prepare(ctx, "", query, nil)
	if err != nil {
		return j, false
	}
	j.Params = slices.Sorted(slices.Values(prepared.ParamOIDs))
	args := make([][]byte, len(prepared.ParamOIDs))
	for i, oid := range prepared.ParamOIDs {
		args[i] = map[uint32][]byte{16: []byte("t"), 20: []byte("1"), 21: []byte("1"), 23: []byte("1"), 25: []byte("a"), 3802: []byte("1")}[oid]
	}
	result := conn.PgConn().ExecPrepared(ctx, "", args, nil, nil).Read()
	if failed, is := errors.AsType[*pgconn.PgError](result.Err); is {
		j.Code = failed.Code
		return j, failed.Code != "57014"
	}
	for _, row := range result.Rows {
		var texts []string
		for _, value := range row {
			texts = append(texts, string(value))
		}
		j.Rows = append(j.Rows, texts)
	}
	return j, result.Err == nil
}

// TestArrays writes slices as one argument.
func TestArrays(t *testing.T) {
	t.Parallel()
	e := &Engine{}
	type kind string
	one := "a"
	for _, test := range []struct{ list, want any }{
		{[]string{"a", `"\{},`, ""}, `{"a","\"\\{},",""}`},
		{[]kind{"a"}, `{"a"}`},
		{[]string{}, "{}"},
		{[]string(nil), nil},
		{[]*string{&one, nil}, `{"a",NULL}`},
		{[]any{"a", nil}, `{"a",NULL}`},
		{[]any{"a", 1}, []any{"a", 1}},
		{[]int{1}, []int{1}},
		{[]int{}, []int{}},
	} {
		got, err := e.Array(test.list)
		if diff := cmp.Diff(test.want, got); err != nil || diff != "" {
			t.Errorf("%#v: error %v (-want +got):\n%s", test.list, err, diff)
		}
	}
}

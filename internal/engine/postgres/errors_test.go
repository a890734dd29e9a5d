package postgres

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tholedb/thole/internal/engine"
)

func TestExplain(t *testing.T) {
	t.Parallel()
	tests := []struct {
		severity, code string
		kind           error
		retry          engine.Retry
	}{
		{"ERROR", "23505", engine.ErrUnique, engine.RetryNever},
		{"ERROR", "23503", engine.ErrForeignKey, engine.RetryNever},
		{"ERROR", "23502", engine.ErrNotNull, engine.RetryNever},
		{"ERROR", "23514", engine.ErrCheck, engine.RetryNever},
		{"ERROR", "23P01", engine.ErrExclusion, engine.RetryNever},
		{"ERROR", "40001", engine.ErrSerialization, engine.RetryAsked},
		{"ERROR", "40P01", engine.ErrDeadlock, engine.RetryAsked},
		{"ERROR", "55P03", engine.ErrLocked, engine.RetryAsked},
		{"ERROR", "25006", engine.ErrReadOnly, engine.RetryNever},
		{"ERROR", "57014", engine.ErrTimeout, engine.RetryNever},
		{"ERROR", "25P02", engine.ErrTxAborted, engine.RetryNever},
		{"ERROR", "40003", nil, engine.RetryNever},
		{"ERROR", "42P01", nil, engine.RetryNever},
		{"ERROR", "08006", engine.ErrConnLost, engine.RetryAsked},
		{"ERROR", "57P01", engine.ErrConnLost, engine.RetryAsked},
		{"FATAL", "25P03", engine.ErrConnLost, engine.RetryAsked},
		{"FATAL", "25P04", engine.ErrConnLost, engine.RetryAsked},
		{"FATAL", "57P02", engine.ErrConnLost, engine.RetryAsked},
		{"FATAL", "57P03", engine.ErrConnLost, engine.RetryAsked},
		{"FATAL", "57P05", engine.ErrConnLost, engine.RetryAsked},
		{"FATAL", "53300", engine.ErrConnLost, engine.RetryAsked},
		{"FATAL", "40001", engine.ErrConnLost, engine.RetryAsked}, // conflict with recovery
		{"PANIC", "XX000", engine.ErrConnLost, engine.RetryAsked},
		{"FATAL", "28P01", nil, engine.RetryNever},
		{"FATAL", "3D000", nil, engine.RetryNever},
		{"FATAL", "42704", nil, engine.RetryNever},
		{"", "", nil, engine.RetryNever},
	}
	for _, test := range tests {
		t.Run(test.severity+" "+test.code, func(t *testing.T) {
			t.Parallel()
			pg := &pgconn.PgError{
				Severity: "ÉCHEC", SeverityUnlocalized: test.severity, Code: test.code,
				ConstraintName: "c", TableName: "t", ColumnName: "a", Message: "m",
			}
			err := fmt.Errorf("wrapped: %w", pg)
			got := explain(err, "")
			want := engine.Error{
				Kind: test.kind, Code: test.code, Constraint: "c", Table: "t", Column: "a",
				Message: "m", Retry: test.retry, Err: err,
			}
			if diff := cmp.Diff(want, *got, cmpopts.EquateErrors()); diff != "" {
				t.Errorf("explain (-want +got):\n%s", diff)
			}
		})
	}
}

func TestIsFatalBeforePostgreSQL96(t *testing.T) {
	t.Parallel()
	if !isFatal(&pgconn.PgError{Severity: "FATAL"}) || isFatal(&pgconn.PgError{Severity: "ERROR"}) {
		t.Error("severity is not read from the only field that has it")
	}
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	dial := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	tests := []struct {
		err  error
		want string
	}{
		{io.EOF, "closed by the other side"},
		{fmt.Errorf("x: %w", io.ErrUnexpectedEOF), "closed by the other side"},
		{net.ErrClosed, "closed by the other side"},
		{pgconn.ErrConnClosed, "closed"},
		{dial, "connection refused"},
		{&net.DNSError{Name: secret}, "the name of the host was not resolved"},
		{&tls.CertificateVerificationError{Err: errors.New(secret)}, "the certificate of the server was not accepted"},
		{os.ErrDeadlineExceeded, "no answer in time"},
		{context.Canceled, "given up"},
		{context.DeadlineExceeded, "no answer in time"},
		{pgconn.ErrReadOnlyConnection, "read only connection"},
		{pgconn.ErrStandbyConnection, "server is in standby mode"},
		{errBusy, "rows of an earlier statement are open"},
		{&argumentError{"argument 1", errors.New(secret)}, "argument 1"},
		{errors.New(secret), "pgx failed; its error is not shown because it may hold values"},
	}
	for _, test := range tests {
		if got := describe(test.err); got != test.want {
			t.Errorf("describe(%T) = %q, want %q", test.err, got, test.want)
		}
	}
}

func TestWithoutValues(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		err   pgconn.PgError
		query string
		want  string
	}{
		{
			"class 22",
			pgconn.PgError{Code: "22P02", Message: `invalid input syntax for type integer: "abc"`},
			"", `invalid input syntax for type integer: "…"`,
		},
		{
			"a value with quotation marks",
			pgconn.PgError{Code: "22P02", Message: `invalid input syntax for type integer: "a" b "c"`},
			`select "a", "c"`, `invalid input syntax for type integer: "…"`,
		},
		{
			"cut off",
			pgconn.PgError{Code: "22P02", Message: `invalid input syntax for type integer: "abc`},
			"", `invalid input syntax for type integer: "…"`,
		},
		{
			"translated",
			pgconn.PgError{Code: "22P02", Message: `syntaxe en entrée invalide pour le type integer : « abc »`},
			"", `syntaxe en entrée invalide pour le type integer : "…"`,
		},
		{
			"bytes",
			pgconn.PgError{Code: "22021", Message: `invalid byte sequence for encoding "UTF8": 0xe2 0x82`},
			"", `invalid byte sequence for encoding "…": … …`,
		},
		{
			"a number",
			pgconn.PgError{Code: "22003", Message: `setval: value -9999 is out of bounds for sequence "s" (1..10)`},
			"", `setval: value … is out of bounds for sequence "…" (1..10)`,
		},
		{
			"the width of a type",
			pgconn.PgError{Code: "22001", Message: `value too long for type character varying(3)`},
			"", `value too long for type character varying(3)`,
		},
		{
			"class 23",
			pgconn.PgError{Code: "23505", Message: `duplicate key value violates unique constraint "t_pkey"`, Detail: secret},
			"", `duplicate key value violates unique constraint "t_pkey"`,
		},
		{
			"a name of the statement",
			pgconn.PgError{Code: "42P01", Message: `relation "nosuch" does not exist`},
			"select * from nosuch", `relation "nosuch" does not exist`,
		},
		{
			"a name in a field",
			pgconn.PgError{Code: "42703", Message: `column "a" of "t"`, TableName: "t", ColumnName: "a"},
			"", `column "a" of "t"`,
		},
		{
			"an argument as a name",
			pgconn.PgError{Code: "42P01", Message: `relation "abc" does not exist`},
			"select $1::regclass", `relation "…" does not exist`,
		},
		{
			"an argument with a quotation mark",
			pgconn.PgError{Code: "42601", Message: `syntax error in tsquery: "select" a"`},
			"select to_tsquery($1)", `syntax error in tsquery: "…"`,
		},
		{"nothing quoted", pgconn.PgError{Code: "40P01", Message: "deadlock detected"}, "", "deadlock detected"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := withoutValues(&test.err, test.query); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

// FuzzWithoutValues has values with whatever a value may hold.
func FuzzWithoutValues(f *testing.F) {
	f.Add("", "")
	f.Add(`a" "`, `" b`)
	f.Add("«", "»")
	f.Add("\xff", "\n'")
	f.Fuzz(func(t *testing.T, before, after string) {
		pg := &pgconn.PgError{Code: "22P02", Message: `invalid value "` + before + secret + after + `" for x`}
		if got, want := withoutValues(pg, ""), `invalid value "…" for x`; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

// TestErrorsShowNoValues has the server and pgx refuse a secret in every way
// that was found.
func TestErrorsShowNoValues(t *testing.T) {
	t.Parallel()
	e := open(t)
	setUp(t, e,
		"create type mood as enum ('sad')",
		`create table t (a text primary key check (a <> 'checked'), m mood, n int not null, v varchar(3))`,
		"insert into t (a, n) values ('"+secret+"', 1)",
	)
	tests := []struct {
		query string
		args  []any
		want  string
	}{
		{"select $1::int", []any{secret}, `invalid input syntax for type integer: "…" (22P02)`},
		{"select $1::int", []any{[]string{secret}}, "argument 1: []string does not encode as int4"},
		{"insert into t (n, a) values ($1, $2)", []any{1, struct{ S string }{secret}}, "argument 2: struct { S string } does not encode as text"},
		{"select $1::int, $2::int", []any{1}, "the statement takes 2 arguments, not 1"},
		{"select $1::text::int", []any{secret}, `invalid input syntax for type integer: "…" (22P02)`},
		{"select $1::text::date", []any{secret}, `invalid input syntax for type date: "…" (22007)`},
		{"select $1::text::mood", []any{secret}, `invalid input value for enum mood: "…" (22P02)`},
		{"select $1::text::json", []any{secret}, `invalid input syntax for type json (22P02)`},
		{"update t set v = $1", []any{secret}, `value too long for type character varying(3) (22001)`},
		{"select $1::text::regclass", []any{secret}, `relation "…" does not exist (42P01)`},
		{"select $1::text::regtype", []any{secret}, `type "…" does not exist (42704)`},
		{"select to_tsquery($1::text)", []any{secret + " ("}, `syntax error in tsquery: "…" (42601)`},
		{"select set_config($1, '', true)", []any{secret}, `unrecognized configuration parameter "…" (42704)`},
		{"select set_config('work_mem', $1, true)", []any{secret}, `invalid value for parameter "…" (22023)`},
		{"select 'x' ~ $1", []any{secret + "("}, "invalid regular expression: parentheses () not balanced (2201B)"},
		{"select jsonb_path_query('{}', $1::text::jsonpath)", []any{"strict $." + secret}, `JSON object does not contain key "…" (2203A)`},
		{"select to_date($1, 'YYYY')", []any{secret}, `invalid value "…" (22007)`},
		{"select query_to_xml('selec ' || $1, true, true, '')", []any{secret}, `syntax error at or near "selec" (42601)`},
		{"select a::int from t", nil, `invalid input syntax for type integer: "…" (22P02)`},
		{"insert into t (a, n) values ($1, 1)", []any{secret}, `duplicate key value violates unique constraint "t_pkey" (23505)`},
		{"insert into t (a, m) values ($1, 'sad')", []any{secret + "2"}, `null value in column "n" of relation "t" violates not-null constraint (23502)`},
		{"insert into t (a, n) values ('checked', 1)", nil, `new row for relation "t" violates check constraint "t_a_check" (23514)`},
		{"select * from nosuch", nil, `relation "nosuch" does not exist (42P01)`},
		{"drop table nosuch", nil, `table "nosuch" does not exist (42P01)`},
		{"selec 1", nil, `syntax error at or near "selec" (42601)`},
	}
	for _, test := range tests {
		t.Run(test.query, func(t *testing.T) {
			t.Parallel()
			s := begin(t, e, engine.Options{})
			defer s.Rollback(testContext(t), nil)
			_, queryErr := query(testContext(t), s, test.query, test.args...)
			again := begin(t, e, engine.Options{})
			defer again.Rollback(testContext(t), nil)
			execErr := exec(testContext(t), again, test.query, test.args...)
			for verb, err := range map[string]error{"query": queryErr, "exec": execErr} {
				failed := explained(t, err)
				if got := failed.Error(); got != test.want {
					t.Errorf("%s:\ngot  %s\nwant %s", verb, got, test.want)
				}
				wantNoSecret(t, failed)
				if failed.Code != "" && !errors.As(err, new(*pgconn.PgError)) {
					t.Errorf("%s: %v does not match *pgconn.PgError", verb, err)
				}
			}
		})
	}
}

// wantNoSecret looks for the secret in the ways in which an error is printed.
func wantNoSecret(tb testing.TB, err error) {
	tb.Helper()
	for _, text := range []string{fmt.Sprintf("%v", err), fmt.Sprintf("%+v", err), fmt.Sprintf("%#v", err)} {
		if strings.Contains(text, secret) {
			tb.Errorf("error shows the secret: %s", text)
		}
	}
}

func TestRowsFail(t *testing.T) {
	t.Parallel()
	e := open(t)
	s := begin(t, e, engine.Options{})
	defer s.Rollback(testContext(t), nil)
	got, err := query(testContext(t), s, "select 1 / (3 - n) from generate_series(1, 5) n")
	failed := explained(t, err)
	if len(got) != 2 || failed.Code != "22012" || failed.Aborts != engine.AbortsLevel {
		t.Errorf("got %v, %v, extent %d", got, failed, failed.Aborts)
	}
}

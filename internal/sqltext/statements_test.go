package sqltext

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type statementsTest struct {
	name, query string
	want        []string
}

func testStatements(t *testing.T, d Dialect, tests []statementsTest) {
	t.Helper()
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for stmt := range Statements(d, test.query) {
				got = append(got, stmt.Text)
				if at := test.query[stmt.Pos:]; !strings.HasPrefix(at, stmt.Text) {
					t.Errorf("Statements(%q): %q at byte %d, where %q is", test.query, stmt.Text, stmt.Pos, at)
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("Statements(%q) (-want +got):\n%s", test.query, diff)
			}
		})
	}
}

func TestStatementsShared(t *testing.T) {
	t.Parallel()
	for name, d := range map[string]Dialect{"sqlite": SQLite, "postgres": Postgres} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testStatements(t, d, []statementsTest{
				{"nothing", "", nil},
				{"empty statements", " ;; -- a\n; /* b */ ;", nil},
				{"one", "select 1", []string{"select 1"}},
				{"one with a semicolon", "\n select 1 ;\n", []string{"select 1"}},
				{"two", "a;b", []string{"a", "b"}},
				{"literals and comments", "a ';' \";\" /*;*/ --;\n; b", []string{"a ';' \";\" /*;*/ --;", "b"}},
				{"comments around", "-- a\nb -- c\n;/*d*/e", []string{"-- a\nb -- c", "/*d*/e"}},
				{"parentheses", "create rule a as on b do (c; (d; e)); f", []string{
					"create rule a as on b do (c; (d; e))", "f",
				}},
				{"closing parenthesis too many", "a); (b); c", []string{"a)", "(b)", "c"}},
				{"case", "select case when 1 then 2 end; end", []string{"select case when 1 then 2 end", "end"}},
				{"table", "create table begin (a); b", []string{"create table begin (a)", "b"}},
			})
		})
	}
}

func TestStatementsSQLite(t *testing.T) {
	t.Parallel()
	trigger := " trigger a after insert on b begin select case when 1 then 2 end; insert into c values (end); end"
	testStatements(t, SQLite, []statementsTest{
		{"trigger", "create" + trigger + "; d", []string{"create" + trigger, "d"}},
		{"temp trigger", "/**/CREATE /**/ TEMP" + trigger + "; d", []string{"/**/CREATE /**/ TEMP" + trigger, "d"}},
		{"temporary trigger", "create temporary" + trigger + "; d", []string{"create temporary" + trigger, "d"}},
		{"explained trigger", "explain create" + trigger + "; d", []string{"explain create" + trigger, "d"}},
		{"trigger with a plan", "explain query plan create temp" + trigger + "; d", []string{
			"explain query plan create temp" + trigger, "d",
		}},
		{"trigger without a body", "create trigger a; b", []string{"create trigger a", "b"}},
		{"column named end", "create trigger a update on b begin select end; select 1 end; end; c", []string{
			"create trigger a update on b begin select end; select 1 end; end", "c",
		}},
		{"table named begin", "create trigger a update on begin begin select 1; end; c", []string{
			"create trigger a update on begin begin select 1; end", "c",
		}},
		{"comment before the end", "create trigger a begin b; -- c\n end; d", []string{
			"create trigger a begin b; -- c\n end", "d",
		}},
		{"open trigger", "create trigger a begin b; c;", []string{"create trigger a begin b; c;"}},
		{"no body of another", "drop trigger begin; a", []string{"drop trigger begin", "a"}},
		{"no body of a function", "create function a begin atomic b; end", []string{
			"create function a begin atomic b",
			"end",
		}},
		{"brackets", "a [;] `;`; b", []string{"a [;] `;`", "b"}},
	})
}

func TestStatementsPostgres(t *testing.T) {
	t.Parallel()
	body := " begin atomic select case when 1 then atomic end; select (2); end"
	testStatements(t, Postgres, []statementsTest{
		{"function", "create function a()" + body + "; b", []string{"create function a()" + body, "b"}},
		{"replaced function", "create or replace function a()" + body + "; b", []string{
			"create or replace function a()" + body, "b",
		}},
		{"procedure", "CREATE PROCEDURE a() BEGIN /**/ ATOMIC b; END; c", []string{
			"CREATE PROCEDURE a() BEGIN /**/ ATOMIC b; END", "c",
		}},
		{"empty body", "create procedure a() begin atomic end; b", []string{
			"create procedure a() begin atomic end",
			"b",
		}},
		{"argument named begin", "create function a(begin atomic) as 'b'; end", []string{
			"create function a(begin atomic) as 'b'", "end",
		}},
		{"function in quotes", "create function a() as $$ begin; end; $$; b", []string{
			"create function a() as $$ begin; end; $$", "b",
		}},
		{"begin without atomic", "create function a() begin; b", []string{"create function a() begin", "b"}},
		{"no body of a trigger", "create trigger a begin b; end", []string{"create trigger a begin b", "end"}},
		{"no body of another", "drop function begin atomic; a", []string{"drop function begin atomic", "a"}},
		{"function named atomic", "create function atomic() as 'a'; b", []string{"create function atomic() as 'a'", "b"}},
		{"dollar quotes", "a $$;$$; b", []string{"a $$;$$", "b"}},
		{"brackets", "a[;]; b", []string{"a[", "]", "b"}},
	})
}

func TestStatementsStop(t *testing.T) {
	t.Parallel()
	for stmt := range Statements(SQLite, "a; b") {
		if stmt.Text != "a" {
			t.Errorf("statement %q behind a break", stmt.Text)
		}
		break
	}
}

func FuzzStatements(f *testing.F) {
	f.Fuzz(func(t *testing.T, query string) {
		for _, d := range []Dialect{SQLite, Postgres} {
			end := 0
			first := Verb(0)
			for stmt := range Statements(d, query) {
				if stmt.Pos < end || !strings.HasPrefix(query[stmt.Pos:], stmt.Text) {
					t.Fatalf("dialect %d: statement %+v is not behind byte %d", d, stmt, end)
				}
				checkEmpty(t, d, query[end:stmt.Pos])
				end = stmt.Pos + len(stmt.Text)
				if first == 0 {
					first = stmt.Verb
				}
			}
			checkEmpty(t, d, query[end:])
			if got := Control(d, query); got != first {
				t.Fatalf("dialect %d: Control(%q) = %v, want %v as of Statements", d, query, got, first)
			}
		}
	})
}

// checkEmpty fails the test if there is a statement in what lies between statements.
func checkEmpty(t *testing.T, d Dialect, text string) {
	t.Helper()
	for tok := range d.Tokens(text) {
		if tok.Kind != Space && tok.Kind != Comment && tok.Text != ";" {
			t.Fatalf("dialect %d: token %+v is in no statement", d, tok)
		}
	}
}

func TestIsScript(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]bool{
		"": false, "-- a; b": false, "select 1;": false, "select ';'": false, "; select 1 ;; -- end": false, "select 1; select 2": true,
	} {
		for _, d := range []Dialect{SQLite, Postgres} {
			if got := IsScript(d, query); got != want {
				t.Errorf("dialect %d: IsScript(%q) = %v, want %v", d, query, got, want)
			}
		}
	}
}

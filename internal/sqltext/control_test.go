package sqltext

import (
	"slices"
	"strings"
	"testing"
)

func TestControl(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		query string
		want  Verb
	}{
		{"", 0},
		{";", 0},
		{"select 1", 0},
		{"savepoint a", Savepoint},
		{"release a", Release},
		{"release savepoint a", Release},
		{"rollback to a", RollbackTo},
		{"rollback to savepoint a", RollbackTo},
		{"rollback work to savepoint a", RollbackTo},
		{"rollback transaction to savepoint a", RollbackTo},
		{"rollback", Rollback},
		{"rollback work", Rollback},
		{"rollback transaction", Rollback},
		{"rollback and chain", Rollback},
		{"rollback prepared 'a'", RollbackPrepared},
		{"commit", Commit},
		{"commit and chain", Commit},
		{"commit transaction", Commit},
		{"commit prepared 'a'", CommitPrepared},
		{"end", End},
		{"end transaction", End},
		{"abort", Abort},
		{"begin", Begin},
		{"begin immediate", Begin},
		{"begin isolation level serializable", Begin},
		{"start transaction read only", StartTransaction},
		{"start", 0},
		{"prepare transaction 'a'", PrepareTransaction},
		{"prepare a as select 1", 0},
		{"prepare transaction as select 1", 0},
		{"prepare transaction (int) as select $1", 0},
		{"CoMmIt", Commit},
		{"commit;", Commit},
		{" \n-- a\n/* b */ rollback/**/to a", RollbackTo},
		{"; ; commit", Commit},
		{"select 1; commit", Commit},
		{"select 1; savepoint a; commit", Savepoint},
		{"select ';'; end", End},
		{"select 'a; commit'", 0},
		{"select 1 -- ; commit", 0},
		{"select 1; /* commit */", 0},
		{"select commit", 0},
		{"explain commit", 0},
		{"(commit)", 0},
		{`"commit"`, 0},
		{"'commit'", 0},
		{"commits", 0},
		{"\u017favepoint a", 0}, // an S to strings.EqualFold
		{"insert into a values ('rollback to b')", 0},
		{"create rule a as on insert to b do (c; commit)", 0},
	} {
		for name, d := range map[string]Dialect{"sqlite": SQLite, "postgres": Postgres} {
			t.Run(name+"/"+test.query, func(t *testing.T) {
				t.Parallel()
				if got := Control(d, test.query); got != test.want {
					t.Errorf("Control(%q) = %q, want %q", test.query, got, test.want)
				}
			})
		}
	}
}

// TestControlDialects has texts that are control on one engine only.
func TestControlDialects(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, query      string
		sqlite, postgres Verb
	}{
		{"trigger", "create trigger a update on b begin select 1; end", 0, End},
		{"behind a trigger", "create trigger a update on b begin select 1; end; commit", Commit, End},
		{"function", "create function a() begin atomic select 1; end", End, 0},
		{"behind a function", "create function a() begin atomic select 1; end; commit", End, Commit},
		{"byte order mark", "\ufeffcommit", Commit, 0},
		{"carriage return behind a comment", "--\rcommit", 0, Commit},
		{"nested comment", "/*/**/commit", Commit, 0},
		{"escaped quote", `select E'\'; commit`, Commit, 0},
		{"continued escape", "select E''\n'\\';commit'", Commit, 0},
		{"dollar quotes", "select $$; commit; $$", Commit, 0},
		{"brackets", "select [; commit; ]", 0, Commit},
		{"variable of Tcl", "select $a(;commit;)", 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := Control(SQLite, test.query); got != test.sqlite {
				t.Errorf("Control(SQLite, %q) = %q, want %q", test.query, got, test.sqlite)
			}
			if got := Control(Postgres, test.query); got != test.postgres {
				t.Errorf("Control(Postgres, %q) = %q, want %q", test.query, got, test.postgres)
			}
		})
	}
}

func TestVerbs(t *testing.T) {
	t.Parallel()
	for v := Savepoint; v <= Abort; v++ {
		if got := Control(Postgres, v.String()); got != v {
			t.Errorf("Control(%q) = %q, want %q", v, got, v)
		}
		want := slices.Contains([]Verb{Savepoint, Release, RollbackTo}, v)
		if got := v.IsSavepoint(); got != want {
			t.Errorf("%v.IsSavepoint() = %v, want %v", v, got, want)
		}
	}
}

//nolint:paralleltest // AllocsPerRun counts the allocations of the whole process.
func TestControlAllocates(t *testing.T) {
	query := "create trigger a begin b; end; insert into c values ($$;$$, ?, E'\\''); select 1"
	for _, d := range []Dialect{SQLite, Postgres} {
		if got := testing.AllocsPerRun(10, func() { Control(d, query) }); got > 0 {
			t.Errorf("Control of dialect %d: %v allocations, want none", d, got)
		}
	}
}

func BenchmarkControl(b *testing.B) {
	query := "insert into a values " + strings.Repeat("(?, ?, ?), ", 100) + "(1, 2, 3)"
	for name, query := range map[string]string{"one": query, "two": query + "; select 1"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Control(Postgres, query)
			}
		})
	}
}

package main

import (
	"strings"
	"testing"

	"github.com/tholedb/thole/internal/testdb"
)

func TestRun(t *testing.T) {
	t.Parallel()
	for engine, url := range map[string]func(testing.TB) string{"sqlite": testdb.SQLite, "postgres": testdb.Postgres} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			if err := run(t.Context(), &out, url(t)); err != nil {
				t.Fatal(err)
			}
			want := "order 1: it is not paid\norder 2: <nil>\nshipped order 2\n"
			if got := out.String(); got != want {
				t.Errorf("printed %q, want %q", got, want)
			}
		})
	}
}

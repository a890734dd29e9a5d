package dbtest

import (
	"runtime"
	"strings"
	"testing"

	"github.com/tholedb/thole"
)

// fakeTB is a test that can be skipped and fail.
type fakeTB struct {
	testing.TB
	skipped  bool
	errors   []string
	cleanups []func()
}

func (f *fakeTB) Helper()              {}
func (f *fakeTB) Skipped() bool        { return f.skipped }
func (f *fakeTB) Cleanup(clean func()) { f.cleanups = append(f.cleanups, clean) }

func (f *fakeTB) Errorf(format string, args ...any) {
	f.errors = append(f.errors, strings.TrimSpace(format))
}

func (f *fakeTB) end() {
	for _, clean := range f.cleanups {
		clean()
	}
}

// TestParityWithoutPostgres: what SQLite has let go on fails the test where there is
// no PostgreSQL to refuse it, and nowhere else.
func TestParityWithoutPostgres(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		lenient         string
		skipped, opened bool
		want            bool
	}{
		"no server":          {"a hint", true, false, true},
		"no hint":            {"", true, false, false},
		"skipped by itself":  {"a hint", true, true, false},
		"failed by a server": {"a hint", false, false, false},
		"ran":                {"a hint", false, true, false},
	} {
		outer, inner := new(fakeTB), &fakeTB{skipped: test.skipped}
		w := newTwins(outer)
		w.lenient = test.lenient
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.open(inner, thole.Postgres, func() *thole.DB {
				if !test.opened {
					runtime.Goexit() // as Skip and Fatal do
				}
				return nil
			})
		}()
		<-done
		inner.end()
		outer.end()
		if got := len(outer.errors) > 0; got != test.want {
			t.Errorf("%s: got failures %q, want one: %t", name, outer.errors, test.want)
		}
	}
}

// TestParityLenient: what SQLite lets go on is remembered for the other subtest.
func TestParityLenient(t *testing.T) {
	t.Parallel()
	w := new(twins)
	t.Run("sqlite", func(t *testing.T) {
		db := Config{twins: w}.sandbox(t, thole.SQLite)
		err := db.WithSession(t.Context(), func(tx *thole.Tx) error {
			if _, err := tx.ExecContext(t.Context(), "select * from missing"); err == nil {
				t.Error("a table that is missing was read")
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	if !strings.Contains(w.lenient, "had failed: it was committed") {
		t.Errorf("got the hint %q", w.lenient)
	}
}

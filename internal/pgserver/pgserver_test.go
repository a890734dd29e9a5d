package pgserver

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestCheckTestURL(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		url string
		ok  bool
	}{
		{"postgres://u:p@host/test", true},
		{"postgresql://host/app_test", true},
		{"postgres://host/TESTDB?sslmode=disable", true},
		{"postgres://host/app-test2", true},
		{"postgres:///?host=/run/postgresql&dbname=test", true},
		{"postgres://host/prod?dbname=test", true},
		{"postgres://host/test?dbname=prod", false},
		{"postgres://host/test?database=prod", false},
		{"postgres://host/postgres", false},
		{"postgres://test@test/", false},
		{"postgres://host", false},
		{"postgres://host/latest", false},
		{"postgres://host/contest_entries", false},
		{"postgres://u:se/cret@host/test", false},
		{"postgres://host/%zz", false},
	} {
		err := checkTestURL(tt.url)
		if (err == nil) != tt.ok {
			t.Errorf("checkTestURL(%q) = %v, want ok: %v", tt.url, err, tt.ok)
		}
	}
}

func FuzzCheckTestURL(f *testing.F) {
	f.Add("s3cret", "app")
	f.Add("s3/cr:et", "test")
	f.Add("%zz", "")
	f.Fuzz(func(t *testing.T, password, database string) {
		password = "<" + password + ">"
		err := checkTestURL("postgres://user:" + password + "@host/" + url.PathEscape(database))
		if err != nil && !strings.Contains(database, password) && strings.Contains(err.Error(), password) {
			t.Errorf("checkTestURL: error %q has the password %q", err, password)
		}
	})
}

func TestFromEnv(t *testing.T) {
	const testDB, otherDB = "postgres://host/test", "postgres://host/orders"
	for _, tt := range []struct {
		name, url, unsafe string
		want              *Server
		passed            Passed
		err               bool
	}{
		{name: "unset", passed: Passed{"DBTEST_URL", "not set"}},
		{name: "another engine", url: "sqlite:test.db", passed: Passed{"DBTEST_URL", "not a PostgreSQL URL"}},
		{name: "test database", url: testDB, want: &Server{URL: testDB, Provider: "DBTEST_URL"}},
		{name: "other database", url: otherDB, err: true},
		{name: "allowed", url: otherDB, unsafe: "1", want: &Server{URL: otherDB, Provider: "DBTEST_URL"}},
		{name: "half allowed", url: otherDB, unsafe: "no", err: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("DATABASE_URL", testDB)
			t.Setenv("DBTEST_URL", tt.url)
			t.Setenv("DBTEST_UNSAFE", tt.unsafe)
			s, passed, err := fromEnv()
			if (err != nil) != tt.err {
				t.Fatalf("fromEnv: error %v, want one: %v", err, tt.err)
			}
			if diff := cmp.Diff(tt.want, s, ignoreOwn); diff != "" {
				t.Errorf("server (-want +got):\n%s", diff)
			}
			if passed != tt.passed {
				t.Errorf("passed = %v, want %v", passed, tt.passed)
			}
		})
	}
}

func TestNotFoundErrorListsReasons(t *testing.T) {
	t.Parallel()
	err := &NotFoundError{What: aServer, Passed: []Passed{{"DBTEST_URL", "not set"}, {"PATH", "nothing there"}}}
	const want = "find a PostgreSQL server: DBTEST_URL: not set; PATH: nothing there"
	if got := err.Error(); got != want {
		t.Errorf("Error() = %q, want %q", got, want)
	}
}

func TestFindStopsWaiting(t *testing.T) {
	t.Parallel()
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	// A server that is there already may be returned all the same.
	if s, err := Find(ctx); s == nil && !errors.Is(err, cause) {
		t.Errorf("Find with an ended context = %v, want %v", err, cause)
	}
	find1(t) // the start went on without that caller
}

// find1 returns the server of this process, or skips the test.
func find1(t *testing.T) *Server {
	t.Helper()
	s, err := Find(t.Context())
	if notFound := (*NotFoundError)(nil); errors.As(err, &notFound) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// ignoreOwn leaves out what only a server that was started here has.
var ignoreOwn = cmpopts.IgnoreUnexported(Server{})

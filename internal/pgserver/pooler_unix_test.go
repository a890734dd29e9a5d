//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package pgserver

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
)

// localPoolerOf starts a pooler before s with a directory in a folder of the
// test's own.
func localPoolerOf(t *testing.T, s *Server) (pooler *Server, parent string) {
	t.Helper()
	program, passed := findPooler(poolerPlaces)
	if program == "" {
		t.Skip(&NotFoundError{What: "PgBouncer", Passed: passed})
	}
	h := host{parents: []string{subdir(t, "poolers")}, cred: account()}
	pooler, err := h.startPooler(t.Context(), program, s.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pooler.lifeline.Close() })
	return pooler, h.parents[0]
}

func scan[T any](t *testing.T, conn *pgx.Conn, query string) (value T) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), query, pgx.QueryExecModeExec).Scan(&value); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return value
}

// TestPoolerPoolsTransactions has two clients take turns on one connection to
// the server, which each of them is shown as its own.
func TestPoolerPoolsTransactions(t *testing.T) {
	t.Parallel()
	pooler, _ := localPoolerOf(t, localServer(t, newHost(t)))
	a, b := connect(t, pooler.URL), connect(t, pooler.URL)
	const backend = "select pg_backend_pid()"
	first := scan[uint32](t, a, backend)
	if got := scan[uint32](t, b, backend); got != first {
		t.Errorf("the second client has backend %d, want %d like the first", got, first)
	}
	if _, err := a.Exec(t.Context(), "begin"); err != nil {
		t.Fatal(err)
	}
	if got := scan[uint32](t, b, backend); got == first {
		t.Errorf("the second client has backend %d in the middle of the first's transaction", got)
	}
	for _, client := range []*pgx.Conn{a, b} {
		name, address := scan[string](t, client, "show application_name"), client.PgConn().Conn().LocalAddr().String()
		if !strings.HasSuffix(name, " - "+address) {
			t.Errorf("application_name = %q, want the client's address %s at its end", name, address)
		}
	}
}

// TestPoolerReachesEveryDatabase also has a server that asks for the password.
func TestPoolerReachesEveryDatabase(t *testing.T) {
	t.Parallel()
	s := localServer(t, newHost(t))
	byTCP := parseURL(t, s.URL)
	byTCP.Host = net.JoinHostPort("127.0.0.1", byTCP.Query().Get("port"))
	byTCP.RawQuery = "sslmode=disable"
	pooler, _ := localPoolerOf(t, &Server{URL: byTCP.String()})
	execute := connect(t, s.URL)
	if _, err := execute.Exec(t.Context(), "create database another"); err != nil {
		t.Fatal(err)
	}
	another := parseURL(t, pooler.URL)
	another.Path = "/another"
	if got := scan[string](t, connect(t, another.String()), "select current_database()"); got != "another" {
		t.Errorf("got the database %q, want another", got)
	}
	if _, err := execute.Exec(t.Context(), "drop database another with (force)"); err != nil {
		t.Errorf("drop a database that the pooler has a connection to: %v", err)
	}
}

func TestPoolerEnds(t *testing.T) {
	t.Parallel()
	pooler, parent := localPoolerOf(t, localServer(t, newHost(t)))
	connect(t, pooler.URL) // a client that stays does not keep it
	if len(directories(t, parent)) != 1 {
		t.Fatal("the pooler has no directory")
	}
	pooler.lifeline.Close()
	waitUntil(t, "the directory is gone", func() bool { return len(directories(t, parent)) == 0 })
	if conn, err := net.Dial("tcp4", parseURL(t, pooler.URL).Host); err == nil {
		conn.Close()
		t.Error("the pooler is still there, want its end before its directory's")
	}
}

func TestPoolerThatFails(t *testing.T) {
	t.Parallel()
	h := host{parents: []string{subdir(t, "poolers")}, cred: account()}
	program, passed := findPooler(poolerPlaces)
	if program == "" {
		t.Skip(&NotFoundError{What: "PgBouncer", Passed: passed})
	}
	_, err := h.startPooler(t.Context(), program, "postgres://user@host/test?sslmode=nonsense")
	if err == nil || !strings.Contains(err.Error(), "server_tls_sslmode") {
		t.Errorf("start with a wrong setting: error %v, want PgBouncer's words", err)
	}
	if _, err := h.startPooler(t.Context(), program, "postgres://u:se/cret@host/test"); err == nil || strings.Contains(err.Error(), "cret") {
		t.Errorf("start with a malformed URL: error %v, want one without the password", err)
	}
	if left := directories(t, h.parents[0]); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestFindPooler(t *testing.T) {
	empty, full := t.TempDir(), t.TempDir()
	program := filepath.Join(full, "pgbouncer")
	if err := os.WriteFile(program, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", empty)
	got, passed := findPooler([]string{empty, full})
	want := []Passed{{"PATH", "no pgbouncer"}, {empty, "no pgbouncer"}}
	if got != program || !cmp.Equal(passed, want) {
		t.Errorf("findPooler = %q, %v, want %q, %v", got, passed, program, want)
	}
	if got, passed := findPooler([]string{empty}); got != "" || !cmp.Equal(passed, want) {
		t.Errorf("findPooler where there is none = %q, %v, want none, %v", got, passed, want)
	}
	t.Setenv("PATH", full)
	if got, _ := findPooler(nil); got != program {
		t.Errorf("findPooler by PATH = %q, want %q", got, program)
	}
}

func TestUpstream(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ url, database, users, through string }{
		{
			url:      "postgres://app:p%40ss@db.test:6432/app_test?sslmode=require",
			database: "* = host='db.test' port='6432'", users: `"app" "p@ss"` + "\n",
			through: "postgres://app:p%40ss@127.0.0.1:1/app_test?sslmode=disable",
		},
		{
			url:      "postgres://a%22b:c'd@/test?host=/tmp/o'clock&port=5433",
			database: "* = host='/tmp/o''clock' port='5433'", users: `"a""b" "c'd"` + "\n",
			through: "postgres://a%22b:c%27d@127.0.0.1:1/test?sslmode=disable",
		},
	} {
		to, err := readUpstream(tt.url)
		if err != nil {
			t.Fatal(err)
		}
		if config := to.config(1); !strings.Contains(config, tt.database+"\n") {
			t.Errorf("%s: the configuration is\n%s\nwant %q in it", tt.url, config, tt.database)
		}
		if diff := cmp.Diff([]string{tt.users, tt.through}, []string{to.users(), to.through("127.0.0.1:1")}); diff != "" {
			t.Errorf("%s: users and URL (-want +got):\n%s", tt.url, diff)
		}
	}
	if _, err := readUpstream("postgres://app:a%0Ab@host/test"); err == nil {
		t.Error("a line break in the password: got no error")
	}
}

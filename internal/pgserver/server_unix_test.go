//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package pgserver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"
)

func TestFind(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			s, err := Find(t.Context())
			if want := find1(t); err != nil || s != want {
				t.Errorf("Find = %v, %v, want the one server %v", s, err, want)
			}
		})
	}
	wg.Wait()
	s := find1(t)
	if got, err := URL(t.Context()); err != nil || got != s.URL {
		t.Errorf("URL = %q, %v, want %q", got, err, s.URL)
	}
	ping(t, s.URL)
}

// TestSettings asks what tests rely on: text is compared by its bytes, as in
// SQLite, and times do not depend on the machine.
func TestSettings(t *testing.T) {
	t.Parallel()
	conn := connect(t, localServer(t, newHost(t)).URL)
	want := map[string]string{
		"lc_collate": "C", "server_encoding": "UTF8", "TimeZone": "UTC", "fsync": "off", "is_superuser": "on",
	}
	got := map[string]string{}
	for name := range want {
		var value string
		if err := conn.QueryRow(t.Context(), "select current_setting($1)", name).Scan(&value); err != nil {
			t.Fatal(err)
		}
		got[name] = value
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
}

func TestListensOnTCP(t *testing.T) {
	t.Parallel()
	config, err := pgx.ParseConfig(localServer(t, newHost(t)).URL)
	if err != nil {
		t.Fatal(err)
	}
	config.Host = "127.0.0.1"
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatalf("connect by TCP: %v", err)
	}
	conn.Close(t.Context())

	config.Password = "wrong"
	conn, err = pgx.ConnectConfig(t.Context(), config)
	if err == nil {
		conn.Close(t.Context())
	}
	var refused *pgconn.PgError
	if !errors.As(err, &refused) || refused.Code != "28P01" {
		t.Errorf("connect with a wrong password: error %v, want code 28P01", err)
	}
}

func TestParents(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		parent func(t *testing.T) string
		host   string // of the URL; empty: the socket
	}{
		{name: "spaces", parent: func(t *testing.T) string { return subdir(t, "a folder & 'more'") }},
		{name: "pattern", parent: func(t *testing.T) string { return subdir(t, "[a-*") }},
		{name: "comma", parent: func(t *testing.T) string { return subdir(t, "a, b") }, host: "127.0.0.1"},
		{name: "too long for a socket", parent: func(t *testing.T) string {
			return subdir(t, strings.Repeat("long/", 25))
		}, host: "127.0.0.1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.parents = []string{tt.parent(t)}
			s := localServer(t, h)
			if got := parseURL(t, s.URL).Hostname(); got != tt.host {
				t.Errorf("host of the URL = %q, want %q", got, tt.host)
			}
			ping(t, s.URL)
		})
	}
}

func TestClosedParentIsPassedOver(t *testing.T) {
	t.Parallel()
	closed, open := subdir(t, "closed"), subdir(t, "open")
	if err := os.Chmod(closed, 0); err != nil {
		t.Fatal(err)
	}
	h := newHost(t)
	h.parents = []string{closed}
	if _, err := h.start(t.Context()); err == nil {
		t.Error("start in a closed folder: no error")
	}
	h.parents = []string{closed, open}
	if dir := directory(t, localServer(t, h).URL); filepath.Dir(dir) != open {
		t.Errorf("directory = %s, want one in %s", dir, open)
	}
	if err := os.Chmod(closed, 0o755); err != nil {
		t.Fatal(err)
	}
	if left := directories(t, closed); len(left) > 0 {
		t.Errorf("left in the closed folder: %v", left)
	}
}

//nolint:paralleltest,tparallel // the subtests spoil the same file
func TestKeptCluster(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.cache = subdir(t, "cache")
	kept, err := h.keptCluster(t.Context(), "/")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 3 { // at once, with none kept yet
		wg.Go(func() {
			if s, err := h.start(t.Context()); err != nil {
				t.Error(err)
			} else {
				s.lifeline.Close()
			}
		})
	}
	wg.Wait()
	whole, err := os.ReadFile(kept)
	if err != nil {
		t.Fatal(err)
	}
	if files := names(t, h.cache); len(files) != 1 {
		t.Errorf("kept files = %v, want one", files)
	}
	for name, content := range map[string][]byte{
		"as it was": whole, "cut short": whole[:len(whole)/2], "empty": nil, "no tar file": []byte("spoilt"),
	} {
		if err := os.WriteFile(kept, content, 0o600); err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) { ping(t, localServer(t, h).URL) })
	}
}

func TestFailedStart(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	dir, lock, err := h.makeDir()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.restoreCluster(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	_, err = h.run(t.Context(), dir, lock, []string{filepath.Join(h.bin, "postgres"), "-D", dataName, "-c", "no_such=1"}, func() bool { return false })
	if err == nil || !strings.Contains(err.Error(), "no_such") {
		t.Errorf("run with a wrong setting: error %v, want PostgreSQL's words", err)
	}
	if left := directories(t, h.parents[0]); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.start(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("start with an ended context: error %v, want %v", err, context.Canceled)
	}
}

func TestSweep(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	parent := h.parents[0]
	_, lock, err := h.makeDir()
	if err != nil {
		t.Fatal(err)
	}
	held := directories(t, parent)
	abandoned, free, err := h.makeDirIn(parent)
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	unborn, stillborn := filepath.Join(parent, dirPrefix+"unborn"), filepath.Join(parent, dirPrefix+"stillborn")
	for dir, made := range map[string]time.Time{unborn: time.Now(), stillborn: time.Now().Add(-2 * time.Hour)} {
		if err := errors.Join(os.Mkdir(dir, 0o700), h.give(dir), os.Chtimes(dir, made, made)); err != nil {
			t.Fatal(err)
		}
	}
	// A process that another test starts meanwhile has the locks too, until it
	// has become another program.
	sweepUntil := func(gone string) {
		waitUntil(t, gone+" is swept", func() bool {
			h.sweep(parent)
			return !exists(gone)
		})
	}
	sweepUntil(abandoned)
	sweepUntil(stillborn)
	if diff := cmp.Diff(append(held, filepath.Base(unborn)), directories(t, parent)); diff != "" {
		t.Errorf("directories after the sweep (-want +got):\n%s", diff)
	}
	lock.Close()
	sweepUntil(filepath.Join(parent, held[0]))
	if diff := cmp.Diff([]string{filepath.Base(unborn)}, directories(t, parent)); diff != "" {
		t.Errorf("directories after the second sweep (-want +got):\n%s", diff)
	}
}

// TestNothingSurvives ends processes that have a server in several ways.
func TestNothingSurvives(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(p *process) error{
		"return": func(p *process) error { return p.tell("return") },
		"exit":   func(p *process) error { return p.tell("exit") },
		"panic":  func(p *process) error { return p.tell("panic") },
		"ctrl-c": func(p *process) error { return syscall.Kill(-p.cmd.Process.Pid, syscall.SIGINT) },
		"kill":   func(p *process) error { return syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startProcess(t, newHost(t), nil)
			connect(t, p.url) // a client that stays does not keep the server
			server := serverPID(t, p.url)
			if err := end(p); err != nil {
				t.Fatal(err)
			}
			p.cmd.Wait()
			waitUntil(t, "the directory is gone", func() bool { return !exists(directory(t, p.url)) })
			if err := syscall.Kill(server, 0); err != syscall.ESRCH {
				t.Errorf("the server is still there (%v), want its end before its directory's", err)
			}
		})
	}
}

// TestKillDuringStart kills processes at many moments of their server's start.
func TestKillDuringStart(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	localServer(t, h) // so that there is a kept cluster
	h.parents = []string{subdir(t, "killed")}
	for delay := 20 * time.Millisecond; delay < 200*time.Millisecond; delay += 20 * time.Millisecond {
		cmd := helper(t, h, nil)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(delay) // not to wait for anything: any moment will do
		cmd.Process.Kill()
		cmd.Wait()
	}
	waitUntil(t, "no directory with a lock is left", func() bool {
		h.sweep(h.parents[0])
		locks, err := filepath.Glob(filepath.Join(h.parents[0], "*", lockName))
		return err == nil && len(locks) == 0
	})
}

// TestKillWatcherToo kills the process and its watcher: the next run sweeps.
func TestKillWatcherToo(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p := startProcess(t, h, nil)
	server := serverPID(t, p.url)
	t.Cleanup(func() { syscall.Kill(server, syscall.SIGQUIT) })
	out, err := exec.Command("ps", "-o", "ppid=", "-p", strconv.Itoa(server)).Output()
	if err != nil {
		t.Fatal(err)
	}
	watcher, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range []int{watcher, p.cmd.Process.Pid} {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	p.cmd.Wait()
	waitUntil(t, "the directory is swept", func() bool {
		h.sweep(h.parents[0])
		return !exists(directory(t, p.url))
	})
}

func TestProcessesHaveTheirOwn(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	a, b := startProcess(t, h, nil), startProcess(t, h, nil)
	if a.url == b.url {
		t.Errorf("two processes share %s", a.url)
	}
	ping(t, a.url)
	ping(t, b.url)
}

// TestWithoutRoot runs the whole search as nobody, who has no home.
func TestWithoutRoot(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("all other tests run without root already")
	}
	h := newHost(t)
	h.parents, h.cache = nil, ""
	p := startProcess(t, h, account())
	dir := directory(t, p.url)
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := info.Sys().(*syscall.Stat_t).Uid, account().Uid; got != want {
		t.Errorf("owner of %s = %d, want %d", dir, got, want)
	}
	ping(t, p.url)
}

func TestFindBinaries(t *testing.T) {
	empty, full := t.TempDir(), t.TempDir()
	for _, name := range []string{"initdb", "postgres"} {
		if err := os.WriteFile(filepath.Join(full, name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", empty+":"+full)
	if dir, passed := findBinaries(); dir != full || passed != nil {
		t.Errorf("findBinaries() = %q, %v, want %q", dir, passed, full)
	}
	t.Setenv("PATH", empty)
	dir, passed := findBinaries()
	if want := (Passed{"PATH", "no initdb with a postgres beside it"}); len(passed) == 0 || passed[0] != want {
		t.Errorf("findBinaries() = %q, %v, want %v first", dir, passed, want)
	}
	if dir == "" && len(passed) != len(binPatterns)+2 {
		t.Errorf("findBinaries() = %q, %v, want every place", dir, passed)
	}
}

func TestNewestFirst(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	var want []string
	for _, name := range []string{"postgresql@18", "postgresql@17", "postgresql@10", "postgresql@9.6"} {
		dir := filepath.Join(root, name, "bin")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		want = append(want, dir)
	}
	if diff := cmp.Diff(want, newestFirst(filepath.Join(root, "postgresql*", "bin"))); diff != "" {
		t.Errorf("newestFirst (-want +got):\n%s", diff)
	}
}

func TestEnviron(t *testing.T) {
	t.Parallel()
	got := environ([]string{"PGDATA=/x", "PATH=/bin", "LC_TIME=de_DE", "LANG=fr", "LANGUAGE=fr", "LD_LIBRARY_PATH=/lib"})
	want := []string{"LC_ALL=C", "PATH=/bin", "LD_LIBRARY_PATH=/lib"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("environ (-want +got):\n%s", diff)
	}
}

const (
	helperParent = "PGSERVER_TEST_PARENT"
	helperCache  = "PGSERVER_TEST_CACHE"
)

// TestHelper is the other process of other tests: it says its server's URL and
// ends as it is told.
//
//nolint:paralleltest // it has the process for itself
func TestHelper(t *testing.T) {
	parent, ok := os.LookupEnv(helperParent)
	if !ok {
		t.Skip("run by other tests in a process of its own")
	}
	before := goleak.IgnoreCurrent()
	s, err := helperServer(t, parent)
	if err != nil {
		t.Fatal(err)
	}
	if err := goleak.Find(before); err != nil {
		t.Fatal(err)
	}
	fmt.Printf("url %s\n", s.URL)
	var how string
	fmt.Scanln(&how)
	runtime.KeepAlive(s) // its lifeline must not be collected
	switch how {
	case "exit":
		os.Exit(1)
	case "panic":
		panic("as told")
	}
}

func helperServer(t *testing.T, parent string) (*Server, error) {
	t.Helper()
	if parent == "" {
		return Find(t.Context())
	}
	bin, _ := findBinaries()
	return host{bin, []string{parent}, os.Getenv(helperCache), nil, account()}.start(t.Context())
}

// process is another process with a server.
type process struct {
	cmd   *exec.Cmd
	stdin io.Writer
	url   string
}

func (p *process) tell(how string) error {
	_, err := fmt.Fprintln(p.stdin, how)
	return err
}

// helper returns the command of a process that starts a server as h would, or
// as Find does where h has no parents.
func helper(t *testing.T, h host, cred *syscall.Credential) *exec.Cmd {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if cred != nil {
		program = copyProgram(t, program) // the go command's folder is closed to others
	}
	cmd := exec.Command(program, "-test.run=^TestHelper$")
	cmd.Dir = "/"
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"),
		helperParent + "=" + strings.Join(h.parents, ""), helperCache + "=" + h.cache,
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: cred}
	return cmd
}

func copyProgram(t *testing.T, program string) string {
	t.Helper()
	content, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	dst := filepath.Join(subdir(t, "bin"), filepath.Base(program))
	if err := os.WriteFile(dst, content, 0o755); err != nil {
		t.Fatal(err)
	}
	return dst
}

// startProcess starts such a process and returns when it has its server.
func startProcess(t *testing.T, h host, cred *syscall.Credential) *process {
	t.Helper()
	return startCommand(t, helper(t, h, cred))
}

// startCommand starts a command of helper's.
func startCommand(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	url, ok := strings.CutPrefix(strings.TrimSpace(line), "url ")
	if !ok {
		rest, _ := io.ReadAll(stdout)
		t.Fatalf("the process said %q and %q (%v), want its server's URL", line, rest, err)
	}
	return &process{cmd, stdin, url}
}

// newHost returns what Find would use, with folders of the test's own.
func newHost(t *testing.T) host {
	t.Helper()
	bin, passed := findBinaries()
	if bin == "" {
		t.Skip(&NotFoundError{What: aServer, Passed: passed})
	}
	return host{bin: bin, parents: []string{subdir(t, "servers")}, cache: cacheDir(), cred: account()}
}

func localServer(t *testing.T, h host) *Server {
	t.Helper()
	s, err := h.start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.lifeline.Close() })
	return s
}

// subdir makes a folder that all users can reach, unlike those of t.TempDir.
func subdir(t *testing.T, name string) string {
	t.Helper()
	root, err := os.MkdirTemp("", "pgserver-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, name)
	if err := errors.Join(os.Chmod(root, 0o755), os.MkdirAll(dir, 0o755), os.Chmod(dir, 0o777)); err != nil {
		t.Fatal(err)
	}
	// Servers of the test are ending and remove their files at the same time.
	t.Cleanup(func() { waitUntil(t, root+" is removed", func() bool { return os.RemoveAll(root) == nil }) })
	return dir
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func ping(t *testing.T, url string) {
	t.Helper()
	if err := connect(t, url).Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

func parseURL(t *testing.T, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// directory is the directory of a server, from its URL.
func directory(t *testing.T, raw string) string {
	t.Helper()
	return parseURL(t, raw).Query().Get("host")
}

// serverPID is the process of a server.
func serverPID(t *testing.T, url string) int {
	t.Helper()
	state, err := os.ReadFile(filepath.Join(directory(t, url), dataName, "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(state), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// directories are the servers' directories in parent.
func directories(t *testing.T, parent string) []string {
	t.Helper()
	var dirs []string
	for _, name := range names(t, parent) {
		if strings.HasPrefix(name, dirPrefix) {
			dirs = append(dirs, name)
		}
	}
	return dirs
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// waitUntil waits for what another process does, of which nobody tells us.
func waitUntil(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("waited in vain until %s", what)
			return
		}
	}
}

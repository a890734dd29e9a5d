package dockerpg

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/ory/dockertest/v3/docker"
	"go.uber.org/goleak"

	"github.com/tholedb/thole/internal/pgserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// seconds that a container of these tests has. The number is part of what a
// container is, so that tests with different ones share none.
const (
	shared       = 5 * time.Second
	killed       = 2 * time.Second
	kept         = 2*time.Second + killed
	killedEarly  = 6 * time.Second
	created      = 7 * time.Second
	neverStarted = 8 * time.Second
	agreed       = 9 * time.Second
	broken       = 10 * time.Second
	raced        = 11 * time.Second
)

// testServer is a server of the image that DBTEST_PG_IMAGE names.
func testServer(t *testing.T, idle time.Duration) server {
	t.Helper()
	image := os.Getenv(pgserver.ImageVariable)
	if image == "" {
		t.Skip("set " + pgserver.ImageVariable + " to an image that the Docker engine has")
	}
	return server{image: image, idle: idle, progress: t.Output()}
}

// find returns the server, or fails the test.
func find(t *testing.T, s server) *pgserver.Server {
	t.Helper()
	found, reason, err := s.find(t.Context())
	if err != nil || reason != "" {
		t.Fatalf("find: reason %q, error %v", reason, err)
	}
	t.Cleanup(func() { found.Lease.Close() })
	return found
}

// newStarter returns what find uses.
func newStarter(t *testing.T, s server) *starter {
	t.Helper()
	e, err := connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	id, entrypoint, err := e.image(t.Context(), s.image, s.progress)
	if err != nil {
		t.Fatal(err)
	}
	return &starter{engine: e, image: s.image, options: s.options(e, id, entrypoint)}
}

// isThere reports whether the engine has the container.
func (s *starter) isThere(t *testing.T) bool {
	t.Helper()
	_, err := s.Client.InspectContainer(s.options.Name)
	if err != nil && !errors.As(err, new(*docker.NoSuchContainer)) {
		t.Fatal(err)
	}
	return err == nil
}

func ping(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	if err := conn.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	return conn
}

// waitUntil waits for what the engine does, of which nobody tells us.
func waitUntil(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("waited in vain until %s", what)
			return
		}
	}
}

const helperIdle = "DOCKERPG_TEST_IDLE"

// TestHelper is the other process of other tests: it says its server's URL, and
// ends when it is told. Without a number of seconds it does as a user's does.
//
//nolint:paralleltest // it has the process for itself
func TestHelper(t *testing.T) {
	idle, ok := os.LookupEnv(helperIdle)
	if !ok {
		t.Skip("run by other tests in a process of its own")
	}
	var s *pgserver.Server
	if idle == "" {
		var err error
		if s, err = pgserver.Find(t.Context()); err != nil {
			t.Fatal(err)
		}
	} else {
		seconds, err := strconv.Atoi(idle)
		if err != nil {
			t.Fatal(err)
		}
		s = find(t, testServer(t, time.Duration(seconds)*time.Second))
	}
	fmt.Printf("url %s\n", s.URL)
	fmt.Printf("found %s %v\n", s.Provider, s.Passed)
	fmt.Scanln()
	runtime.KeepAlive(s)
}

// process is another process with a server.
type process struct {
	*exec.Cmd
	said *bufio.Reader
}

// newProcess returns a process that finds a server, and has not begun.
func newProcess(t *testing.T, idle string) *exec.Cmd {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-test.run=^TestHelper$")
	cmd.Env = append(os.Environ(), helperIdle+"="+idle)
	return cmd
}

func startProcess(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{cmd, bufio.NewReader(stdout)}
	t.Cleanup(p.kill)
	return p
}

func inSeconds(idle time.Duration) string { return strconv.Itoa(int(idle / time.Second)) }

// line returns the rest of the next line that begins with key.
func (p *process) line(t *testing.T, key string) string {
	t.Helper()
	line, err := p.said.ReadString('\n')
	value, ok := strings.CutPrefix(strings.TrimSpace(line), key+" ")
	if !ok {
		rest, _ := io.ReadAll(p.said)
		t.Fatalf("the process said %q and %q (%v), want %s", line, rest, err, key)
	}
	return value
}

// kill kills the process, which cannot clean up.
func (p *process) kill() {
	p.Process.Kill()
	p.Wait()
}

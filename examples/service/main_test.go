package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/testdb"
)

// The test binary is other programs too, when this variable names them.
const programVariable = "THOLE_TEST_SERVICE_PROGRAM"

func TestMain(m *testing.M) {
	switch os.Getenv(programVariable) {
	case "service":
		main()
	case "client":
		if err := clientMain(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, "client:", err)
			os.Exit(1)
		}
	default:
		os.Exit(m.Run())
	}
}

// program is the test binary as another program.
func program(t *testing.T, name string, env ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), append(env, programVariable+"="+name)...)
	cmd.Stderr = os.Stderr
	return cmd
}

// TestSignal ends the program as an operator does.
func TestSignal(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("Windows can't send SIGTERM")
	}
	eachURL(t, func(t *testing.T, databaseURL string) {
		cmd := program(t, "service", "DATABASE_URL="+databaseURL, "ADDR=127.0.0.1:0")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		url := listening(t, out)
		if got := ask(t, http.MethodGet, url+"/shields", ""); got != http.StatusOK {
			t.Errorf("status: got %d, want %d", got, http.StatusOK)
		}
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("the service ended with %v, want no error", err)
		}
	})
}

// listening is the URL that the program says it listens on.
func listening(t *testing.T, out io.Reader) string {
	t.Helper()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	url, _, _ := strings.Cut(strings.TrimPrefix(line, "listening on "), ",")
	return url
}

func TestRunFails(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	sqlite := testdb.SQLite(t)
	for _, test := range []struct{ databaseURL, addr string }{
		{"sqlite://data/app.db", "127.0.0.1:0"},
		{sqlite, "nowhere"},
		{sqlite, taken.Addr().String()},
	} {
		if err := run(t.Context(), io.Discard, test.databaseURL, test.addr); err == nil {
			t.Errorf("run on %s, %s: got no error", test.databaseURL, test.addr)
		}
	}
}

// TestShutDown asks the service to end while it is busy with a request: that
// one finishes, a new one is refused.
func TestShutDown(t *testing.T) {
	t.Parallel()
	eachService(t, func(t *testing.T, handler http.Handler, _ *thole.DB) {
		entered, release := make(chan struct{}), make(chan struct{})
		s := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			close(entered)
			<-release
			handler.ServeHTTP(w, r)
		}), time.Minute)
		answered := make(chan int, 1)
		go func() { answered <- ask(t, http.MethodPost, s.url+"/shields", tower) }()
		<-entered
		s.stop()
		eventually(t, "new requests are refused", func() bool {
			conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
			if err == nil {
				conn.Close()
			}
			return err != nil
		})
		close(release)
		if got := <-answered; got != http.StatusCreated {
			t.Errorf("status of the request in progress: got %d, want %d", got, http.StatusCreated)
		}
		s.wantEnd(t)
		wantStatus(t, request(t, handler, http.MethodGet, "/shields/Tower%20Shield", ""), http.StatusOK)
	})
}

// TestShutDownIsBounded has a request that does not end by itself.
func TestShutDownIsBounded(t *testing.T) {
	t.Parallel()
	entered, cutOff := make(chan struct{}), make(chan error, 1)
	s := start(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
		cutOff <- r.Context().Err()
	}), time.Millisecond)
	go http.Get(s.url) // gets no answer
	<-entered
	s.stop()
	if err := <-s.ended; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("serve: got %v, want context.DeadlineExceeded", err)
	}
	if err := <-cutOff; !errors.Is(err, context.Canceled) {
		t.Errorf("the request's context: got %v, want context.Canceled", err)
	}
}

// running is a service that is being served.
type running struct {
	url   string
	stop  context.CancelFunc
	ended chan error
}

func start(t *testing.T, handler http.Handler, grace time.Duration) *running {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	s := &running{"http://" + listener.Addr().String(), stop, make(chan error, 1)}
	go func() { s.ended <- serve(ctx, listener, handler, grace) }()
	return s
}

func (s *running) wantEnd(t *testing.T) {
	t.Helper()
	s.stop()
	if err := <-s.ended; err != nil {
		t.Errorf("serve: got %v, want no error", err)
	}
}

// ask returns the status of the answer.
func ask(t *testing.T, method, url, body string) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Error(err)
		return 0
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer response.Body.Close()
	return response.StatusCode
}

// eventually waits, as long as a slow machine may need.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("not so: %s", what)
			return
		}
	}
}

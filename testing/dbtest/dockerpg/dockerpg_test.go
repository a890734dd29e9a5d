package dockerpg

import (
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/ory/dockertest/v3/docker"

	"github.com/tholedb/thole/internal/pgserver"
)

// TestB28Chosen has an image that is named come before the programs on this
// machine, in a process that has imported this package.
func TestB28Chosen(t *testing.T) {
	t.Parallel()
	s := testServer(t, 0)
	p := startProcess(t, newProcess(t, ""))
	ping(t, p.line(t, "url"))
	if got, want := p.line(t, "found"), "Docker, "+s.image+" [{DBTEST_URL not set}]"; got != want {
		t.Errorf("the process found %s, want %s", got, want)
	}
}

// TestB28PassedOver has the programs on this machine come next where no engine
// answers, and says so.
func TestB28PassedOver(t *testing.T) {
	t.Parallel()
	testServer(t, 0)
	cmd := newProcess(t, "")
	cmd.Env = append(cmd.Env, "DOCKER_HOST=unix:///nowhere/docker.sock")
	p := startProcess(t, cmd)
	ping(t, p.line(t, "url"))
	if got := p.line(t, "found"); strings.HasPrefix(got, "Docker") || !strings.Contains(got, "{Docker no engine answers: ") {
		t.Errorf("the process found %s, want another server, and why not Docker's", got)
	}
}

// TestB29OneServer has processes that begin at once share a container.
func TestB29OneServer(t *testing.T) {
	t.Parallel()
	s := newStarter(t, testServer(t, raced))
	var processes []*process
	for range 4 {
		processes = append(processes, startProcess(t, newProcess(t, inSeconds(raced))))
	}
	first := processes[0].line(t, "url")
	ping(t, first)
	for _, p := range processes[1:] {
		if got := p.line(t, "url"); got != first {
			t.Errorf("got the server %s, want all to share %s", got, first)
		}
	}
	ours, err := s.Client.ListContainers(docker.ListContainersOptions{
		All: true, Filters: map[string][]string{"label": {label + "=" + s.options.Name}},
	})
	if err != nil || len(ours) != 1 {
		t.Errorf("got the containers %v, error %v, want one", ours, err)
	}
}

// TestB33Container looks at what runs.
func TestB33Container(t *testing.T) {
	t.Parallel()
	want := testServer(t, shared)
	s := find(t, want)
	starter := newStarter(t, want)
	c, err := starter.Client.InspectContainer(starter.options.Name)
	if err != nil {
		t.Fatal(err)
	}
	if c.Config.Labels[label] == "" || !c.HostConfig.AutoRemove || c.HostConfig.ShmSize != shmSize {
		t.Errorf("labels %v, removed at its end %v, %d bytes of shared memory", c.Config.Labels, c.HostConfig.AutoRemove, c.HostConfig.ShmSize)
	}
	if got := c.NetworkSettings.Ports[port]; len(got) != 1 || got[0].HostIP != "127.0.0.1" {
		t.Errorf("ports = %v, want one of this machine alone", got)
	}
	conn := ping(t, s.URL)
	got := map[string]string{}
	settings := map[string]string{
		"lc_collate": "C", "server_encoding": "UTF8", "TimeZone": "UTC", "fsync": "off", "max_connections": "300",
		"data_directory": memory + "/data", "is_superuser": "on", "dynamic_shared_memory_type": "posix",
	}
	for name := range settings {
		var value string
		if err := conn.QueryRow(t.Context(), "select current_setting($1)", name).Scan(&value); err != nil {
			t.Fatal(err)
		}
		got[name] = value
	}
	if diff := cmp.Diff(settings, got); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
	var kind string
	if err := conn.QueryRow(t.Context(), "select pg_read_file('/proc/mounts')").Scan(&kind); err != nil || !strings.Contains(kind, "tmpfs "+memory+" ") {
		t.Errorf("mounts: error %v, want data in memory:\n%s", err, kind)
	}
}

// TestB33Password refuses who does not know the password.
func TestB33Password(t *testing.T) {
	t.Parallel()
	config, err := pgx.ParseConfig(find(t, testServer(t, shared)).URL)
	if err != nil {
		t.Fatal(err)
	}
	if len(config.Password) < 20 {
		t.Errorf("the password is %q, want a random one", config.Password)
	}
	config.Password = "wrong"
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err == nil {
		conn.Close(t.Context())
	}
	if refused := (*pgconn.PgError)(nil); !errors.As(err, &refused) || refused.Code != "28P01" {
		t.Errorf("connect with a wrong password: error %v, want code 28P01", err)
	}
}

// TestB33RemoteEngine reaches the engine at another address, and its containers
// there too.
func TestB33RemoteEngine(t *testing.T) {
	want := testServer(t, shared)
	l, err := net.Listen("tcp4", "127.0.0.2:0")
	if err != nil {
		t.Skip("this machine has one address of its own: ", err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		forward(l, "/var/run/docker.sock")
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	t.Setenv("DOCKER_HOST", "tcp://"+l.Addr().String())
	s := find(t, want)
	ping(t, s.URL)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	if u.Hostname() != "127.0.0.2" {
		t.Errorf("the server is at %s, want the engine's host", u.Hostname())
	}
}

// forward has every connection to l reach the socket, until l is closed and
// they have ended.
func forward(l net.Listener, socket string) {
	done := make(chan struct{})
	n := 0
	for {
		from, err := l.Accept()
		if err != nil {
			break
		}
		n++
		go func() {
			defer func() { done <- struct{}{} }()
			defer from.Close()
			to, err := net.Dial("unix", socket)
			if err != nil {
				return
			}
			go func() {
				io.Copy(to, from)
				to.Close()
			}()
			io.Copy(from, to)
		}()
	}
	for range n {
		<-done
	}
}

// TestFailedStart says what the server said, and is no reason to pass it over.
func TestFailedStart(t *testing.T) {
	t.Parallel()
	s := newStarter(t, testServer(t, broken))
	s.options.Config.Cmd = append(s.options.Config.Cmd, "-c", "no_such=1")
	if _, err := s.lease(t.Context()); err == nil || !strings.Contains(err.Error(), "no_such") {
		t.Errorf("lease of a server with a wrong setting: error %v, want PostgreSQL's words", err)
	}
	waitUntil(t, "the container is gone", func() bool { return !s.isThere(t) })

	s.own = nil
	s.options.Config.Entrypoint = []string{"no-such-program"}
	if _, err := s.lease(t.Context()); err == nil || !strings.Contains(err.Error(), "no-such-program") {
		t.Errorf("lease of a server without a program: error %v, want the engine's words", err)
	}
	waitUntil(t, "the container is gone", func() bool { return !s.isThere(t) })
}

// TestB34Killed kills the only process that uses a container.
func TestB34Killed(t *testing.T) {
	t.Parallel()
	s := newStarter(t, testServer(t, killed))
	p := startProcess(t, newProcess(t, inSeconds(killed)))
	address := p.line(t, "url")
	time.Sleep(2 * killed) // longer than it would stay without the process
	client := ping(t, address)
	c, err := s.Client.InspectContainer(s.options.Name)
	if err != nil {
		t.Fatal(err)
	}
	p.kill()
	time.Sleep(2 * killed) // longer than it would stay without a client
	if err := client.Ping(t.Context()); err != nil {
		t.Errorf("a client that is no test has lost its server: %v", err)
	}
	client.Close(t.Context())
	waitUntil(t, "the container is gone", func() bool { return !s.isThere(t) })
	for _, m := range c.Mounts {
		if m.Name == "" {
			continue // it is no volume
		}
		waitUntil(t, "volume "+m.Name+" is gone", func() bool {
			_, err := s.Client.InspectVolume(m.Name)
			return err != nil
		})
	}
}

// TestB34KilledInQuery ends a connection on which an answer is awaited as the
// end of its process does, which says nothing to the server.
func TestB34KilledInQuery(t *testing.T) {
	t.Parallel()
	s := newStarter(t, testServer(t, kept))
	found, err := s.lease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgconn.Connect(t.Context(), found.URL)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := conn.Hijack()
	if err != nil {
		t.Fatal(err)
	}
	const query = "select pg_sleep(3600)"
	raw.Frontend.SendQuery(&pgproto3.Query{String: query})
	if err := raw.Frontend.Flush(); err != nil {
		t.Fatal(err)
	}
	other := ping(t, found.URL)
	waitUntil(t, "the query runs", func() bool {
		var n int
		err := other.QueryRow(t.Context(), "select count(*) from pg_stat_activity where query = $1", query).Scan(&n)
		return err == nil && n == 1
	})
	other.Close(t.Context())
	found.Lease.Close()
	raw.Conn.Close()
	waitUntil(t, "the container is gone", func() bool { return !s.isThere(t) })
}

// TestB34KilledEarly kills processes at many moments of their server's start;
// the next one goes on.
func TestB34KilledEarly(t *testing.T) {
	t.Parallel()
	s := newStarter(t, testServer(t, killedEarly))
	for delay := 5 * time.Millisecond; delay < 2*time.Second; delay *= 2 {
		p := startProcess(t, newProcess(t, inSeconds(killedEarly)))
		time.Sleep(delay) // not to wait for anything: any moment will do
		p.kill()
	}
	p := startProcess(t, newProcess(t, inSeconds(killedEarly)))
	ping(t, p.line(t, "url")).Close(t.Context())
	p.kill()
	waitUntil(t, "the container is gone", func() bool { return !s.isThere(t) })
}

// TestB34NotStarted leaves containers as processes do that are killed between
// creating and starting them.
//
//nolint:paralleltest // another test would sweep them
func TestB34NotStarted(t *testing.T) {
	other, own := newStarter(t, testServer(t, neverStarted)), newStarter(t, testServer(t, created))
	own.options.Config.Env = append(own.options.Config.Env, passwordEnv+"known")
	for _, s := range []*starter{other, own} {
		if _, err := s.Client.CreateContainer(s.options); err != nil {
			t.Fatal(err)
		}
	}
	if s := find(t, testServer(t, created)); !strings.Contains(s.URL, ":known@") {
		t.Errorf("got the server %s, want that of the container which was there", s.URL)
	}
	if other.isThere(t) {
		t.Error("a container that was never started is still there, want it swept by the next process")
	}
}

// TestB34EndIsAgreed looks at a server that its watcher is about to end: nobody
// gets it any more, and whoever has it keeps it.
func TestB34EndIsAgreed(t *testing.T) {
	t.Parallel()
	s := newStarter(t, testServer(t, agreed))
	found, err := s.lease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	watcher := ping(t, found.URL)
	take := func() (taken bool) {
		if err := watcher.QueryRow(t.Context(), "select pg_try_advisory_lock($1)", lock).Scan(&taken); err != nil {
			t.Fatal(err)
		}
		return taken
	}
	if take() {
		t.Fatal("the watcher got the lock, want it refused while there is a lease")
	}
	found.Lease.Close()
	waitUntil(t, "the watcher gets the lock", take)
	if _, err := s.try(t.Context()); !errors.As(err, new(notYetError)) {
		t.Errorf("try at a server that is about to end: error %v, want another try", err)
	}
	watcher.Close(t.Context()) // as if it had been wrong
	again, err := s.lease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	again.Lease.Close()
}

// TestUserFinds is what a test binary does that has imported the package.
func TestUserFinds(t *testing.T) {
	t.Parallel()
	want := testServer(t, 0)
	s, err := pgserver.Find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := "Docker, " + want.image; os.Getenv("DBTEST_URL") == "" && s.Provider != got {
		t.Errorf("provider = %s, want %s", s.Provider, got)
	}
	ping(t, s.URL)
}

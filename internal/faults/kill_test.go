package faults

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/faults/history"
)

const (
	killWorkers = 16
	killFor     = 12 * time.Second
	killedAfter = 150 * time.Millisecond // at the latest
	killedLives = 3                      // of a file, at most
	toothRounds = 100

	// patient is for what would take a moment on an idle machine.
	patient = time.Minute
)

// childVariable is where a process that gets killed finds what it is to do.
const childVariable = "THOLE_TEST_FAULTS_CHILD"

// orders are what a process is to do.
type orders struct {
	Path, Name string
	Seed       uint64
	Early      bool
}

// child is a program that runs a load until its standard input ends. It writes a
// line about each session, when it was told what became of it.
func child(ctx context.Context, text string) (err error) {
	var do orders
	if err := json.Unmarshal([]byte(text), &do); err != nil {
		return err
	}
	db, err := Open(ctx, do.Path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := Create(ctx, db); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer cancel()
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	load := &Load{DB: db, Name: do.Name, Seed: do.Seed, Early: do.Early, Told: say}
	load.Run(ctx, killWorkers, math.MaxInt)
	return nil
}

// say writes the line by one write, so that it is whole or the last when the
// process is killed.
func say(s history.Session, _ error) {
	s.Began, s.Ended = 0, 0 // another process has another clock
	line, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	_, _ = os.Stdout.Write(append(line, '\n')) // the reader may be gone, and the process soon
}

// process is a running child.
type process struct {
	cmd   *exec.Cmd
	in    io.Closer
	first chan struct{} // closed when a session has committed
	ended chan struct{} // closed when its output has
	told  *record
}

func start(t *testing.T, do orders) *process {
	t.Helper()
	text, err := json.Marshal(do)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{first: make(chan struct{}), ended: make(chan struct{}), told: newRecord()}
	p.cmd = exec.CommandContext(t.Context(), os.Args[0])
	p.cmd.Env = append(os.Environ(), childVariable+"="+string(text))
	p.cmd.Stderr = os.Stderr
	p.in, err = p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start: %v", err)
	}
	go p.listen(out)
	return p
}

// listen notes what a process says. Its last line may be a part of one.
func (p *process) listen(out io.Reader) {
	defer close(p.ended)
	lines := bufio.NewReader(out)
	for committed := 0; ; {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var s history.Session
		if err := json.Unmarshal(line, &s); err != nil {
			panic(err)
		}
		p.told.told(s, nil)
		if s.Outcome != thole.Committed {
			continue
		}
		if committed++; committed == 1 {
			close(p.first)
		}
	}
}

// await waits for the first session to commit.
func (p *process) await(t *testing.T) {
	t.Helper()
	select {
	case <-p.first:
	case <-p.ended:
		t.Fatal("a process has ended before a session committed")
	case <-time.After(patient):
		t.Fatalf("no session has committed in %s", patient)
	}
}

// kill kills a process, as kill -9 does.
func (p *process) kill(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Errorf("kill: %v", err)
	}
	<-p.ended
	_ = p.cmd.Wait() // says that it was killed
}

// stop has a process end by itself.
func (p *process) stop(t *testing.T) {
	t.Helper()
	p.in.Close()
	<-p.ended
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("a process that was not killed: %v", err)
	}
}

// join adds what a process was told, when it has ended.
func (r *record) join(p *process) { r.sessions = append(r.sessions, p.told.sessions...) }

// A process is killed at any moment. The next one, and in the end a plain
// connection, finds every session that was said to be committed, whole, none that
// was said to be rolled back, and no other by halves.
func TestKill(t *testing.T) {
	t.Parallel()
	random, folder := newRandom(t), t.TempDir()
	until := patience(killFor)
	kills, sessions := 0, 0
	for file := 0; time.Now().Before(until) && !t.Failed(); file++ {
		path := filepath.Join(folder, strconv.Itoa(file)+".db")
		told := newRecord()
		for life := range 1 + random.IntN(killedLives) {
			told.join(live(t, random, orders{Path: path, Name: strconv.Itoa(life) + "w", Seed: random.Uint64()}))
			kills++
		}
		wantSound(t, "killed", told.anomalies(t.Context(), path, true))
		wantCertain(t, told)
		sessions += told.count(thole.Committed)
		remove(t, path)
	}
	t.Logf("%d kills, %d sessions committed", kills, sessions)
}

// live is a process from its start to its violent end.
func live(t *testing.T, random *rand.Rand, do orders) *process {
	t.Helper()
	p := start(t, do)
	p.await(t)
	time.Sleep(time.Duration(random.Int64N(int64(killedAfter))))
	p.kill(t)
	return p
}

// Of several processes with one file one is killed. The others go on.
func TestKillOneOfMany(t *testing.T) {
	t.Parallel()
	random, folder := newRandom(t), t.TempDir()
	until := patience(killFor / 2)
	kills, sessions := 0, 0
	for file := 0; time.Now().Before(until) && !t.Failed(); file++ {
		path := filepath.Join(folder, strconv.Itoa(file)+".db")
		told := newRecord()
		for _, p := range killOne(t, random, path) {
			told.join(p)
		}
		kills++
		wantSound(t, "killed", told.anomalies(t.Context(), path, true))
		wantCertain(t, told)
		sessions += told.count(thole.Committed)
		remove(t, path)
	}
	t.Logf("%d kills, %d sessions committed", kills, sessions)
}

// killOne returns when all processes have ended.
func killOne(t *testing.T, random *rand.Rand, path string) []*process {
	t.Helper()
	processes := make([]*process, 2+random.IntN(3))
	for i := range processes {
		processes[i] = start(t, orders{Path: path, Name: strconv.Itoa(i) + "w", Seed: random.Uint64()})
	}
	for _, p := range processes {
		p.await(t)
	}
	time.Sleep(time.Duration(random.Int64N(int64(killedAfter))))
	processes[0].kill(t)
	for _, p := range processes[1:] {
		p.wantMore(t)
	}
	for _, p := range processes[1:] {
		p.stop(t)
	}
	return processes
}

// wantMore waits for another session to commit.
func (p *process) wantMore(t *testing.T) {
	t.Helper()
	before := p.told.count(thole.Committed)
	for since := time.Now(); p.told.count(thole.Committed) == before; time.Sleep(time.Millisecond) {
		if time.Since(since) > patient {
			t.Fatalf("no session has committed in %s since another process was killed", patient)
		}
	}
}

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/testing/dbtest"
)

// This file is about processes: this program, run again as another that has one
// test, or none.

// asChild is the environment variable that says what a process is to be: "idle" one
// without a test, a number one with a test whose schema has so many statements.
const asChild = "THOLE_BENCH_CHILD"

// child does what the process is to do, and reports whether that is all.
func child() bool {
	switch what := os.Getenv(asChild); what {
	case "":
		return false
	case "idle":
		fmt.Println(runtime.NumGoroutine(), len(childrenOf(os.Getpid())))
	default:
		statements, err := strconv.Atoi(what)
		if err == nil {
			err = firstTest(context.Background(), statements)
		}
		if err != nil {
			log.Fatal(err)
		}
	}
	return true
}

// firstTest is the one test of a process.
func firstTest(ctx context.Context, statements int) error {
	c := dbtest.Config{
		Engines:    []thole.Engine{thole.Postgres},
		Migrations: migrationsOf(testSchema(thole.Postgres, statements)),
	}
	return runTest(ctx, func(tb testing.TB) {
		check(tb, insertItem(tb.Context(), c.Sandbox(tb), insertItemPostgres))
	})
}

// childrenOf are the processes that a process has started, as far as the system
// tells.
func childrenOf(parent int) []int {
	var children []int
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		if p, err := readProcess(pid); err == nil && p.parent == parent {
			children = append(children, pid)
		}
	}
	return children
}

// runChild runs a child to its end, and returns what it prints. Its home has
// the kept cluster, or none; environ is added to its environment.
func runChild(ctx context.Context, what string, environ ...string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, self)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "DBTEST_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, asChild+"="+what)
	cmd.Env = append(cmd.Env, environ...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("run a process: %w: %s", err, bytes.TrimSpace(said.Bytes()))
	}
	return string(out), nil
}

var firstPeers = []testPeer{
	{"kept", "dbtest.Sandbox, with the cluster that an earlier process has initialised", openKeptTests},
	{"initdb", "the same without, as on a new machine", openInitTests},
	{"idle", "a process that links dbtest and never calls it", openIdleTests},
}

// home has a process keep clusters in a folder.
func home(dir string) []string { return []string{"HOME=" + dir, "XDG_CACHE_HOME=" + dir} }

func openKeptTests(ctx context.Context, g grounds) (*suite, error) {
	dir, err := os.MkdirTemp("", "thole-bench-")
	if err != nil {
		return nil, err
	}
	s := &suite{close: func() error { return os.RemoveAll(dir) }, test: func(tb testing.TB) {
		_, err := runChild(tb.Context(), strconv.Itoa(g.statements), home(dir)...)
		check(tb, err)
	}}
	if err := runTest(ctx, s.test); err != nil { // it keeps the cluster
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func openInitTests(_ context.Context, g grounds) (*suite, error) {
	return &suite{test: func(tb testing.TB) {
		_, err := runChild(tb.Context(), strconv.Itoa(g.statements), home(tb.TempDir())...)
		check(tb, err)
	}}, nil
}

func openIdleTests(context.Context, grounds) (*suite, error) {
	return &suite{test: func(tb testing.TB) {
		_, err := runChild(tb.Context(), "idle")
		check(tb, err)
	}}, nil
}

// idleness is what a process has started that links dbtest and never calls it.
type idleness struct{ goroutines, processes, connections int }

// watchIdle runs such a process with DBTEST_URL, and one without.
func watchIdle(ctx context.Context) (idle idleness, err error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return idle, err
	}
	var accepted atomic.Int64
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // it is closed
			}
			accepted.Add(1)
			_ = conn.Close()
		}
	}()
	defer func() { err = errors.Join(err, listener.Close()) }()
	for _, environ := range [][]string{nil, {"DBTEST_URL=postgres://" + listener.Addr().String() + "/test"}} {
		said, err := runChild(ctx, "idle", environ...)
		if err != nil {
			return idle, err
		}
		var goroutines, processes int
		if _, err := fmt.Sscan(said, &goroutines, &processes); err != nil {
			return idle, fmt.Errorf("read %q: %w", said, err)
		}
		idle.goroutines += goroutines - 1 // that of main
		idle.processes += processes
	}
	idle.connections = int(accepted.Load())
	return idle, nil
}

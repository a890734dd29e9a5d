package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"
)

// oneTest is a test outside "go test". What it doesn't implement of testing.TB
// must not be called.
type oneTest struct {
	testing.TB
	ctx context.Context

	mu       sync.Mutex
	failures []error
	cleanups []func()
}

// runTest runs a test as the testing package does: in a goroutine of its own, with
// a ctx that ends before its cleanups. It returns what the test has failed for.
func runTest(ctx context.Context, test func(tb testing.TB)) error {
	ctx, cancel := context.WithCancel(ctx)
	t := &oneTest{ctx: ctx}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer t.cleanUp()
		defer cancel()
		test(t)
	}()
	<-ended
	return errors.Join(t.failures...)
}

// cleanUp runs the cleanups, the last first, also when one of them fails.
func (t *oneTest) cleanUp() {
	if len(t.cleanups) == 0 {
		return
	}
	defer t.cleanUp()
	last := len(t.cleanups) - 1
	f := t.cleanups[last]
	t.cleanups = t.cleanups[:last]
	f()
}

func (t *oneTest) Helper()                  {}
func (t *oneTest) Name() string             { return "TestForge" }
func (t *oneTest) Context() context.Context { return t.ctx }
func (t *oneTest) Cleanup(f func())         { t.cleanups = append(t.cleanups, f) }
func (t *oneTest) Log(...any)               {}
func (t *oneTest) Logf(string, ...any)      {}

func (t *oneTest) TempDir() string {
	dir, err := os.MkdirTemp("", "thole-bench-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func (t *oneTest) Failed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.failures) > 0
}

func (t *oneTest) Error(args ...any) { t.Errorf("%s", fmt.Sprint(args...)) }

func (t *oneTest) Errorf(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failures = append(t.failures, fmt.Errorf(format, args...))
}

func (t *oneTest) Fatal(args ...any) {
	t.Error(args...)
	runtime.Goexit()
}

func (t *oneTest) Fatalf(format string, args ...any) {
	t.Errorf(format, args...)
	runtime.Goexit()
}

// Skip fails: what is measured has to run.
func (t *oneTest) Skip(args ...any) { t.Fatal(args...) }

// check ends the test that has met an error.
func check(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

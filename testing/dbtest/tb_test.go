package dbtest_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// recorderTB is a test within a test, which may fail. Use [record] to run one.
type recorderTB struct {
	testing.TB
	name string
	ctx  context.Context

	mu       sync.Mutex
	failed   bool
	skipped  bool
	said     []string // by Error, Fatal, Log and Skip
	cleanups []func()
}

// record runs test as a test of its own would be, with its cleanups, and returns
// what became of it.
func record(tb testing.TB, test func(tb testing.TB)) *recorderTB {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	r := &recorderTB{TB: tb, name: tb.Name(), ctx: ctx}
	run := func(f func()) {
		done := make(chan struct{})
		go func() { // Fatal ends it
			defer close(done)
			f()
		}()
		<-done
	}
	run(func() { test(r) })
	cancel() // as testing does before the cleanups
	for {
		r.mu.Lock()
		last := len(r.cleanups) - 1
		if last < 0 {
			r.mu.Unlock()
			return r
		}
		f := r.cleanups[last]
		r.cleanups = r.cleanups[:last]
		r.mu.Unlock()
		run(f)
	}
}

// output is all that the test has said.
func (r *recorderTB) output() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.said, "\n")
}

func (r *recorderTB) say(failed bool, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = r.failed || failed
	r.said = append(r.said, text)
}

func (r *recorderTB) Helper()                  {}
func (r *recorderTB) Name() string             { return r.name }
func (r *recorderTB) Context() context.Context { return r.ctx }

func (r *recorderTB) Cleanup(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cleanups = append(r.cleanups, f)
}

func (r *recorderTB) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

func (r *recorderTB) Skipped() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.skipped
}

func (r *recorderTB) Log(args ...any)                   { r.say(false, fmt.Sprint(args...)) }
func (r *recorderTB) Logf(format string, args ...any)   { r.say(false, fmt.Sprintf(format, args...)) }
func (r *recorderTB) Fail()                             { r.say(true, "Fail") }
func (r *recorderTB) FailNow()                          { r.Fail(); runtime.Goexit() }
func (r *recorderTB) Error(args ...any)                 { r.say(true, fmt.Sprint(args...)) }
func (r *recorderTB) Errorf(format string, args ...any) { r.say(true, fmt.Sprintf(format, args...)) }
func (r *recorderTB) Fatal(args ...any)                 { r.Error(args...); runtime.Goexit() }

func (r *recorderTB) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

func (r *recorderTB) Skip(args ...any) {
	r.say(false, fmt.Sprint(args...))
	r.mu.Lock()
	r.skipped = true
	r.mu.Unlock()
	runtime.Goexit()
}

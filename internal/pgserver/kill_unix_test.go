//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package pgserver

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"
)

// A server that is killed and started again, twice, has what it acknowledged, and
// ends as others do.
func TestKillAndRestart(t *testing.T) {
	t.Parallel()
	find1(t) // or there is nothing to start
	s, err := Start(t.Context(), "synchronous_commit=on")
	if missing := (*NotFoundError)(nil); errors.As(err, &missing) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	dir := directory(t, s.URL)
	if _, err := connect(t, s.URL).Exec(t.Context(), "create table t (id int)"); err != nil {
		t.Fatal(err)
	}
	for want := 1; want < 3; want++ {
		conn := connect(t, s.URL)
		if _, err := conn.Exec(t.Context(), "insert into t values (1)"); err != nil {
			t.Fatal(err)
		}
		if err := s.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := conn.Ping(t.Context()); err == nil {
			t.Error("a killed server answers")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.Restart(ctx); err != nil {
			t.Fatal(err)
		}
		var got int
		if err := connect(t, s.URL).QueryRow(t.Context(), "select count(*) from t").Scan(&got); err != nil || got != want {
			t.Errorf("got %d rows, error %v, want %d", got, err, want)
		}
	}
	s.lifeline.Close()
	waitUntil(t, "the directory is gone", func() bool { return !exists(dir) })
	runtime.KeepAlive(s)
}

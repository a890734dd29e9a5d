package sqlite

import (
	"testing"
	"time"
)

// The writer makes room for a while after another process has written, and not because it has written itself.
func TestRoomForOtherProcesses(t *testing.T) {
	t.Parallel()
	e, _ := shop(t)
	other := open(t, e.cfg)
	expected := func() (paused, inFuture bool) {
		t.Helper()
		before := time.Now()
		e.writer.others.looked = time.Time{}
		run(t, e, "INSERT INTO t DEFAULT VALUES")
		return e.writer.others.looked.Sub(before) >= othersPause, e.writer.others.until.After(before)
	}
	for range 3 {
		if _, inFuture := expected(); inFuture {
			t.Error("other processes are expected to write, got none that has")
		}
	}
	run(t, other, "INSERT INTO t DEFAULT VALUES")
	for range 2 {
		if paused, inFuture := expected(); !paused || !inFuture {
			t.Errorf("after another process has written: got %t, %t, want a pause, and that it is expected again", paused, inFuture)
		}
	}
	e.writer.others.until = time.Time{}
	if _, inFuture := expected(); inFuture {
		t.Error("other processes are expected for ever")
	}
}

package sqlite

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tholedb/thole/internal/engine"
)

// The log of a database that somebody reads for long grows, which is told with who it is, and is small again when he
// has ended.
func TestLogGrowsUnderAReader(t *testing.T) {
	t.Parallel()
	e, log := openLogged(t, file(t))
	run(t, e, "CREATE TABLE t (a)")
	e.writer.wal.limit = 100_000
	grow := func() {
		e.writer.wal.looked = time.Time{}
		run(t, e, "INSERT INTO t VALUES (zeroblob(150000))")
	}
	size := func() int64 {
		t.Helper()
		file, err := os.Stat(e.cfg.Path + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		return file.Size()
	}

	grow()
	if got := size(); got != 0 {
		t.Errorf("log that nobody reads: got %d bytes, want 0", got)
	}
	reader := begin(t, e, engine.Options{ReadOnly: true, Info: &engine.Info{Label: "report", Caller: engine.Here(), Began: time.Now().Add(-time.Minute)}})
	same(t, "rows", value(t, reader, "SELECT count(*) FROM t"), int64(1))
	for _, began := range []time.Time{time.Now(), time.Now().Add(time.Hour)} {
		other := begin(t, e, engine.Options{ReadOnly: true, Info: &engine.Info{Label: "younger", Began: began}})
		defer rollback(t, other)
	}
	for range 3 {
		grow()
	}
	if got := size(); got < 400_000 {
		t.Errorf("log that somebody reads: got %d bytes, want all that was written", got)
	}
	if got := strings.Count(log.String(), "the write-ahead log grows"); got != 1 {
		t.Errorf("warnings: got %d, want 1 a minute", got)
	}
	if !strings.Contains(log.String(), `session \"report\" opened at`) {
		t.Errorf("log: got %s, want the reader's name", log)
	}
	same(t, "rows", value(t, reader, "SELECT count(*) FROM t"), int64(1))
	rollback(t, reader)
	grow()
	if got := size(); got != 0 {
		t.Errorf("log that nobody reads any more: got %d bytes, want 0", got)
	}
}

// Readers that leave no gap are waited for, so that the log can begin anew.
func TestLogBeginsAnewBetweenReaders(t *testing.T) {
	t.Parallel()
	e := open(t, file(t))
	run(t, e, "CREATE TABLE t (a)")
	e.writer.wal.limit = 100_000
	ctx, stop := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	const overlapping = 3
	for i := range overlapping {
		readers.Go(func() {
			time.Sleep(time.Duration(i) * 10 * time.Millisecond)
			for ctx.Err() == nil {
				s, err := e.Begin(t.Context(), engine.Options{ReadOnly: true, Info: &engine.Info{Began: time.Now()}})
				if err == nil {
					_, err = readAll(t.Context(), s, "SELECT count(*) FROM t")
				}
				time.Sleep(30 * time.Millisecond)
				if got := end(t.Context(), s, err); got.err != nil {
					t.Error(got.err)
				}
			}
		})
	}
	time.Sleep(100 * time.Millisecond) // so that they overlap
	for range 20 {
		e.writer.wal.looked = time.Now()
		run(t, e, "INSERT INTO t VALUES (zeroblob(150000))")
	}
	e.writer.wal.looked = time.Time{}
	run(t, e, "INSERT INTO t VALUES (zeroblob(150000))")
	got, err := os.Stat(e.cfg.Path + "-wal")
	stop()
	readers.Wait()
	if err != nil || got.Size() != 0 {
		t.Errorf("log: got %d bytes, %v, want 0", got.Size(), err)
	}
}

// A reader of another process has no name.
func TestLogGrowsUnderAnotherProcess(t *testing.T) {
	t.Parallel()
	e, log := openLogged(t, file(t))
	run(t, e, "CREATE TABLE t (a)")
	reader := begin(t, open(t, e.cfg), engine.Options{ReadOnly: true})
	defer rollback(t, reader)
	same(t, "rows", value(t, reader, "SELECT count(*) FROM t"), int64(0))
	e.writer.wal.limit, e.writer.wal.looked = 100_000, time.Time{}
	run(t, e, "INSERT INTO t VALUES (zeroblob(150000))")
	if !strings.Contains(log.String(), "another process") {
		t.Errorf("log: got %s, want that another process reads", log)
	}
}

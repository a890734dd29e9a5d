package sqlite

import (
	"os"
	"strings"
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
	reader := begin(t, e, engine.Options{ReadOnly: true, Info: &engine.Info{Label: "report", Caller: engine.Here(), Began: time.Now()}})
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

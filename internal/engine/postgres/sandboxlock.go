package postgres

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tholedb/thole/internal/engine"
)

// lockWait looks, while a statement of a sandbox waits for a lock, who has it: when
// the wait has failed nobody knows any more.
type lockWait struct {
	box   *Sandbox
	pid   uint32
	timer *time.Timer

	mu      sync.Mutex
	holders string // the names of their sandboxes
}

// SandboxLockTimeout is how long a statement in a sandbox waits for a lock that
// another test has, where its session doesn't say.
const SandboxLockTimeout = 5 * time.Second

// await begins to look after half of the time that a statement may wait.
func (s *boxed) await() *lockWait {
	w := &lockWait{box: s.box}
	if s.conn != nil {
		w.pid = s.conn.wire.PID()
	}
	w.timer = time.AfterFunc(cmp.Or(s.opts.LockTimeout, SandboxLockTimeout)/2, w.look)
	return w
}

// look asks the server, on another connection, if there is one.
//
// https://www.postgresql.org/docs/current/functions-info.html (pg_blocking_pids)
func (w *lockWait) look() {
	const query = `select coalesce(string_agg(distinct application_name, ', '), '') from pg_catalog.pg_stat_activity
		where pid = any (pg_catalog.pg_blocking_pids($1))`
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c, err := w.box.connect(ctx)
	if err != nil {
		return
	}
	defer c.giveBack()
	holders := ""
	if err := c.pgx.QueryRow(ctx, query, pgx.QueryExecModeExec, int32(w.pid)).Scan(&holders); err != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.holders = holders
}

// lockNotAvailable is what a wait for a lock ends with.
const lockNotAvailable = "55P03"

// explain adds to the error of a statement that has waited for a lock in vain who
// had it.
func (w *lockWait) explain(failed *engine.Error) *engine.Error {
	if w == nil || failed.Code != lockNotAvailable {
		return failed
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.holders != "" {
		failed.Message += fmt.Sprintf("; the test %s has it until it ends: give each test values of its own, or use dbtest.Database", w.holders)
	}
	return failed
}

package dbtest

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tholedb/thole/internal/probe"
)

// This file is about tests that hang: what they wait for is written before their
// deadline, at which the test binary is ended and prints stacks alone.

// watchDeadline has what hangs be written before the deadline of the test, where it
// has one. That costs a timer.
func (r *rig) watchDeadline() {
	deadline, ok := deadlineOf(r.tb)
	if !ok {
		return
	}
	left := time.Until(deadline)
	timer := time.AfterFunc(left-min(left/10, 5*time.Second), r.tellHang)
	r.tb.Cleanup(func() { timer.Stop() })
}

// deadlineOf is when a test must have ended, if that is known. In a bubble of
// testing/synctest, whose clock is another one, t.Deadline panics.
func deadlineOf(tb testing.TB) (deadline time.Time, ok bool) {
	tb.Helper()
	defer func() { _ = recover() }()
	if t, is := tb.(interface{ Deadline() (time.Time, bool) }); is {
		deadline, ok = t.Deadline()
	}
	return deadline, ok
}

// tellHang writes what is open, if anything is. It writes to standard error because
// what tests log is lost when the binary is ended.
func (r *rig) tellHang() {
	open := r.probe.Open()
	if len(open) == 0 {
		return
	}
	text := fmt.Sprintf("dbtest: %s is about to run out of time:\n%s", r.tb.Name(), hanging(open))
	if server := r.askServer(); server != "" {
		text += "\non the server:\n" + server
	}
	fmt.Fprintln(os.Stderr, text)
}

// hanging lists what is open, each with its last statement.
func hanging(open []probe.Open) string {
	var w writer
	for _, o := range open {
		turn := ""
		if o.Turn {
			turn = ", and has the turn"
		}
		w.line(0, "%s%s", o.Info, turn)
		switch {
		case o.Last == nil:
			w.line(1, "it has run no statement")
		case o.Last.Ended:
			w.line(1, "its last statement: %s", statementLine(o.Last))
		default:
			w.line(1, "it runs, since %s: %s", round(time.Since(o.Last.Began)), statementLine(o.Last))
		}
	}
	return strings.TrimSuffix(w.String(), "\n")
}

// askServer is what PostgreSQL says of the connections of this test, and of those
// that they wait for; "" on SQLite. It asks on a connection of its own.
func (r *rig) askServer() string {
	on, ok := r.probe.Engine.(interface{ Pool() *pgxpool.Pool })
	if !ok {
		return ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, on.Pool().Config().ConnConfig)
	if err != nil {
		return "\tno connection to ask on"
	}
	defer func() { _ = conn.Close(ctx) }()
	if r.kind == sandboxKind { // its connections are called after the test, as this one is from now on
		if _, err := conn.Exec(ctx, "select pg_catalog.set_config('application_name', $1, false)", r.tb.Name()); err != nil {
			return "\t" + err.Error()
		}
	}
	lines, err := activity(ctx, conn, r.kind == sandboxKind)
	if err != nil {
		return "\t" + err.Error()
	}
	return strings.Join(lines, "\n")
}

// activity has a line for each connection to the database, of the test or that one
// of the test's waits for.
//
// https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-ACTIVITY-VIEW
func activity(ctx context.Context, conn *pgx.Conn, named bool) ([]string, error) {
	const query = `
		with own as (
			select pid from pg_catalog.pg_stat_activity
			where datname = pg_catalog.current_database() and pid <> pg_catalog.pg_backend_pid()
				and (not $1 or application_name = pg_catalog.current_setting('application_name'))
		), involved as (
			select pid from own union select pg_catalog.unnest(pg_catalog.pg_blocking_pids(pid)) from own
		)
		select pg_catalog.format(E'\t%s, process %s, %s for %s%s%s: %s',
			a.application_name, a.pid, a.state, pg_catalog.date_trunc('milliseconds', pg_catalog.clock_timestamp() - a.state_change),
			(select pg_catalog.string_agg(pg_catalog.format(', waits for %s on %s', l.mode,
				coalesce(l.relation::pg_catalog.regclass::text, l.locktype)), '')
				from pg_catalog.pg_locks l where l.pid = a.pid and not l.granted),
			', blocked by ' || nullif(pg_catalog.array_to_string(pg_catalog.pg_blocking_pids(a.pid), ', '), ''),
			pg_catalog.left(a.query, 200))
		from pg_catalog.pg_stat_activity a join involved using (pid) order by a.pid`
	rows, err := conn.Query(ctx, query, named)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

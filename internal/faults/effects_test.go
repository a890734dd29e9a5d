package faults

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tholedb/thole"
)

// effects is a table of what sessions and statements on PostgreSQL did: rows with
// a marker of whoever made them, and how often they were changed. No two are kept
// from having the same marker.
type effects struct {
	t    *testing.T
	mu   sync.Mutex
	conn *pgx.Conn // not over the link
}

const makeEffects = `
	create table effects (marker text not null, changes int not null default 0, filler text not null default repeat('x', 200));
	create index on effects (marker)`

func newEffects(t *testing.T, url string) *effects {
	t.Helper()
	e := &effects{t: t}
	e.reconnect(url)
	if _, err := e.conn.Exec(t.Context(), makeEffects); err != nil {
		t.Fatal(err)
	}
	return e
}

// reconnect is for a server that has been away.
func (e *effects) reconnect(url string) {
	e.t.Helper()
	conn, err := pgx.Connect(e.t.Context(), url)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	e.conn = conn
}

// ask returns the one row of a query.
func (e *effects) ask(query string, args []any, into ...any) {
	e.t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.conn.QueryRow(e.t.Context(), query, args...).Scan(into...); err != nil {
		e.t.Fatalf("%s: %v", query, err)
	}
}

// connections is how many others the server has for the database.
func (e *effects) connections() (n int) {
	e.t.Helper()
	e.ask("select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()", nil, &n)
	return n
}

// awaitNobody waits until the server has no other connection to the database, and
// so nothing to do for one that was broken off.
func (e *effects) awaitNobody() {
	e.t.Helper()
	for since := time.Now(); e.connections() > 0; time.Sleep(200 * time.Microsecond) {
		if time.Since(since) > patient {
			e.t.Fatalf("the server has connections still after %s", patient)
		}
	}
}

// of is what is there of a marker.
func (e *effects) of(marker string) (rows, changes int) {
	e.t.Helper()
	e.ask("select count(*), coalesce(sum(changes), 0) from effects where marker = $1", []any{marker}, &rows, &changes)
	return rows, changes
}

// lie is what is untrue of an outcome, or "". A whole effect is so many rows, one
// or none, with so many changes.
func lie(outcome thole.Outcome, rows, changes int, whole [2]int) string {
	switch {
	case rows > whole[0]:
		return fmt.Sprintf("doubled, %d rows", rows)
	case rows > 0 && changes != whole[1]:
		return fmt.Sprintf("half or doubled, %d changes", changes)
	case outcome == thole.Committed && rows < whole[0]:
		return "lost"
	case outcome == thole.RolledBack && rows > 0:
		return "false failure"
	default:
		return ""
	}
}

package conformance

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"sync"
	"testing"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/link"
)

// observer sees the transaction control that reaches the database: "begin",
// "savepoint thole_1". PostgreSQL is watched on the wire, and SQLite by what it
// traces.
type observer struct {
	link *link.Link // nil on SQLite
	mark int

	mu     sync.Mutex
	conns  []sqlite.ExecQuerierContext // SQLite's
	seen   []string
	writer sqlite.ExecQuerierContext // has made a savepoint
}

// observe reopens the database with an observer.
func (w *world) observe(t *testing.T, change ...func(*thole.Config)) (*world, *observer) {
	t.Helper()
	o := new(observer)
	if w.Engine() == thole.Postgres {
		on, l := w.link(t, change...)
		o.link = l
		o.control()
		return on, o
	}
	on := w.reopen(t, append(change, o.register)...)
	o.control()
	return on, o
}

func (o *observer) register(cfg *thole.Config) {
	cfg.SQLite.Driver = func(d *sqlite.Driver) error {
		d.RegisterConnectionHook(func(conn sqlite.ExecQuerierContext, _ string) error {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.conns = append(o.conns, conn)
			return trace(conn, func(text string) { o.run(conn, text) })
		})
		return nil
	}
}

// run is told each statement that SQLite runs.
func (o *observer) run(conn sqlite.ExecQuerierContext, text string) {
	text = strings.ToLower(text)
	control := controlText.FindString(text)
	if control == "" || !strings.HasPrefix(text, control) {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seen = append(o.seen, control)
	if strings.HasPrefix(control, "savepoint") {
		o.writer = conn
	}
}

// refuse makes SQLite fail with ROLLBACK TO a savepoint. It asks when it prepares the statement, which it does anew
// when it has somebody else to ask.
func (o *observer) refuse(t *testing.T, savepoint string) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	judge := func(action sqlite.AuthorizerActionCode, verb, name, _, _ string) sqlite.AuthorizerReturnCode {
		if action == sqlite.AuthSavepoint && verb == "ROLLBACK" && name == savepoint {
			return sqlite.AuthorizerDeny
		}
		return sqlite.AuthorizerOK
	}
	for _, conn := range o.conns {
		if err := conn.(sqlite.AuthorizerRegisterer).RegisterAuthorizer(judge); err != nil {
			t.Error(err)
		}
	}
}

// controlText finds it in the texts of statements.
var controlText = regexp.MustCompile(`\b(?:(?:savepoint|release|rollback to) \w+|begin|commit|rollback)\b`)

// control is what was seen since the last call.
func (o *observer) control() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.link != nil {
		texts := strings.Join(o.link.Executed(o.mark), "\n")
		o.mark = o.link.Mark()
		return controlText.FindAllString(texts, -1)
	}
	seen := o.seen
	o.seen = nil
	return seen
}

// live is how many subtransactions PostgreSQL has, or savepoints that are called
// as the first one SQLite.
//
// https://www.postgresql.org/docs/current/view-pg-backend-memory-contexts.html
func (o *observer) live(t *testing.T, tx *thole.Tx) int {
	t.Helper()
	var n int
	if o.link != nil {
		err := tx.GetContext(tx.Context(), &n, "select count(*) from pg_backend_memory_contexts where name = 'CurTransactionContext'")
		if err != nil {
			t.Error(err)
		}
		return n
	}
	o.mu.Lock()
	writer := o.writer
	o.mu.Unlock()
	for ; writer != nil; n++ {
		_, err := writer.ExecContext(context.WithoutCancel(t.Context()), "release thole_1", nil)
		var none *sqlite.Error
		if errors.As(err, &none) && none.Code() == sqlite3.SQLITE_ERROR {
			break
		}
		if err != nil {
			t.Error(err)
			break
		}
	}
	return n
}

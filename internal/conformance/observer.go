package conformance

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/link"
)

// observer sees the transaction control that reaches the database: "begin",
// "savepoint thole_1". PostgreSQL is watched on the wire, and SQLite by its
// authorizer.
type observer struct {
	link *link.Link // nil on SQLite
	mark int

	mu      sync.Mutex
	seen    []string
	refused string                    // what SQLite will not do
	writer  sqlite.ExecQuerierContext // has made a savepoint
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
			return conn.(sqlite.AuthorizerRegisterer).RegisterAuthorizer(
				func(action sqlite.AuthorizerActionCode, verb, name, _, _ string) sqlite.AuthorizerReturnCode {
					return o.judge(conn, action, verb, name)
				})
		})
		return nil
	}
}

func (o *observer) judge(conn sqlite.ExecQuerierContext, action sqlite.AuthorizerActionCode, verb, name string) sqlite.AuthorizerReturnCode {
	o.mu.Lock()
	defer o.mu.Unlock()
	var text string
	switch action {
	case sqlite.AuthTransaction:
		text = strings.ToLower(verb)
	case sqlite.AuthSavepoint:
		verb = map[string]string{"BEGIN": "savepoint", "RELEASE": "release", "ROLLBACK": "rollback to"}[verb]
		text = verb + " " + name
		o.writer = conn
	default:
		return sqlite.AuthorizerOK
	}
	o.seen = append(o.seen, text)
	if text == o.refused {
		return sqlite.AuthorizerDeny
	}
	return sqlite.AuthorizerOK
}

// refuse makes SQLite fail with what the text is.
func (o *observer) refuse(text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.refused = text
}

// controlText finds it among what went to and fro. In capitals BEGIN, COMMIT and
// ROLLBACK are the server's tags.
var controlText = regexp.MustCompile(`\b(?:(?i:savepoint|release|rollback to) \w+|begin|commit|rollback)\b`)

// control is what was seen since the last call.
func (o *observer) control() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.link != nil {
		sent := o.link.Since(o.mark)
		o.mark = o.link.Mark()
		return controlText.FindAllString(sent, -1)
	}
	seen := slices.Compact(o.seen) // SQLite compiles some of it twice
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

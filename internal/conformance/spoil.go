package conformance

import (
	"sync/atomic"
	"testing"

	"modernc.org/sqlite"

	"github.com/tholedb/thole"
)

// spoiled reopens the database with one connection on which, once spoil was
// called, the next ROLLBACK fails: PostgreSQL's is cut, SQLite is not allowed.
func (w *world) spoiled(t *testing.T) (on *world, spoil func()) {
	t.Helper()
	if w.Engine() == thole.Postgres {
		on, l := w.link(t, single)
		return on, l.Cut
	}
	var refused atomic.Bool
	judge := func(action sqlite.AuthorizerActionCode, what, _, _, _ string) sqlite.AuthorizerReturnCode {
		if action == sqlite.AuthTransaction && what == "ROLLBACK" && !refused.Swap(true) {
			return sqlite.AuthorizerDeny
		}
		return sqlite.AuthorizerOK
	}
	var conns []sqlite.AuthorizerRegisterer
	on = w.reopen(t, func(cfg *thole.Config) {
		cfg.SQLite.Driver = func(d *sqlite.Driver) error {
			d.RegisterConnectionHook(func(conn sqlite.ExecQuerierContext, _ string) error {
				conns = append(conns, conn.(sqlite.AuthorizerRegisterer))
				return nil
			})
			return nil
		}
	})
	return on, func() {
		for _, conn := range conns {
			if err := conn.RegisterAuthorizer(judge); err != nil {
				t.Error(err)
			}
		}
	}
}

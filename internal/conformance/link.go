package conformance

import (
	"testing"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/link"
)

// link reopens a PostgreSQL database over a link.
func (w *world) link(t *testing.T, change ...func(*thole.Config)) (*world, *link.Link) {
	t.Helper()
	l := new(link.Link)
	on := w.reopen(t, append(change, standing(l))...)
	t.Cleanup(l.Cut) // closing the pool would wait for a frozen server
	return on, l
}

// standing puts the link between, where there is something to stand between.
func standing(l *link.Link) func(*thole.Config) {
	return func(cfg *thole.Config) {
		if cfg.Postgres != nil {
			l.Stand(cfg.Postgres)
		}
	}
}

package main

import (
	"sync/atomic"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/link"
)

// lossyLink stands between a pool of PostgreSQL connections and the network. Of
// one COMMIT in so many as loses says it loses the answer, with the connection:
// it took effect, and the service can't know.
type lossyLink struct {
	link.Link
	loses         int64
	commits, lost atomic.Int64
}

// stand puts the link between, where there is a network.
func (l *lossyLink) stand(cfg *thole.Config) {
	if cfg.Postgres == nil {
		return
	}
	l.Stand(cfg.Postgres)
	l.Judge(func(m link.Message) link.Fate {
		if m.Sent || m.String() != "C COMMIT" || l.commits.Add(1)%l.loses > 0 {
			return link.Fate{}
		}
		l.lost.Add(1)
		return link.Fate{Ends: link.Before}
	})
}

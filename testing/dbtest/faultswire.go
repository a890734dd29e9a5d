package dbtest

import (
	"context"
	"net"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/probe"
)

// breakable has the connections to PostgreSQL be such that faults can break.
func breakable(cfg *thole.Config) {
	dial := cfg.Postgres.ConnConfig.DialFunc
	cfg.Postgres.ConnConfig.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return probe.Wire(conn), nil
	}
}

package postgres

import (
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tholedb/thole/internal/engine"
)

// unreplicated is the key in a connection's data that says that the server has
// committed and given up waiting for its standbys.
const unreplicated = "thole: committed without its standbys"

// watchNotices has connections note that a COMMIT did not wait for synchronous
// replication, as the server was told to stop waiting: it answers COMMIT all the
// same, with a warning. The warning is known by the routine that it comes from,
// because its SQLSTATE is that of any other.
//
// https://www.postgresql.org/docs/current/warm-standby.html#SYNCHRONOUS-REPLICATION
func watchNotices(cfg *pgxpool.Config) {
	next := cfg.ConnConfig.OnNotice
	cfg.ConnConfig.OnNotice = func(conn *pgconn.PgConn, notice *pgconn.Notice) {
		if notice.Routine == "SyncRepWaitForLSN" {
			conn.CustomData()[unreplicated] = true
		}
		if next != nil {
			next(conn, notice)
		}
	}
}

// missedStandbys reports whether the server has committed since the last call
// without waiting for its standbys.
func (c *conn) missedStandbys() bool {
	data := c.wire.CustomData()
	missed := data[unreplicated] != nil
	delete(data, unreplicated)
	return missed
}

func errUnreplicated() *engine.Error {
	return unknownBy(&engine.Error{Message: "committed on the primary, which stopped waiting for synchronous replication"})
}

package postgres

import "github.com/tholedb/thole/internal/engine"

// Keys implements [engine.Engine]. Who deletes at the same time leaves each
// other's rows alone.
func (e *Engine) Keys() engine.Keys {
	return engine.Keys{
		Missing: "SELECT to_regclass('thole_idempotency_keys') IS NULL",
		Expired: `DELETE FROM thole_idempotency_keys WHERE key IN (
			SELECT key FROM thole_idempotency_keys WHERE at < now() - interval '7 days'
			ORDER BY at LIMIT 10000 FOR UPDATE SKIP LOCKED)`,
	}
}

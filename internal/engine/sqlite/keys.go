package sqlite

import "github.com/tholedb/thole/internal/engine"

// Keys implements [engine.Engine].
func (e *Engine) Keys() engine.Keys {
	return engine.Keys{
		Missing: "SELECT NOT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'thole_idempotency_keys')",
		Expired: `DELETE FROM thole_idempotency_keys WHERE key IN (
			SELECT key FROM thole_idempotency_keys WHERE at < datetime('now', '-7 days') ORDER BY at LIMIT 10000)`,
	}
}

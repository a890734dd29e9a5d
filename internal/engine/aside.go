package engine

import "context"

// aside is the key in a ctx of the sessions that are thole's own.
type aside struct{}

// Aside is ctx for a session that no caller has opened, as those about idempotency
// keys. dbtest leaves them alone.
func Aside(ctx context.Context) context.Context { return context.WithValue(ctx, aside{}, true) }

// IsAside reports whether ctx is for such a session.
func IsAside(ctx context.Context) bool { return ctx.Value(aside{}) != nil }

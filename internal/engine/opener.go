package engine

import "context"

// opener is the key of an [Opener] in a ctx.
type opener struct{}

// Opener opens the engine that a DB stands on.
type Opener func(ctx context.Context, env Env) (Engine, error)

// WithOpener is ctx for thole.OpenConfig: the DB that it opens stands on what
// open returns, whatever the Config says of the database. It is how dbtest puts
// itself between a DB and its engine.
func WithOpener(ctx context.Context, open Opener) context.Context {
	return context.WithValue(ctx, opener{}, open)
}

// OpenerOf is the Opener that ctx carries, or nil.
func OpenerOf(ctx context.Context) Opener {
	open, _ := ctx.Value(opener{}).(Opener)
	return open
}

// HookWatcher is a [Session] that is told of each function that runs because the
// session has committed, before it runs.
type HookWatcher interface {
	HookRuns(f func(ctx context.Context))
}

// Ender is an [Engine] that knows why there is no use of it any more, for the
// messages of a DB that is closed.
type Ender interface{ WhyEnded() string }

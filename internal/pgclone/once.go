package pgclone

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// once runs a function once for each key, and hands what it returned to all who
// ask. The zero value is ready.
type once[V comparable] struct {
	mu    sync.Mutex
	calls map[string]*call[V]
}

// call is a run of the function. Its results are there when done is closed.
type call[V comparable] struct {
	done  chan struct{}
	value V
	err   error
}

// lasting marks an error that a second run would have too.
type lasting struct{ error }

func (e lasting) Unwrap() error { return e.error }

// do returns what f returned for the key. The first call runs it, and all others
// wait for that; the end of ctx ends the waiting, not the run. After an error
// that is not lasting the next call runs f again.
func (o *once[V]) do(ctx context.Context, key string, f func(context.Context) (V, error)) (V, error) {
	o.mu.Lock()
	c, ok := o.calls[key]
	if !ok {
		c = o.start(ctx, key, f)
	}
	o.mu.Unlock()
	select {
	case <-c.done:
		return c.value, c.err
	case <-ctx.Done():
		var none V
		return none, fmt.Errorf("wait: %w", context.Cause(ctx))
	}
}

// start runs f in a goroutine. The caller holds the lock.
func (o *once[V]) start(ctx context.Context, key string, f func(context.Context) (V, error)) *call[V] {
	if o.calls == nil {
		o.calls = make(map[string]*call[V])
	}
	c := &call[V]{done: make(chan struct{}), err: errors.New("runtime.Goexit was called, as t.FailNow does")}
	o.calls[key] = c
	go func() {
		defer close(c.done)
		defer func() {
			if _, lasts := errors.AsType[lasting](c.err); c.err != nil && !lasts {
				o.remove(key, c)
			}
		}()
		c.value, c.err = f(context.WithoutCancel(ctx))
	}()
	return c
}

// forget has the next call run its function again, if value is still what there
// is for the key.
func (o *once[V]) forget(key string, value V) {
	o.mu.Lock()
	c := o.calls[key]
	o.mu.Unlock()
	if c == nil {
		return
	}
	<-c.done
	if c.value == value {
		o.remove(key, c)
	}
}

func (o *once[V]) remove(key string, c *call[V]) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.calls[key] == c {
		delete(o.calls, key)
	}
}

package sqlite

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"
)

// The ways in which a pool refuses, besides the error of a context.
var (
	errPoolClosed = errors.New("pool is closed")
	errWaited     = errors.New("waited in vain")
)

// pool lends a fixed number of items, each to one caller at a time, in the order in which the callers asked.
type pool[T any] struct {
	drop func(T) // is given each item once, when the pool is closed and the item is at home
	back func(T) // is given an item that was handed to a caller who had just left; put by default

	mu      sync.Mutex
	idle    []T       // the last to come back is the first to go out
	waiting list.List // of chan T; somebody waits only while idle is empty
	out     int       // how many items are lent
	closed  bool
	empty   chan struct{} // is closed when the pool is closed and no item is out
}

func newPool[T any](items []T, drop func(T)) *pool[T] {
	p := &pool[T]{drop: drop, idle: items, empty: make(chan struct{})}
	p.back = p.put
	return p
}

// get waits for an item until ctx is done, which gives ctx.Err(), or the patience is at its end, which gives
// errWaited; without patience, which is zero, only ctx counts.
func (p *pool[T]) get(ctx context.Context, patience time.Duration) (item T, err error) {
	if err := ctx.Err(); err != nil {
		return item, err
	}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return item, errPoolClosed
	}
	if last := len(p.idle) - 1; last >= 0 {
		defer p.mu.Unlock()
		item, p.idle = p.idle[last], p.idle[:last]
		p.out++
		return item, nil
	}
	turn := make(chan T, 1)
	place := p.waiting.PushBack(turn)
	p.mu.Unlock()
	return p.wait(ctx, patience, place, turn)
}

func (p *pool[T]) wait(ctx context.Context, patience time.Duration, place *list.Element, turn chan T) (item T, err error) {
	var late <-chan time.Time
	if patience > 0 {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case item, ok := <-turn:
		if !ok {
			return item, errPoolClosed
		}
		return item, nil
	case <-ctx.Done():
		p.leave(place, turn)
		return item, ctx.Err()
	case <-late:
		p.leave(place, turn)
		return item, errWaited
	}
}

// leave gives up a place in the queue. An item that was handed over in the meantime goes on to the next.
func (p *pool[T]) leave(place *list.Element, turn chan T) {
	p.mu.Lock()
	p.waiting.Remove(place) // does nothing when the turn has come
	p.mu.Unlock()
	select {
	case item, ok := <-turn:
		if ok {
			p.back(item)
		}
	default:
	}
}

// isAwaited reports whether somebody waits for an item.
func (p *pool[T]) isAwaited() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waiting.Len() > 0
}

// pass hands an item to the caller who has waited longest, and reports whether there was one.
func (p *pool[T]) pass(item T) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.passLocked(item)
}

func (p *pool[T]) passLocked(item T) bool {
	first := p.waiting.Front()
	if first == nil {
		return false
	}
	p.waiting.Remove(first).(chan T) <- item
	return true
}

// put brings an item back. It goes to the caller who has waited longest.
func (p *pool[T]) put(item T) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		p.dropLent(item)
		return
	}
	if p.passLocked(item) {
		return
	}
	p.out--
	p.idle = append(p.idle, item)
}

// dropLent drops an item that came back after the close. The item counts as lent until it is dropped.
func (p *pool[T]) dropLent(item T) {
	p.mu.Unlock()
	p.drop(item)
	p.mu.Lock()
	if p.out--; p.out == 0 {
		close(p.empty)
	}
}

// close makes get refuse, those who wait included, and drops what is idle. It may be called again.
func (p *pool[T]) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.closed = true
	for place := p.waiting.Front(); place != nil; place = p.waiting.Front() {
		close(p.waiting.Remove(place).(chan T))
	}
	for _, item := range p.idle {
		p.drop(item)
	}
	p.idle = nil
	if p.out == 0 {
		close(p.empty)
	}
}

// drain waits, after close, for what is lent until ctx is done, and returns how many items still are.
func (p *pool[T]) drain(ctx context.Context) int {
	select {
	case <-p.empty:
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out
}

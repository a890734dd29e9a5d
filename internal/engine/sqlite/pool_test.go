package sqlite

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// queued waits until n callers wait for an item of p.
func queued[T any](t *testing.T, p *pool[T], n int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Microsecond) {
		p.mu.Lock()
		got := p.waiting.Len()
		p.mu.Unlock()
		if got == n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waiting callers: got %d, want %d", got, n)
		}
	}
}

func take(t *testing.T, p *pool[int]) int {
	t.Helper()
	item, err := p.get(t.Context(), 0)
	if err != nil {
		t.Fatalf("get: got %v, want an item", err)
	}
	return item
}

func TestPoolPrefersTheLastUsed(t *testing.T) {
	t.Parallel()
	p := newPool([]int{1, 2, 3}, nil)
	item := take(t, p)
	if item != 3 {
		t.Errorf("first item: got %d, want 3", item)
	}
	p.put(item)
	if again := take(t, p); again != item {
		t.Errorf("second item: got %d, want %d again", again, item)
	}
}

func TestPoolServesInOrder(t *testing.T) {
	t.Parallel()
	p := newPool([]int{0}, nil)
	item := take(t, p)
	const callers = 50
	var mu sync.Mutex
	var order, want []int
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			item, err := p.get(t.Context(), time.Minute)
			if err != nil {
				t.Errorf("get: got %v, want an item", err)
				return
			}
			mu.Lock()
			order = append(order, i)
			mu.Unlock()
			p.put(item)
		})
		queued(t, p, i+1)
		want = append(want, i)
	}
	p.put(item)
	wg.Wait()
	if diff := cmp.Diff(want, order); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

func TestPoolRefuses(t *testing.T) {
	t.Parallel()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	p := newPool([]int{0}, func(int) {})

	if _, err := p.get(ended, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("get with an ended context and an idle item: got %v, want %v", err, context.Canceled)
	}
	item := take(t, p)
	if _, err := p.get(t.Context(), time.Microsecond); !errors.Is(err, errWaited) {
		t.Errorf("get without patience: got %v, want %v", err, errWaited)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Microsecond)
	defer cancel()
	if _, err := p.get(ctx, time.Minute); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("get until a deadline: got %v, want %v", err, context.DeadlineExceeded)
	}
	queued(t, p, 0)
	p.put(item)
	p.close()
	if _, err := p.get(t.Context(), 0); !errors.Is(err, errPoolClosed) {
		t.Errorf("get after close: got %v, want %v", err, errPoolClosed)
	}
}

// The caller's turn has come, and at the same moment it gives up: the item must not be lost.
func TestPoolPassesOnWhatNobodyTook(t *testing.T) {
	t.Parallel()
	p := newPool([]int{7}, nil)
	item := take(t, p)
	turn := make(chan int, 1)
	place := p.waiting.PushBack(turn)
	p.put(item)
	next := make(chan int)
	go func() {
		item, _ := p.get(context.Background(), 0)
		next <- item
	}()
	queued(t, p, 1)
	p.leave(place, turn)
	if got := <-next; got != 7 {
		t.Errorf("item of the next caller: got %d, want 7", got)
	}
}

func TestPoolClose(t *testing.T) {
	t.Parallel()
	dropped := make(chan int, 3)
	p := newPool([]int{1, 2}, func(item int) { dropped <- item })
	a, b := take(t, p), take(t, p)
	p.put(b)
	b = take(t, p)

	refused := make(chan error)
	go func() {
		_, err := p.get(context.Background(), 0)
		refused <- err
	}()
	queued(t, p, 1)
	p.close()
	p.close()
	if err := <-refused; !errors.Is(err, errPoolClosed) {
		t.Errorf("waiting caller: got %v, want %v", err, errPoolClosed)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if got := p.drain(ended); got != 2 {
		t.Errorf("items out when the context is done: got %d, want 2", got)
	}
	p.put(a)
	go p.put(b)
	if got := p.drain(t.Context()); got != 0 {
		t.Errorf("items out at last: got %d, want 0", got)
	}
	got := []int{<-dropped, <-dropped}
	slices.Sort(got)
	if diff := cmp.Diff([]int{1, 2}, got); diff != "" {
		t.Errorf("dropped items (-want +got):\n%s", diff)
	}
}

func TestPoolUnderPressure(t *testing.T) {
	t.Parallel()
	const items, callers, rounds = 3, 20, 300
	var users [items]sync.Mutex
	p := newPool([]int{0, 1, 2}, nil)
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range rounds {
				ctx, cancel := context.WithTimeout(t.Context(), rand.N(200*time.Microsecond))
				if item, err := p.get(ctx, rand.N(200*time.Microsecond)); err == nil {
					if users[item].TryLock() {
						runtime.Gosched()
						users[item].Unlock()
					} else {
						t.Errorf("item %d was lent twice", item)
					}
					p.put(item)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if p.out != 0 || len(p.idle) != items || p.waiting.Len() != 0 {
		t.Errorf("afterwards: got %d out, %d idle, %d waiting, want 0, %d, 0", p.out, len(p.idle), p.waiting.Len(), items)
	}
}

// An item that comes to somebody who has just left goes where it is told.
func TestPoolGivesBack(t *testing.T) {
	t.Parallel()
	p := newPool([]int{1}, func(int) {})
	var back []int
	p.back = func(item int) { back = append(back, item); p.put(item) }
	turn := make(chan int, 1)
	place := p.waiting.PushBack(turn)
	p.put(1) // is handed over
	p.leave(place, turn)
	same(t, "given back", len(back), 1)
	same(t, "idle", len(p.idle), 2)
}

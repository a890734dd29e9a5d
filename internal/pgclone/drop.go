package pgclone

import (
	"context"
	"slices"
	"sync"
	"time"
)

// roundPause is how long the clients of databases are given at first before
// they are looked for again, and lastPause at last.
const (
	roundPause = 3 * time.Millisecond
	lastPause  = 50 * time.Millisecond
)

// burials are the databases to be dropped. At most one goroutine drops them,
// which ends when there are none.
type burials struct {
	mu      sync.Mutex
	pending []doomed
	done    chan struct{} // closed when the goroutine ends; nil: there is none
}

// doomed is a database to be dropped.
type doomed struct {
	name  string
	since time.Time
}

// bury has a database be dropped in the background.
func (s *Server) bury(name string) {
	s.buried.mu.Lock()
	defer s.buried.mu.Unlock()
	s.buried.pending = append(s.buried.pending, doomed{name, time.Now()})
	if s.buried.done == nil {
		s.startDrops(func() {})
	}
}

// startSweep has what ended processes left be dropped in the background.
func (s *Server) startSweep() {
	s.buried.mu.Lock()
	defer s.buried.mu.Unlock()
	s.startDrops(func() {
		_ = s.sweep(context.Background()) // what it leaves, the next process sweeps
	})
}

// startDrops starts the goroutine. The caller holds the lock.
func (s *Server) startDrops(first func()) {
	done := make(chan struct{})
	s.buried.done = done
	go func() {
		defer close(done)
		first()
		s.dropAll(context.Background())
	}()
}

// Await waits until all that is to be dropped in the background is, or ctx ends.
func (s *Server) Await(ctx context.Context) error {
	for {
		s.buried.mu.Lock()
		done := s.buried.done
		s.buried.mu.Unlock()
		if done == nil {
			return nil
		}
		select {
		case <-done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// dropAll drops databases until there are none to be dropped.
func (s *Server) dropAll(ctx context.Context) {
	var left []doomed
	for pause := roundPause; ; {
		all := slices.Concat(left, s.exhume(len(left) == 0))
		if len(all) == 0 {
			return
		}
		err := s.drops.do(ctx, func(ctx context.Context, c *conn) (err error) {
			left, err = c.dropIdle(ctx, all, s.waits.client)
			return err
		})
		switch {
		case err != nil:
			left = nil // for the next process's sweep
		case len(left) < len(all):
			pause = roundPause
		default:
			pause = min(2*pause, lastPause)
		}
		if len(left) > 0 {
			time.Sleep(pause)
		}
	}
}

// exhume takes the databases that are to be dropped. The last call, where there
// are none and the caller has none either, ends the goroutine.
func (s *Server) exhume(last bool) []doomed {
	s.buried.mu.Lock()
	defer s.buried.mu.Unlock()
	all := s.buried.pending
	s.buried.pending = nil
	if last && len(all) == 0 {
		s.buried.done = nil
	}
	return all
}

// dropIdle drops those databases that have no connections, and returns the
// others. Connections get the time patience to close, and are ended then; the
// same time later a database is dropped with force.
//
// DROP DATABASE itself waits for connections in steps of 100 ms, and holds up
// all other databases the while.
//
// https://www.postgresql.org/docs/current/sql-dropdatabase.html
func (c *conn) dropIdle(ctx context.Context, all []doomed, patience time.Duration) (left []doomed, err error) {
	names := make([]string, len(all))
	for i, d := range all {
		names[i] = d.name
	}
	busy, err := c.busy(ctx, names)
	if err != nil {
		return nil, err
	}
	var overdue []string
	for _, d := range all {
		age := time.Since(d.since)
		if busy[d.name] && age < 2*patience {
			left = append(left, d)
			if age > patience {
				overdue = append(overdue, d.name)
			}
			continue
		}
		if err := c.exec(ctx, "drop database if exists %s with (force)", d.name); err != nil && c.IsClosed() {
			return nil, err
		} // any other error is this database's, and the next process's sweep's
	}
	if len(overdue) > 0 {
		err = c.terminate(ctx, overdue)
	}
	return left, err
}

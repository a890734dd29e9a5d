// Package pgclone gives tests PostgreSQL databases that are copies of a
// template, which is built once on a server, for all processes that use it.
//
// All databases of one process carry the process's owner number in their names,
// and the process holds an advisory lock of that number (the lease) on one
// connection for as long as it lives. So a later process can tell which databases
// have lost their owner, on whatever machine that ran, and drops them; it needs
// neither a clock nor a process id. A process that has ended in whatever way
// thus leaves nothing that outlives the next run.
//
// A process has two connections of this package: the lease's, which also makes the
// databases, and one that drops them. Building a template takes a third. The URL
// of the server must lead to PostgreSQL itself: a pooler in transaction mode
// would give the lease away.
//
// https://www.postgresql.org/docs/current/sql-createdatabase.html
package pgclone

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// startLimit bounds the first contact with a server, without the waiting for a
// free connection.
const startLimit = time.Minute

// Server makes databases on one PostgreSQL server. Its methods may be called
// by many goroutines.
type Server struct {
	url    string
	owner  owner
	facts  facts
	lease  *link         // holds the owner's lock and makes databases
	drops  *link         // drops databases
	made   atomic.Uint64 // databases, for their names
	used   atomic.Int64  // those of tests that are not dropped yet
	waits  waits
	built  once[string] // names of templates, by id
	fresh  sync.Map     // ids of the templates that were built despite a shared one
	buried burials
}

// waits are how long the package waits for what others do.
type waits struct {
	full   time.Duration // for a free connection
	client time.Duration // for the clients of a database that is to be dropped or sealed
}

var servers once[*Server]

// On returns the Server of this process at a URL. The first call connects, takes
// the lease, and has what ended processes left be dropped in the background. The
// end of ctx ends the waiting alone.
//
// The errors have no passwords in them.
func On(ctx context.Context, url string) (*Server, error) {
	return servers.do(ctx, url, func(ctx context.Context) (*Server, error) {
		return newServer(ctx, url, waits{full: 30 * time.Second, client: time.Second})
	})
}

func newServer(ctx context.Context, url string, w waits) (*Server, error) {
	if _, err := Within(url, "any"); err != nil {
		return nil, err
	}
	s := &Server{url: url, owner: newOwner(), waits: w}
	s.lease, s.drops = newLink(s.openLease), newLink(s.open)
	ctx, cancel := context.WithTimeout(ctx, w.full+startLimit)
	defer cancel()
	err := s.lease.do(ctx, func(ctx context.Context, c *conn) (err error) {
		s.facts, err = readFacts(ctx, c)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("use the test server: %w", err)
	}
	s.startSweep()
	return s, nil
}

// Database is a database of a test.
type Database struct {
	// URL leads to it as the server's URL leads to the server.
	URL string
	// Name is its name on the server.
	Name string

	server *Server
	once   sync.Once
	stays  bool
}

// Clone makes a database that is a copy of what t says, building that first where
// nobody has. A copy of ten tables takes some 15 ms. It has no connections yet;
// the caller bounds them by [Server.Connections].
//
// The error of a Build is in the chain, and is that of each Clone of the same
// template in this process. [FullError] is in the chain where the server stayed
// full. The end of ctx ends the waiting for what other calls share; what was
// begun is finished.
func (s *Server) Clone(ctx context.Context, t Template) (*Database, error) {
	name, err := s.copyOf(ctx, &t)
	if err != nil {
		return nil, fmt.Errorf("make a test database: %w", err)
	}
	url, err := Within(s.url, name)
	if err != nil {
		return nil, err
	}
	s.used.Add(1)
	return &Database{URL: url, Name: name, server: s}, nil
}

// Drop drops the database in the background, when its connections are closed;
// those that are open after a second are ended. What can't be dropped is left to
// a later process. Further calls do nothing.
//
// When no other database of this process is in use, Drop waits until all are
// dropped: the tests may be at their end, where nothing would be dropped any
// more, and what looks for goroutines that were left behind would find ours.
func (d *Database) Drop() {
	d.once.Do(func() {
		d.server.bury(d.Name)
		if d.stays || d.server.used.Add(-1) > 0 {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), lastLimit)
		defer cancel()
		_ = d.server.Await(ctx) // what is left, the next process sweeps
	})
}

// Stay says that the database is there for as long as the process is, and that no
// Drop waits for it. It is called once, before Drop.
func (d *Database) Stay() {
	d.stays = true
	d.server.used.Add(-1)
}

// lastLimit is how long the last Drop waits.
const lastLimit = 10 * time.Second

// Disconnect ends all connections to the database. It is for those of a pooler,
// which stay when its clients are gone.
func (d *Database) Disconnect(ctx context.Context) error {
	err := d.server.lease.do(ctx, func(ctx context.Context, c *conn) error {
		return c.terminate(ctx, []string{d.Name})
	})
	if err != nil {
		return fmt.Errorf("end the connections to %s: %w", d.Name, err)
	}
	return nil
}

// Keep has the database outlive its process: nobody drops it but who asks for it
// by name. Drop is not to be called then.
func (d *Database) Keep(ctx context.Context) error {
	err := d.server.lease.do(ctx, func(ctx context.Context, c *conn) error {
		return c.comment(ctx, d.Name, keptComment)
	})
	if err != nil {
		return fmt.Errorf("keep database %s: %w", d.Name, err)
	}
	return nil
}

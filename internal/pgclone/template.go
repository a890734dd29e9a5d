package pgclone

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"time"
)

// buildLimit bounds the building of a template, and the waiting for another
// process that builds it.
const buildLimit = 10 * time.Minute

// Template says what databases are copies of. The zero value is an empty
// database.
//
// A template is built under a lock that holds across processes, in a database
// of its builder's. It gets its own name, by which others find it, when it is
// whole and refuses connections; the name tells the server's version and a digest
// of the Key, the role, the version and what the template starts from. One that
// nobody has used for a week is dropped.
//
// DBTEST_FRESH=1 has each process build its templates once, in the place of
// those that there are.
type Template struct {
	// Key tells templates apart: a digest of all that Build does.
	Key string
	// Build fills the database of a URL, and closes all connections to it
	// before it returns. Nil: nothing is added to From.
	Build func(ctx context.Context, url string) error
	// Own is for what only this process can know by its Key, as what Go code
	// does: the template is shared with no other process, and is gone when this
	// one is.
	Own bool
	// From is what Build finds in the database. Nil: nothing.
	From *Template
}

// built is the template that has to be built for t: itself, or what it is
// the same as; nil is the empty database.
func (t *Template) built() *Template {
	for t != nil && t.Build == nil {
		t = t.From
	}
	return t
}

func (t *Template) own() bool { return t != nil && (t.Own || t.From.own()) }

// digest tells t from all other templates of a role on a version of PostgreSQL.
func (t *Template) digest(f facts) [32]byte {
	t = t.built()
	if t == nil {
		return sha256.Sum256(fmt.Appendf(nil, "%d %q", f.version, f.user))
	}
	return sha256.Sum256(fmt.Appendf(nil, "%x %q %t", t.From.digest(f), t.Key, t.own()))
}

// copies is how often a copy is tried: a template may be dropped or replaced,
// and PostgreSQL looks after the databases that it copies.
const copies = 5

// copyOf makes a database of this process's that is a copy of a template, and
// returns its name.
func (s *Server) copyOf(ctx context.Context, t *Template) (name string, err error) {
	t = t.built()
	id := fmt.Sprintf("%x", t.digest(s.facts))
	for range copies {
		source := "template0"
		if t != nil {
			source, err = s.built.do(ctx, id, func(ctx context.Context) (string, error) { return s.build(ctx, t, id) })
		}
		if err != nil {
			return "", err
		}
		name, err = s.create(ctx, source)
		switch code(err) {
		case codeNoSuch:
			s.built.forget(id, source)
		case codeInUse: // PostgreSQL has waited for five seconds already
		case codeForbidden:
			return "", fmt.Errorf("give the role of the test server's URL the right to CREATEDB: %w", err)
		default:
			return name, err
		}
	}
	return "", err
}

// create copies the database source.
//
// file_copy takes half the time of wal_log as long as databases are small and
// the server has fsync off.
//
// https://www.postgresql.org/docs/current/sql-createdatabase.html#CREATE-DATABASE-STRATEGY
func (s *Server) create(ctx context.Context, source string) (name string, err error) {
	statement := "create database %s template %s"
	if s.facts.version >= 150000 {
		statement += " strategy file_copy"
	}
	err = s.lease.do(ctx, func(ctx context.Context, c *conn) error {
		// A name of its own for each attempt: the one before may have succeeded.
		name = cloneName(s.owner, time.Now(), s.made.Add(1))
		return c.exec(ctx, statement, name, source)
	})
	return name, err
}

// build returns the name of t's database, which it makes where nobody has.
func (s *Server) build(ctx context.Context, t *Template, id string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, buildLimit)
	defer cancel()
	if t.own() {
		return s.fill(ctx, t)
	}
	name := fmt.Sprintf("%s%d_%.32s", templatePrefix, s.facts.version, id)
	_, done := s.fresh.Load(id)
	fresh := os.Getenv("DBTEST_FRESH") == "1" && !done
	if !fresh {
		if found, err := s.find(ctx, name); found || err != nil {
			return name, err
		}
	}
	unlock, err := s.lock(ctx, t.digest(s.facts))
	if err != nil {
		return "", fmt.Errorf("wait for who builds template %s: %w", name, err)
	}
	defer unlock()
	if !fresh {
		if found, err := s.find(ctx, name); found || err != nil {
			return name, err
		}
	}
	if err := s.buildAs(ctx, t, name); err != nil {
		return "", err
	}
	s.fresh.Store(id, true)
	return name, nil
}

// lock takes the lock of who builds a template, on a connection of its own.
func (s *Server) lock(ctx context.Context, digest [32]byte) (unlock func(), err error) {
	c, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := c.Exec(ctx, "select pg_advisory_lock($1)", int64(binary.BigEndian.Uint64(digest[:]))); err != nil {
		_ = c.Close(ctx)
		return nil, err
	}
	return func() { _ = c.Close(context.WithoutCancel(ctx)) }, nil
}

// buildAs builds a template and gives it the name that others know, which it
// takes from another that has it.
func (s *Server) buildAs(ctx context.Context, t *Template, name string) error {
	made, err := s.fill(ctx, t)
	if err != nil {
		return err
	}
	err = s.lease.do(ctx, func(ctx context.Context, c *conn) error {
		if err := c.exec(ctx, "drop database if exists %s", name); err != nil {
			return err
		}
		return c.exec(ctx, "alter database %s rename to %s", made, name)
	})
	if err == nil {
		return nil
	}
	s.bury(made)
	if code(err) == codeDuplicate { // built by somebody whose URL names another database, and so another's locks
		return nil
	}
	return fmt.Errorf("name template: %w", err)
}

// fill makes a database with what t says in it, which refuses connections.
func (s *Server) fill(ctx context.Context, t *Template) (string, error) {
	name, err := s.copyOf(ctx, t.From)
	if err != nil {
		return "", err
	}
	whole := false
	defer func() {
		if !whole { // also when Build calls runtime.Goexit
			s.bury(name)
		}
	}()
	url, err := Within(s.url, name)
	if err != nil {
		return "", err
	}
	if err := t.Build(ctx, url); err != nil {
		return "", lasting{fmt.Errorf("build template: %w", err)}
	}
	if err := s.seal(ctx, name); err != nil {
		return "", fmt.Errorf("build template: %w", err)
	}
	whole = true
	return name, nil
}

// sealWaits is how many times as long as elsewhere Build's connections may take
// to close: the template is nobody's if they stay.
const sealWaits = 5

// seal has a database refuse connections, when it has none.
func (s *Server) seal(ctx context.Context, name string) error {
	for began := time.Now(); ; {
		var busy map[string]bool
		err := s.lease.do(ctx, func(ctx context.Context, c *conn) (err error) {
			busy, err = c.busy(ctx, []string{name})
			return err
		})
		if err != nil {
			return err
		}
		if !busy[name] {
			break
		}
		if time.Since(began) > sealWaits*s.waits.client {
			return lasting{fmt.Errorf("close connections to %s that Build has left open", name)}
		}
		if err := sleep(ctx, roundPause); err != nil {
			return err
		}
	}
	return s.lease.do(ctx, func(ctx context.Context, c *conn) error {
		if err := c.exec(ctx, "alter database %s allow_connections false", name); err != nil {
			return err
		}
		return c.touch(ctx, name)
	})
}

// touch notes, in a template's comment, that it is used now, by the server's
// clock.
func (c *conn) touch(ctx context.Context, name string) error {
	var now time.Time
	if err := c.QueryRow(ctx, "select now()").Scan(&now); err != nil {
		return err
	}
	return c.comment(ctx, name, now.UTC().Format(time.RFC3339))
}

// touchEvery is how old the note of a template's use gets.
const touchEvery = 24 * time.Hour

// find reports whether there is a template of a name, and notes its use.
func (s *Server) find(ctx context.Context, name string) (found bool, err error) {
	err = s.lease.do(ctx, func(ctx context.Context, c *conn) error {
		all, now, err := c.databases(ctx, name)
		if err != nil || len(all) == 0 {
			return err
		}
		found = true
		if used, err := time.Parse(time.RFC3339, all[0].Comment); err != nil || now.Sub(used) > touchEvery {
			// Another process may note it at the same time, and the one that
			// fails needs not.
			_ = c.touch(ctx, name)
		}
		return nil
	})
	return found, err
}

package pgclone

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// unusedLimit is how long a template stays that nobody uses.
	unusedLimit = 7 * 24 * time.Hour
	// sweepLock is held by the process that sweeps.
	sweepLock = 0x74686f6c65737765
)

// database is a database of ours, as the server lists it.
type database struct{ Name, Comment string }

// databases are those of ours whose name begins with prefix, and the server's
// time.
func (c *conn) databases(ctx context.Context, prefix string) (all []database, now time.Time, err error) {
	rows, err := c.Query(ctx, `select datname::text, coalesce(shobj_description(oid, 'pg_database'), ''), now()
		from pg_database where starts_with(datname::text, $1)`, prefix)
	if err != nil {
		return nil, now, err
	}
	all, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (d database, err error) {
		err = row.Scan(&d.Name, &d.Comment, &now)
		return d, err
	})
	return all, now, err
}

// owners are those whose lease is held, in whichever database of the server
// their URL names.
//
// https://www.postgresql.org/docs/current/view-pg-locks.html
func (c *conn) owners(ctx context.Context) (map[owner]bool, error) {
	rows, err := c.Query(ctx, `select (classid::bigint << 32) | objid::bigint from pg_locks
		where locktype = 'advisory' and objsubid = 1 and granted`)
	if err != nil {
		return nil, err
	}
	keys, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return nil, err
	}
	living := make(map[owner]bool, len(keys))
	for _, key := range keys {
		living[owner(key)] = true
	}
	return living, nil
}

// sweep drops the databases whose owner has ended, and templates that nobody has
// used for long, unless another process does so now. Databases that somebody is
// connected to or keeps are left, as are those of other roles.
func (s *Server) sweep(ctx context.Context) error {
	return s.drops.do(ctx, func(ctx context.Context, c *conn) error {
		var ours bool
		if err := c.QueryRow(ctx, "select pg_try_advisory_lock($1)", int64(sweepLock)).Scan(&ours); err != nil || !ours {
			return err
		}
		defer func() { _, _ = c.Exec(ctx, "select pg_advisory_unlock($1)", int64(sweepLock)) }()
		dead, err := c.abandoned(ctx)
		if err != nil {
			return err
		}
		for _, name := range dead {
			if err := c.sweepOne(ctx, name); err != nil && c.IsClosed() {
				return err
			} // any other error is this database's, and the next sweep's
		}
		return nil
	})
}

// abandoned are the databases that a sweep looks at. It lists the databases before
// the leases: an owner has its lease before it makes a database, so a database
// whose owner is not found then has lost it.
func (c *conn) abandoned(ctx context.Context) ([]string, error) {
	all, now, err := c.databases(ctx, anyPrefix)
	if err != nil {
		return nil, fmt.Errorf("list databases: %w", err)
	}
	living, err := c.owners(ctx)
	if err != nil {
		return nil, fmt.Errorf("list leases: %w", err)
	}
	var dead []string
	for _, d := range all {
		if d.abandoned(living, now) {
			dead = append(dead, d.Name)
		}
	}
	return dead, nil
}

func (d database) abandoned(living map[owner]bool, now time.Time) bool {
	if o, ok := ownerOf(d.Name); ok {
		return !living[o]
	}
	if !templateNames.MatchString(d.Name) {
		return false
	}
	used, err := time.Parse(time.RFC3339, d.Comment)
	return err == nil && now.Sub(used) > unusedLimit
}

// sweepOne drops a database without an owner, unless somebody keeps or uses it.
// Its comment is read when the owner is known to have ended, who may have
// written it last.
func (c *conn) sweepOne(ctx context.Context, name string) error {
	var free bool
	err := c.QueryRow(ctx, `select coalesce(shobj_description(oid, 'pg_database'), '') <> $2
		and not exists (select from pg_stat_activity where datid = d.oid)
		from pg_database d where datname = $1`, name, keptComment).Scan(&free)
	if err != nil || !free {
		return err
	}
	return c.exec(ctx, "drop database if exists %s", name)
}

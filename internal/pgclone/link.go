package pgclone

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// statementLimit bounds what is done on a link at once, of which nothing takes
// longer than copying or dropping a large database.
const statementLimit = 2 * time.Minute

// link is a connection for one caller at a time, which is made anew when it is
// lost, as when the server was restarted.
type link struct {
	turn chan struct{} // full while somebody uses the connection
	open func(context.Context) (*conn, error)
	conn *conn // nil at first
}

func newLink(open func(context.Context) (*conn, error)) *link {
	return &link{turn: make(chan struct{}, 1), open: open}
}

// do calls f with the connection, and a second time if that is lost meanwhile.
// The end of ctx ends the waiting for others alone: it would close the
// connection.
func (l *link) do(ctx context.Context, f func(context.Context, *conn) error) error {
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("wait for the connection that makes databases: %w", context.Cause(ctx))
	}
	defer func() { <-l.turn }()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), statementLimit)
	defer cancel()
	err := l.try(ctx, f)
	if err != nil && l.conn != nil && l.conn.IsClosed() {
		err = l.try(ctx, f)
	}
	return err
}

func (l *link) try(ctx context.Context, f func(context.Context, *conn) error) error {
	if l.conn == nil || l.conn.IsClosed() {
		opened, err := l.open(ctx)
		if err != nil {
			return err
		}
		l.conn = opened
	}
	return f(ctx, l.conn)
}

// conn is a connection with the statements of this package.
type conn struct{ *pgx.Conn }

// exec runs a statement in which each %s is the name of a database.
func (c *conn) exec(ctx context.Context, format string, names ...string) error {
	quoted := make([]any, len(names))
	for i, name := range names {
		quoted[i] = pgx.Identifier{name}.Sanitize()
	}
	_, err := c.Exec(ctx, fmt.Sprintf(format, quoted...))
	return err
}

// comment sets the comment of a database, which stays when that is renamed. The
// text has no quotation marks.
func (c *conn) comment(ctx context.Context, name, text string) error {
	return c.exec(ctx, "comment on database %s is '"+text+"'", name)
}

// busy returns which of the databases have connections.
func (c *conn) busy(ctx context.Context, names []string) (map[string]bool, error) {
	rows, err := c.Query(ctx, "select distinct datname::text from pg_stat_activity where datname = any($1::text[])", names)
	if err != nil {
		return nil, err
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	busy := make(map[string]bool, len(found))
	for _, name := range found {
		busy[name] = true
	}
	return busy, nil
}

// terminate ends the connections to databases.
func (c *conn) terminate(ctx context.Context, names []string) error {
	_, err := c.Exec(ctx, "select pg_terminate_backend(pid) from pg_stat_activity where datname = any($1::text[])", names)
	return err
}

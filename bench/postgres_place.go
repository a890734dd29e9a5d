package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tholedb/thole/internal/link"
	"github.com/tholedb/thole/internal/pgserver"
)

const (
	counters    = 10_000        // of sessions that don't get in each other's way
	hotCounters = 4             // of those that do
	apart       = 1_000_000_000 // what a counter begins with is this times its id

	updateCounter = "update counters set value = value + 1 where id = $1 returning value"
	readCounter   = "select value from counters where id = $1"
	writeCounter  = "update counters set value = $2 where id = $1"
	addCounter    = "update counters set value = value + 1 where id = $1"
	insertEvent   = "insert into events (counter, value) values ($1, $2)"

	// Updates stay on their page, so that no round leaves the next a worse table.
	pgSchema = `
		create table counters (id bigint primary key, value bigint not null) with (fillfactor = 50);
		create table events (id bigint generated always as identity primary key, counter bigint not null, value bigint not null);
		insert into counters select i, i * %d from generate_series(1::bigint, %d) i;
		analyze counters`
)

// The ways to the server.
const (
	loopback = "loopback"
	far      = "1 ms each way"
	pooler   = "PgBouncer"

	distance = time.Millisecond
)

// way is a way to the database.
type way struct{ name, url string }

// roundTrip is the median time that an empty query takes.
func (w way) roundTrip(ctx context.Context) (time.Duration, error) {
	conn, err := pgx.Connect(ctx, w.url)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close(ctx) }()
	took := make([]time.Duration, 21)
	for i := range took {
		began := time.Now()
		if err := conn.Ping(ctx); err != nil {
			return 0, err
		}
		took[i] = time.Since(began)
	}
	return median(took), nil
}

// place is a database, with the ways to it.
type place struct {
	ways   []way
	server postmaster

	name  string
	admin *pgx.Conn // to the database that was there before
	conn  *pgx.Conn
	link  link.Link
}

// openPlace makes a database on the server of pgserver. The way that is far ends
// with ctx.
func openPlace(ctx context.Context) (*place, error) {
	server, err := pgserver.Find(ctx)
	if err != nil {
		return nil, err
	}
	pooled, err := pgserver.FindPooler(ctx)
	if err != nil {
		return nil, err
	}
	p := &place{name: "thole_bench_" + strings.ToLower(rand.Text())}
	if err := p.open(ctx, server.URL, pooled.URL); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (p *place) open(ctx context.Context, server, pooled string) (err error) {
	if p.admin, err = pgx.Connect(ctx, server); err != nil {
		return err
	}
	if _, err := p.admin.Exec(ctx, "create database "+p.name); err != nil {
		return err
	}
	if err := p.findWays(ctx, server, pooled); err != nil {
		return err
	}
	if p.conn, err = pgx.Connect(ctx, p.ways[0].url); err != nil {
		return err
	}
	if p.server, err = findPostmaster(ctx, p.conn); err != nil {
		return err
	}
	_, err = p.conn.Exec(ctx, fmt.Sprintf(pgSchema, apart, counters))
	return err
}

// findWays finds the ways to the database: all by TCP, so that they are alike.
func (p *place) findWays(ctx context.Context, server, pooled string) error {
	cfg, err := pgx.ParseConfig(server)
	if err != nil {
		return err
	}
	host := cfg.Host
	if strings.HasPrefix(host, "/") { // where pgserver's listens on a socket, it does so on loopback too
		host = "127.0.0.1"
	}
	near, err := to(server, net.JoinHostPort(host, strconv.Itoa(int(cfg.Port))), p.name)
	if err != nil {
		return err
	}
	p.link.Latency(distance, distance)
	distant, err := p.link.Listen(ctx, near)
	if err != nil {
		return err
	}
	behind, err := to(pooled, "", p.name)
	p.ways = []way{{loopback, near}, {far, distant}, {pooler, behind}}
	return err
}

// to is the URL of a database, at another address unless that is empty.
func to(raw, address, database string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", errors.New("the URL of the server is not valid") // the cause would quote the password
	}
	u.Path = "/" + database
	if address != "" {
		u.Host = address
		q := u.Query()
		q.Del("host")
		q.Del("port")
		u.RawQuery = q.Encode()
	}
	return u.String(), nil
}

// describe says which server it is, and what its commits cost.
func (p *place) describe(ctx context.Context) (text string, err error) {
	err = p.conn.QueryRow(ctx, `select format('PostgreSQL %s, fsync=%s, synchronous_commit=%s',
		current_setting('server_version'), current_setting('fsync'), current_setting('synchronous_commit'))`).Scan(&text)
	return text, err
}

// entries are the books as the database has them.
type entries struct{ sum, events int64 }

func (p *place) books(ctx context.Context) (e entries, err error) {
	err = p.conn.QueryRow(ctx, "select (select sum(value)::bigint from counters), (select count(*) from events)").Scan(&e.sum, &e.events)
	return e, err
}

// spent is what this process and the server have used.
func (p *place) spent() costs {
	used := spent()
	used.server = p.server.cpuTime()
	return used
}

// Close drops the database.
func (p *place) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var errs []error
	if p.conn != nil {
		errs = append(errs, p.conn.Close(ctx))
	}
	if p.admin != nil {
		_, err := p.admin.Exec(ctx, fmt.Sprintf("drop database if exists %s with (force)", p.name))
		errs = append(errs, err, p.admin.Close(ctx))
	}
	return errors.Join(errs...)
}

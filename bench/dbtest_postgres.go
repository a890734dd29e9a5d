package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/DATA-DOG/go-txdb"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tholedb/thole/internal/pgclone"
)

var pgTestPeers = []testPeer{
	{"sandbox", "dbtest.Sandbox and a session in it", openSandboxTests},
	{"session", "dbtest.Session", openSessionTests},
	{"database", "dbtest.Database and a session in it", openDatabaseTests},
	{"rollback", byHand, openPoolTests},
	{"txdb", "go-txdb and a transaction in it; another of its DBs is open all the time, so that it keeps its connections", openTxdbTests},
	{"txdb-alone", "the same with nothing else open: it connects anew for each test", openTxdbAloneTests},
	{"pgtestdb", "pgtestdb, a copy of a template, BEGIN and COMMIT", openPgtestdbTests},
	{"fresh", anew, openFreshTests},
}

// migrated makes a database with the schema, which is dropped when the process has
// ended.
func (g grounds) migrated(ctx context.Context) (url string, err error) {
	db, err := g.server.Clone(ctx, pgclone.Template{})
	if err != nil {
		return "", err
	}
	return db.URL, executeAt(ctx, db.URL, g.schema)
}

// executeAt runs statements on a connection of their own.
func executeAt(ctx context.Context, url, text string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, text)
	return errors.Join(err, conn.Close(ctx))
}

func openPoolTests(ctx context.Context, g grounds) (*suite, error) {
	url, err := g.migrated(ctx)
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		return nil, err
	}
	return &suite{close: func() error { pool.Close(); return nil }, test: func(tb testing.TB) {
		tx, err := pool.Begin(tb.Context())
		check(tb, err)
		tb.Cleanup(func() { check(tb, tx.Rollback(context.WithoutCancel(tb.Context()))) })
		_, err = tx.Exec(tb.Context(), insertItemPostgres, itemName, itemQuantity)
		check(tb, err)
	}}, nil
}

// openTxdbTests keeps another connection of go-txdb open, or that would close its
// own after each test.
func openTxdbTests(ctx context.Context, g grounds) (*suite, error) {
	name, test, err := txdbTests(ctx, g)
	if err != nil {
		return nil, err
	}
	holder, err := sql.Open(name, "holder")
	if err != nil {
		return nil, err
	}
	if err := holder.PingContext(ctx); err != nil {
		return nil, errors.Join(err, holder.Close())
	}
	return &suite{test: test, close: holder.Close}, nil
}

func openTxdbAloneTests(ctx context.Context, g grounds) (*suite, error) {
	_, test, err := txdbTests(ctx, g)
	return &suite{test: test}, err
}

// txdbTests returns the name of a driver, and a test with it.
func txdbTests(ctx context.Context, g grounds) (name string, test func(tb testing.TB), err error) {
	url, err := g.migrated(ctx)
	if err != nil {
		return "", nil, err
	}
	name = "txdb " + rand.Text()
	txdb.Register(name, "pgx", url)
	return name, func(tb testing.TB) {
		db, err := sql.Open(name, tb.Name())
		check(tb, err)
		tb.Cleanup(func() { check(tb, db.Close()) })
		check(tb, commitItem(tb.Context(), db, insertItemPostgres))
	}, nil
}

// openFreshTests keeps the connection that makes the databases.
func openFreshTests(ctx context.Context, g grounds) (*suite, error) {
	admin, err := pgx.Connect(ctx, g.url)
	if err != nil {
		return nil, err
	}
	execute := func(ctx context.Context, format, name string) error {
		_, err := admin.Exec(ctx, fmt.Sprintf(format, name))
		return err
	}
	return &suite{close: func() error { return admin.Close(context.WithoutCancel(ctx)) }, test: func(tb testing.TB) {
		ctx := context.WithoutCancel(tb.Context())
		name := "thole_bench_" + strings.ToLower(rand.Text())
		check(tb, execute(ctx, "create database %s", name))
		tb.Cleanup(func() { check(tb, execute(ctx, "drop database %s with (force)", name)) })
		url, err := pgclone.Within(g.url, name)
		check(tb, err)
		db, err := sql.Open("pgx", url)
		check(tb, err)
		tb.Cleanup(func() { check(tb, db.Close()) })
		_, err = db.ExecContext(ctx, g.schema)
		check(tb, err)
		check(tb, commitItem(ctx, db, insertItemPostgres))
	}}, nil
}

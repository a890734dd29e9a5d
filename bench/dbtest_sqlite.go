package main

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// What peers do on both engines.
const (
	byHand = "BEGIN and ROLLBACK by hand, on a connection that is kept"
	anew   = "a new database (on SQLite in memory), the schema, BEGIN and COMMIT"
)

var sqliteTestPeers = []testPeer{
	{"sandbox", "dbtest.Sandbox and a session in it", openSandboxTests},
	{"session", "dbtest.Session", openSessionTests},
	{"database", "dbtest.Database and a session in it", openDatabaseTests},
	{"rollback", byHand, openRollbackTests},
	{"fresh", anew, openMemoryTests},
	{"copy", "a copy of a file, BEGIN and COMMIT", openCopyTests},
}

// What a connection has everywhere.
const testPragmas = "?_pragma=foreign_keys(1)&_pragma=busy_timeout(10000)&_txlock=immediate"

// openMemory opens a database in memory with the schema.
func openMemory(ctx context.Context, schema string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", "file::memory:"+testPragmas)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1) // each has a database of its own
	if _, err := db.ExecContext(ctx, schema); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func openRollbackTests(ctx context.Context, g grounds) (*suite, error) {
	db, err := openMemory(ctx, g.schema)
	if err != nil {
		return nil, err
	}
	return &suite{close: db.Close, test: func(tb testing.TB) {
		tx, err := db.BeginTx(context.WithoutCancel(tb.Context()), nil)
		check(tb, err)
		tb.Cleanup(func() { check(tb, tx.Rollback()) })
		_, err = tx.ExecContext(tb.Context(), insertItemSQLite, itemName, itemQuantity)
		check(tb, err)
	}}, nil
}

func openMemoryTests(_ context.Context, g grounds) (*suite, error) {
	return &suite{test: func(tb testing.TB) {
		db, err := openMemory(tb.Context(), g.schema)
		check(tb, err)
		tb.Cleanup(func() { check(tb, db.Close()) })
		check(tb, commitItem(tb.Context(), db, insertItemSQLite))
	}}, nil
}

// openCopyTests has files that are as those of dbtest.Database: in WAL mode, and on
// the disk when a commit returns.
func openCopyTests(ctx context.Context, g grounds) (*suite, error) {
	template, err := os.MkdirTemp("", "thole-bench-")
	if err != nil {
		return nil, err
	}
	s := &suite{close: func() error { return os.RemoveAll(template) }}
	image, err := fileImage(ctx, filepath.Join(template, "test.db"), g.schema)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.test = func(tb testing.TB) {
		path := filepath.Join(tb.TempDir(), "test.db")
		check(tb, os.WriteFile(path, image, 0o600))
		db, err := sql.Open("sqlite", "file:"+path+testPragmas+"&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
		check(tb, err)
		tb.Cleanup(func() { check(tb, db.Close()) })
		check(tb, commitItem(tb.Context(), db, insertItemSQLite))
	}
	return s, nil
}

// fileImage makes a file with the schema, and returns what is in it.
func fileImage(ctx context.Context, path, schema string) ([]byte, error) {
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		return nil, err
	}
	_, err = db.ExecContext(ctx, schema)
	if err := errors.Join(err, db.Close()); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

// commitItem is the code under test, written for database/sql.
func commitItem(ctx context.Context, db *sql.DB, insert string) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(ctx, insert, itemName, itemQuantity); err != nil {
		return err
	}
	return tx.Commit()
}

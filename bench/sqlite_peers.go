package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/jmoiron/sqlx"
	_ "github.com/mattn/go-sqlite3" // as "sqlite3"; modernc's is "sqlite"
)

const busyTimeout = 10 * time.Second

// All have WAL, the same synchronous, foreign keys, a busy timeout of 10 s, and
// transactions that are immediate. Beside the first two, who have what they
// have by default, each has the connections that suit it.
var peers = []peer{
	{"thole", "its defaults", openThole},
	{"recommended", "database/sql and modernc with the DSN that is recommended everywhere, the pool as it is", openRecommended},
	{"single", "the same with SetMaxOpenConns(1)", openSingle},
	{"sqlx", "sqlx on modernc, one connection, BeginTxx", openSqlx},
	{"mattn", "database/sql and mattn/go-sqlite3 (C) with its statement cache, one connection that writes and a few that read", openMattn},
	{"zombiezen", "zombiezen.com/go/sqlite with sqlitex, one connection that writes and a few that read, cached statements", openZombiezen},
	{"gorm", "gorm on mattn (C), one connection that writes and a few that read, PrepareStmt, its own bulk insert", openGorm},
	{"bun", "bun on modernc, one connection, its own bulk insert", openBun},
}

// readers is how many connections read where a peer has one that writes.
func readers() int { return max(4, runtime.GOMAXPROCS(0)) }

// modernc is the recommended DSN, for modernc's driver.
func modernc(path string, synchronous synchronous) string {
	return fmt.Sprintf("file:%s?_pragma=busy_timeout(%d)&_pragma=journal_mode(WAL)&_pragma=synchronous(%s)&_pragma=foreign_keys(1)&_txlock=immediate",
		path, busyTimeout.Milliseconds(), synchronous)
}

// mattn is the same for mattn's driver.
func mattn(path string, synchronous synchronous) string {
	return fmt.Sprintf("file:%s?_busy_timeout=%d&_journal_mode=WAL&_synchronous=%s&_foreign_keys=1&_txlock=immediate",
		path, busyTimeout.Milliseconds(), synchronous)
}

// one is an error, or a pool of one connection.
func one(db *sql.DB, err error) (*sql.DB, error) {
	if err == nil {
		db.SetMaxOpenConns(1)
	}
	return db, err
}

// sqlStore is database/sql, with a pool that writes and one that reads, which may
// be the same.
type sqlStore struct{ writer, reader *sql.DB }

func openRecommended(_ context.Context, path string, synchronous synchronous) (store, error) {
	db, err := sql.Open("sqlite", modernc(path, synchronous))
	return sqlStore{db, db}, err
}

func openSingle(_ context.Context, path string, synchronous synchronous) (store, error) {
	db, err := one(sql.Open("sqlite", modernc(path, synchronous)))
	return sqlStore{db, db}, err
}

func openMattn(_ context.Context, path string, synchronous synchronous) (store, error) {
	return openMattnPools(mattn(path, synchronous) + "&_stmt_cache_size=100")
}

func openMattnPools(dsn string) (sqlStore, error) {
	writer, err := one(sql.Open("sqlite3", dsn))
	if err != nil {
		return sqlStore{}, err
	}
	reader, err := sql.Open("sqlite3", dsn)
	if err != nil {
		return sqlStore{}, errors.Join(err, writer.Close())
	}
	reader.SetMaxOpenConns(readers())
	reader.SetMaxIdleConns(readers())
	return sqlStore{writer, reader}, nil
}

func (s sqlStore) insert(ctx context.Context, value float64, hold time.Duration) error {
	return inTx(ctx, s.writer, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, insertOne, sensor, value); err != nil {
			return err
		}
		time.Sleep(hold)
		return nil
	})
}

func (s sqlStore) increment(ctx context.Context, id int64) error {
	return inTx(ctx, s.writer, func(tx *sql.Tx) error {
		var value float64
		if err := tx.QueryRowContext(ctx, readOne, id).Scan(&value); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, updateOne, value+1, id)
		return err
	})
}

func (s sqlStore) read(ctx context.Context, id int64) (value float64, err error) {
	err = s.reader.QueryRowContext(ctx, readOne, id).Scan(&value)
	return value, err
}

func (s sqlStore) insertAll(ctx context.Context, rows []reading) error {
	return prepared(s.writer, "(?, ?, ?, ?)", rows)(ctx)
}

func (s sqlStore) ask(ctx context.Context, pragma string) (answer string, err error) {
	err = s.writer.QueryRowContext(ctx, "pragma "+pragma).Scan(&answer)
	return answer, err
}

// Close closes both pools, also when they are one.
func (s sqlStore) Close() error { return errors.Join(s.writer.Close(), s.reader.Close()) }

// inTx is what programs write around a transaction of database/sql.
func inTx(ctx context.Context, db *sql.DB, fn func(tx *sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if err := fn(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// sqlxStore is sqlx over one pool. Its bulk insert is database/sql's.
type sqlxStore struct {
	sqlStore
	db *sqlx.DB
}

func openSqlx(_ context.Context, path string, synchronous synchronous) (store, error) {
	db, err := sqlx.Open("sqlite", modernc(path, synchronous))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return sqlxStore{sqlStore{db.DB, db.DB}, db}, nil
}

func (s sqlxStore) insert(ctx context.Context, value float64, hold time.Duration) error {
	return s.inTx(ctx, func(tx *sqlx.Tx) error {
		if _, err := tx.ExecContext(ctx, insertOne, sensor, value); err != nil {
			return err
		}
		time.Sleep(hold)
		return nil
	})
}

func (s sqlxStore) increment(ctx context.Context, id int64) error {
	return s.inTx(ctx, func(tx *sqlx.Tx) error {
		var value float64
		if err := tx.GetContext(ctx, &value, readOne, id); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, updateOne, value+1, id)
		return err
	})
}

func (s sqlxStore) read(ctx context.Context, id int64) (value float64, err error) {
	err = s.db.GetContext(ctx, &value, readOne, id)
	return value, err
}

func (s sqlxStore) inTx(ctx context.Context, fn func(tx *sqlx.Tx) error) error {
	tx, err := s.db.BeginTxx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if err := fn(tx); err != nil {
		return err
	}
	return tx.Commit()
}

package main

import (
	"context"
	"database/sql"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/jmoiron/sqlx"
	_ "github.com/lib/pq" // as "postgres"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"
	"gorm.io/gorm/logger"
)

var readOnlySQL = &sql.TxOptions{ReadOnly: true}

// keeping has the pool keep as many connections as it may have.
func keeping(db *sql.DB, conns int) *sql.DB {
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db
}

// openStdlib is pgx for database/sql.
func openStdlib(url string, conns int, mode pgx.QueryExecMode) (*sql.DB, error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	cfg.DefaultQueryExecMode = mode
	return keeping(stdlib.OpenDB(*cfg), conns), nil
}

// pgSQLStore is database/sql.
type pgSQLStore struct{ *sql.DB }

func openPgSQL(_ context.Context, url string, conns int) (pgStore, error) {
	db, err := openStdlib(url, conns, pgx.QueryExecModeCacheStatement)
	return pgSQLStore{db}, err
}

func (s pgSQLStore) update(ctx context.Context, id int64) (value int64, err error) {
	err = s.inTx(ctx, nil, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, updateCounter, id).Scan(&value)
	})
	return value, err
}

func (s pgSQLStore) three(ctx context.Context, id int64) error {
	return s.inTx(ctx, nil, func(tx *sql.Tx) error {
		var value int64
		if err := tx.QueryRowContext(ctx, readCounter, id).Scan(&value); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, addCounter, id); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, insertEvent, id, value)
		return err
	})
}

func (s pgSQLStore) read(ctx context.Context, id int64) (value int64, err error) {
	err = s.inTx(ctx, readOnlySQL, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, readCounter, id).Scan(&value)
	})
	return value, err
}

func (s pgSQLStore) single(ctx context.Context, id int64) (value int64, err error) {
	err = s.QueryRowContext(ctx, updateCounter, id).Scan(&value)
	return value, err
}

func (s pgSQLStore) inTx(ctx context.Context, how *sql.TxOptions, fn func(tx *sql.Tx) error) error {
	tx, err := s.BeginTx(ctx, how)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if err := fn(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// pgSqlxStore is sqlx.
type pgSqlxStore struct{ *sqlx.DB }

func openPgSqlx(_ context.Context, url string, conns int) (pgStore, error) {
	db, err := openStdlib(url, conns, pgx.QueryExecModeCacheStatement)
	return pgSqlxStore{sqlx.NewDb(db, "pgx")}, err
}

func openLibPQ(_ context.Context, url string, conns int) (pgStore, error) {
	db, err := sqlx.Open("postgres", url)
	if err != nil {
		return nil, err
	}
	keeping(db.DB, conns)
	return pgSqlxStore{db}, nil
}

func (s pgSqlxStore) update(ctx context.Context, id int64) (value int64, err error) {
	err = s.inTx(ctx, nil, func(tx *sqlx.Tx) error { return tx.GetContext(ctx, &value, updateCounter, id) })
	return value, err
}

func (s pgSqlxStore) three(ctx context.Context, id int64) error {
	return s.inTx(ctx, nil, func(tx *sqlx.Tx) error {
		var value int64
		if err := tx.GetContext(ctx, &value, readCounter, id); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, addCounter, id); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, insertEvent, id, value)
		return err
	})
}

func (s pgSqlxStore) read(ctx context.Context, id int64) (value int64, err error) {
	err = s.inTx(ctx, readOnlySQL, func(tx *sqlx.Tx) error { return tx.GetContext(ctx, &value, readCounter, id) })
	return value, err
}

func (s pgSqlxStore) single(ctx context.Context, id int64) (value int64, err error) {
	err = s.GetContext(ctx, &value, updateCounter, id)
	return value, err
}

func (s pgSqlxStore) inTx(ctx context.Context, how *sql.TxOptions, fn func(tx *sqlx.Tx) error) error {
	tx, err := s.BeginTxx(ctx, how)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if err := fn(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// counter and event are the rows, for the ORMs.
type counter struct {
	ID    int64 `bun:",pk"`
	Value int64
}

type event struct {
	ID      int64 `bun:",pk,autoincrement"`
	Counter int64
	Value   int64
}

// pgGormStore is gorm.
type pgGormStore struct {
	*sql.DB
	db *gorm.DB
}

func openPgGorm(_ context.Context, url string, conns int) (pgStore, error) {
	pool, err := openStdlib(url, conns, pgx.QueryExecModeCacheStatement)
	if err != nil {
		return nil, err
	}
	db, err := gorm.Open(postgres.New(postgres.Config{Conn: pool}), &gorm.Config{SkipDefaultTransaction: true, Logger: logger.Discard})
	if err != nil {
		return nil, errors.Join(err, pool.Close())
	}
	return pgGormStore{pool, db}, nil
}

func (s pgGormStore) update(ctx context.Context, id int64) (value int64, err error) {
	err = s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		value, err = increase(tx, id)
		return err
	})
	return value, err
}

func (s pgGormStore) single(ctx context.Context, id int64) (int64, error) {
	return increase(s.db.WithContext(ctx), id)
}

func increase(db *gorm.DB, id int64) (int64, error) {
	c := counter{ID: id}
	err := db.Model(&c).Clauses(clause.Returning{Columns: []clause.Column{{Name: "value"}}}).Update("value", gorm.Expr("value + 1")).Error
	return c.Value, err
}

func (s pgGormStore) three(ctx context.Context, id int64) error {
	return s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		c := counter{ID: id}
		if err := tx.Select("value").Take(&c).Error; err != nil {
			return err
		}
		e := event{Counter: id, Value: c.Value}
		if err := tx.Model(&c).Update("value", gorm.Expr("value + 1")).Error; err != nil {
			return err
		}
		return tx.Create(&e).Error
	})
}

func (s pgGormStore) read(ctx context.Context, id int64) (int64, error) {
	c := counter{ID: id}
	err := s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		return tx.Select("value").Take(&c).Error
	}, readOnlySQL)
	return c.Value, err
}

// pgBunStore is bun.
type pgBunStore struct{ *bun.DB }

func openPgBun(_ context.Context, url string, conns int) (pgStore, error) {
	pool, err := openStdlib(url, conns, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return nil, err
	}
	return pgBunStore{bun.NewDB(pool, pgdialect.New())}, nil
}

func (s pgBunStore) update(ctx context.Context, id int64) (int64, error) {
	c := counter{ID: id}
	err := s.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error { return raise(ctx, tx, &c) })
	return c.Value, err
}

func (s pgBunStore) single(ctx context.Context, id int64) (int64, error) {
	c := counter{ID: id}
	err := raise(ctx, s, &c)
	return c.Value, err
}

func raise(ctx context.Context, db bun.IDB, c *counter) error {
	_, err := db.NewUpdate().Model(c).Set("value = value + 1").WherePK().Returning("value").Exec(ctx)
	return err
}

func (s pgBunStore) three(ctx context.Context, id int64) error {
	return s.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		c := counter{ID: id}
		if err := tx.NewSelect().Model(&c).Column("value").WherePK().Scan(ctx); err != nil {
			return err
		}
		if _, err := tx.NewUpdate().Model(&c).Set("value = value + 1").WherePK().Exec(ctx); err != nil {
			return err
		}
		_, err := tx.NewInsert().Model(&event{Counter: id, Value: c.Value}).Exec(ctx)
		return err
	})
}

func (s pgBunStore) read(ctx context.Context, id int64) (int64, error) {
	c := counter{ID: id}
	err := s.RunInTx(ctx, readOnlySQL, func(ctx context.Context, tx bun.Tx) error {
		return tx.NewSelect().Model(&c).Column("value").WherePK().Scan(ctx)
	})
	return c.Value, err
}

package main

import (
	"context"
	"database/sql"

	"github.com/jackc/pgx/v5"

	"github.com/tholedb/thole"
)

// pgTholeStore is thole.
type pgTholeStore struct{ *thole.DB }

func openPgThole(ctx context.Context, url string, conns int) (pgStore, error) {
	db, err := openPgDB(ctx, url, conns)
	return pgTholeStore{db}, err
}

func openPgDB(ctx context.Context, url string, conns int) (*thole.DB, error) {
	cfg, err := thole.ParseURL(url)
	if err != nil {
		return nil, err
	}
	cfg.Postgres.MaxConns = int32(conns)
	return thole.OpenConfig(ctx, cfg)
}

// openTholePgx is thole for code that is written for pgx.
func openTholePgx(ctx context.Context, url string, conns int) (pgStore, error) {
	db, err := openPgDB(ctx, url, conns)
	if err != nil {
		return nil, err
	}
	return pgxStore{db.Pgx(), func(ctx context.Context, how pgx.TxOptions, fn func(pgxQuerier) error) error {
		o := thole.SessionOptions{ReadOnly: how.AccessMode == pgx.ReadOnly}
		return db.WithSessionOptions(ctx, o, func(tx *thole.Tx) error { return fn(tx.Pgx()) })
	}, func() { _ = db.Close() }}, nil
}

func (s pgTholeStore) update(ctx context.Context, id int64) (int64, error) {
	return thole.WithSession(ctx, s.DB, func(tx *thole.Tx) (int64, error) {
		return thole.One[int64](ctx, tx, updateCounter, id)
	})
}

func (s pgTholeStore) three(ctx context.Context, id int64) error {
	return s.WithSession(ctx, func(tx *thole.Tx) error {
		value, err := thole.One[int64](ctx, tx, readCounter, id)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, addCounter, id); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, insertEvent, id, value)
		return err
	})
}

func (s pgTholeStore) read(ctx context.Context, id int64) (int64, error) {
	return thole.WithSessionOptions(ctx, s.DB, thole.SessionOptions{ReadOnly: true}, func(tx *thole.Tx) (int64, error) {
		return thole.One[int64](ctx, tx, readCounter, id)
	})
}

func (s pgTholeStore) single(ctx context.Context, id int64) (int64, error) {
	return thole.One[int64](ctx, s.DB, updateCounter, id)
}

// increment leaves it to thole to try again.
func (s pgTholeStore) increment(ctx context.Context, id int64) error {
	often := thole.SessionOptions{Isolation: sql.LevelSerializable, MaxAttempts: 10_000}
	return s.WithSessionOptions(ctx, often, func(tx *thole.Tx) error {
		value, err := thole.One[int64](ctx, tx, readCounter, id)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, writeCounter, id, value+1)
		return err
	})
}

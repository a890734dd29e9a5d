package main

import (
	"context"
	"errors"

	trmpgx "github.com/avito-tech/go-transaction-manager/drivers/pgxv5/v2"
	"github.com/avito-tech/go-transaction-manager/trm/v2/manager"
	"github.com/avito-tech/go-transaction-manager/trm/v2/settings"
	crdbpgx "github.com/cockroachdb/cockroach-go/v2/crdb/crdbpgxv5"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// pgxStore is pgx, with one way to run a transaction or another.
type pgxStore struct {
	db    pgxQuerier
	inTx  func(ctx context.Context, how pgx.TxOptions, fn func(pgxQuerier) error) error
	close func()
}

// pgxQuerier is what is needed of a pool or a transaction.
type pgxQuerier interface {
	Exec(ctx context.Context, query string, args ...any) (pgconn.CommandTag, error)
	QueryRow(ctx context.Context, query string, args ...any) pgx.Row
}

var readOnly = pgx.TxOptions{AccessMode: pgx.ReadOnly}

// openPgxPool opens a pool of as many connections.
func openPgxPool(ctx context.Context, url string, conns int, mode pgx.QueryExecMode) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	cfg.MaxConns = int32(conns)
	cfg.ConnConfig.DefaultQueryExecMode = mode
	return pgxpool.NewWithConfig(ctx, cfg)
}

func openPgx(ctx context.Context, url string, conns int) (pgStore, error) {
	return openByHand(ctx, url, conns, pgx.QueryExecModeCacheStatement)
}

func openExec(ctx context.Context, url string, conns int) (pgStore, error) {
	return openByHand(ctx, url, conns, pgx.QueryExecModeExec)
}

func openDescribe(ctx context.Context, url string, conns int) (pgStore, error) {
	return openByHand(ctx, url, conns, pgx.QueryExecModeCacheDescribe)
}

// openByHand runs transactions as programs do that have nothing for it.
func openByHand(ctx context.Context, url string, conns int, mode pgx.QueryExecMode) (pgStore, error) {
	pool, err := openPgxPool(ctx, url, conns, mode)
	return pgxStore{pool, func(ctx context.Context, how pgx.TxOptions, fn func(pgxQuerier) error) error {
		tx, err := pool.BeginTx(ctx, how)
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback(ctx) }()
		if err := fn(tx); err != nil {
			return err
		}
		return tx.Commit(ctx)
	}, pool.Close}, err
}

func openBeginFunc(ctx context.Context, url string, conns int) (pgStore, error) {
	pool, err := openPgxPool(ctx, url, conns, pgx.QueryExecModeCacheStatement)
	return pgxStore{pool, func(ctx context.Context, how pgx.TxOptions, fn func(pgxQuerier) error) error {
		return pgx.BeginTxFunc(ctx, pool, how, func(tx pgx.Tx) error { return fn(tx) })
	}, pool.Close}, err
}

func openAvito(ctx context.Context, url string, conns int) (pgStore, error) {
	pool, err := openPgxPool(ctx, url, conns, pgx.QueryExecModeCacheStatement)
	if err != nil {
		return nil, err
	}
	m, err := manager.New(trmpgx.NewDefaultFactory(pool))
	return pgxStore{pool, func(ctx context.Context, how pgx.TxOptions, fn func(pgxQuerier) error) error {
		s, err := trmpgx.NewSettings(settings.Must(), trmpgx.WithTxOptions(how))
		if err != nil {
			return err
		}
		return m.DoWithSettings(ctx, s, func(ctx context.Context) error {
			return fn(trmpgx.DefaultCtxGetter.DefaultTrOrDB(ctx, pool))
		})
	}, pool.Close}, err
}

func openCockroach(ctx context.Context, url string, conns int) (pgStore, error) {
	pool, err := openPgxPool(ctx, url, conns, pgx.QueryExecModeCacheStatement)
	return pgxStore{pool, func(ctx context.Context, how pgx.TxOptions, fn func(pgxQuerier) error) error {
		return crdbpgx.ExecuteTx(ctx, pool, how, func(tx pgx.Tx) error { return fn(tx) })
	}, pool.Close}, err
}

func (s pgxStore) update(ctx context.Context, id int64) (value int64, err error) {
	err = s.inTx(ctx, pgx.TxOptions{}, func(tx pgxQuerier) error {
		return tx.QueryRow(ctx, updateCounter, id).Scan(&value)
	})
	return value, err
}

func (s pgxStore) three(ctx context.Context, id int64) error {
	return s.inTx(ctx, pgx.TxOptions{}, func(tx pgxQuerier) error {
		var value int64
		if err := tx.QueryRow(ctx, readCounter, id).Scan(&value); err != nil {
			return err
		}
		return addEvent(ctx, tx, id, value)
	})
}

// addEvent is the rest of three.
func addEvent(ctx context.Context, tx pgxQuerier, id, value int64) error {
	if _, err := tx.Exec(ctx, addCounter, id); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, insertEvent, id, value)
	return err
}

func (s pgxStore) read(ctx context.Context, id int64) (value int64, err error) {
	err = s.inTx(ctx, readOnly, func(tx pgxQuerier) error {
		return tx.QueryRow(ctx, readCounter, id).Scan(&value)
	})
	return value, err
}

func (s pgxStore) single(ctx context.Context, id int64) (value int64, err error) {
	err = s.db.QueryRow(ctx, updateCounter, id).Scan(&value)
	return value, err
}

// increment tries again at once.
func (s pgxStore) increment(ctx context.Context, id int64) error {
	for {
		err := s.inTx(ctx, pgx.TxOptions{IsoLevel: pgx.Serializable}, func(tx pgxQuerier) error {
			var value int64
			if err := tx.QueryRow(ctx, readCounter, id).Scan(&value); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, writeCounter, id, value+1)
			return err
		})
		if !isSerialization(err) {
			return err
		}
	}
}

// isSerialization reports whether a new attempt can cure it.
func isSerialization(err error) bool {
	failed, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (failed.Code == "40001" || failed.Code == "40P01")
}

func (s pgxStore) Close() error {
	s.close()
	return nil
}

// batchStore is pgx, whose transactions begin together with their first
// statement.
type batchStore struct {
	pgxStore
	pool *pgxpool.Pool
}

func openBatch(ctx context.Context, url string, conns int) (pgStore, error) {
	pool, err := openPgxPool(ctx, url, conns, pgx.QueryExecModeCacheStatement)
	return batchStore{pgxStore{db: pool, close: pool.Close}, pool}, err
}

func (s batchStore) update(ctx context.Context, id int64) (value int64, err error) {
	return s.first(ctx, pgx.TxOptions{}, updateCounter, id, func(pgx.Tx, int64) error { return nil })
}

func (s batchStore) three(ctx context.Context, id int64) error {
	_, err := s.first(ctx, pgx.TxOptions{}, readCounter, id, func(tx pgx.Tx, value int64) error {
		return addEvent(ctx, tx, id, value)
	})
	return err
}

func (s batchStore) read(ctx context.Context, id int64) (int64, error) {
	return s.first(ctx, readOnly, readCounter, id, func(pgx.Tx, int64) error { return nil })
}

// first is a transaction that begins with a query and goes on with rest.
func (s batchStore) first(ctx context.Context, how pgx.TxOptions, query string, id int64, rest func(tx pgx.Tx, value int64) error) (value int64, err error) {
	var b pgx.Batch
	b.BeginTx(how)
	b.Queue(query, id).QueryRow(func(row pgx.Row) error { return row.Scan(&value) })
	results := s.pool.SendBatch(ctx, &b)
	tx := results.Tx()
	defer func() { _ = tx.Rollback(ctx) }()
	if err := results.Close(); err != nil {
		return 0, err
	}
	if err := rest(tx, value); err != nil {
		return 0, err
	}
	return value, tx.Commit(ctx)
}

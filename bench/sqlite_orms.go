package main

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"time"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/sqlitedialect"
	"gorm.io/driver/sqlite"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
)

// batch is how many rows the ORMs write in one statement.
const batch = 1000

// gormStore is gorm with PrepareStmt. It has to read on other connections than
// the one that writes: a statement that is prepared while all connections are in
// transactions that need it hangs (https://github.com/go-gorm/gorm/issues/7465).
type gormStore struct {
	sqlStore
	write, readOnly *gorm.DB
}

func openGorm(_ context.Context, path string, synchronous synchronous) (store, error) {
	pools, err := openMattnPools(mattn(path, synchronous))
	if err != nil {
		return nil, err
	}
	write, err := gormOn(pools.writer)
	if err != nil {
		return nil, errors.Join(err, pools.Close())
	}
	readOnly, err := gormOn(pools.reader)
	if err != nil {
		return nil, errors.Join(err, pools.Close())
	}
	return gormStore{pools, write, readOnly}, nil
}

func gormOn(pool *sql.DB) (*gorm.DB, error) {
	return gorm.Open(sqlite.Dialector{Conn: pool}, &gorm.Config{PrepareStmt: true, Logger: logger.Discard})
}

func (s gormStore) insert(ctx context.Context, value float64, hold time.Duration) error {
	return s.write.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		if err := tx.Create(&reading{Sensor: sensor, Value: value}).Error; err != nil {
			return err
		}
		time.Sleep(hold)
		return nil
	})
}

func (s gormStore) increment(ctx context.Context, id int64) error {
	return s.write.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		r := reading{ID: id}
		if err := tx.Select("value").Take(&r).Error; err != nil {
			return err
		}
		return tx.Model(&r).Update("value", r.Value+1).Error
	})
}

func (s gormStore) read(ctx context.Context, id int64) (float64, error) {
	r := reading{ID: id}
	err := s.readOnly.WithContext(ctx).Select("value").Take(&r).Error
	return r.Value, err
}

func (s gormStore) insertAll(ctx context.Context, rows []reading) error {
	return s.write.WithContext(ctx).Transaction(func(tx *gorm.DB) error { return tx.CreateInBatches(rows, batch).Error })
}

// bunStore is bun.
type bunStore struct {
	sqlStore
	db *bun.DB
}

func openBun(_ context.Context, path string, synchronous synchronous) (store, error) {
	pool, err := one(sql.Open("sqlite", modernc(path, synchronous)))
	if err != nil {
		return nil, err
	}
	return bunStore{sqlStore{pool, pool}, bun.NewDB(pool, sqlitedialect.New())}, nil
}

func (s bunStore) insert(ctx context.Context, value float64, hold time.Duration) error {
	return s.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if _, err := tx.NewInsert().Model(&reading{Sensor: sensor, Value: value}).Exec(ctx); err != nil {
			return err
		}
		time.Sleep(hold)
		return nil
	})
}

func (s bunStore) increment(ctx context.Context, id int64) error {
	return s.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		r := reading{ID: id}
		if err := tx.NewSelect().Model(&r).Column("value").WherePK().Scan(ctx); err != nil {
			return err
		}
		r.Value++
		_, err := tx.NewUpdate().Model(&r).Column("value").WherePK().Exec(ctx)
		return err
	})
}

func (s bunStore) read(ctx context.Context, id int64) (float64, error) {
	r := reading{ID: id}
	err := s.db.NewSelect().Model(&r).Column("value").WherePK().Scan(ctx)
	return r.Value, err
}

func (s bunStore) insertAll(ctx context.Context, rows []reading) error {
	return s.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		for some := range slices.Chunk(rows, batch) {
			if _, err := tx.NewInsert().Model(&some).Exec(ctx); err != nil {
				return err
			}
		}
		return nil
	})
}

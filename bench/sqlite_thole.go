package main

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/tholedb/thole"
)

// tholeStore is thole.
type tholeStore struct{ *thole.DB }

func openThole(ctx context.Context, path string, synchronous synchronous) (store, error) {
	db, err := thole.Open(ctx, fmt.Sprintf("sqlite:///%s?synchronous=%s&busy_timeout=%s", url.PathEscape(path), synchronous, busyTimeout))
	return tholeStore{db}, err
}

func (s tholeStore) insert(ctx context.Context, value float64, hold time.Duration) error {
	return s.WithSession(ctx, func(tx *thole.Tx) error {
		if _, err := tx.ExecContext(ctx, insertOne, sensor, value); err != nil {
			return err
		}
		time.Sleep(hold)
		return nil
	})
}

func (s tholeStore) increment(ctx context.Context, id int64) error {
	return s.WithSession(ctx, func(tx *thole.Tx) error {
		var value float64
		if err := tx.GetContext(ctx, &value, readOne, id); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, updateOne, value+1, id)
		return err
	})
}

func (s tholeStore) read(ctx context.Context, id int64) (value float64, err error) {
	err = s.GetContext(ctx, &value, readOne, id)
	return value, err
}

func (s tholeStore) insertAll(ctx context.Context, rows []reading) error {
	return s.WithSession(ctx, func(tx *thole.Tx) error { return thole.InsertAll(ctx, tx, rows) })
}

func (s tholeStore) ask(ctx context.Context, pragma string) (answer string, err error) {
	err = s.WithSession(ctx, func(tx *thole.Tx) error { return tx.GetContext(ctx, &answer, "pragma "+pragma) })
	return answer, err
}

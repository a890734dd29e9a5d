package main

import (
	"context"
	"errors"
	"time"

	zombiezen "zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// zombiezenStore is zombiezen's SQLite, which is modernc's without database/sql.
type zombiezenStore struct{ writer, reader *sqlitex.Pool }

func openZombiezen(_ context.Context, path string, synchronous synchronous) (store, error) {
	writer, err := openPool(path, synchronous, 1)
	if err != nil {
		return nil, err
	}
	reader, err := openPool(path, synchronous, readers())
	if err != nil {
		return nil, errors.Join(err, writer.Close())
	}
	return zombiezenStore{writer, reader}, nil
}

// openPool opens connections, which are in WAL mode unless it is told otherwise.
func openPool(path string, synchronous synchronous, size int) (*sqlitex.Pool, error) {
	return sqlitex.NewPool(path, sqlitex.PoolOptions{PoolSize: size, PrepareConn: func(conn *zombiezen.Conn) error {
		conn.SetBusyTimeout(busyTimeout)
		if err := sqlitex.ExecuteTransient(conn, "pragma foreign_keys = on", nil); err != nil {
			return err
		}
		return sqlitex.ExecuteTransient(conn, "pragma synchronous = "+synchronous.String(), nil)
	}})
}

func (s zombiezenStore) insert(ctx context.Context, value float64, hold time.Duration) error {
	return s.inTx(ctx, func(conn *zombiezen.Conn) error {
		err := sqlitex.Execute(conn, insertOne, &sqlitex.ExecOptions{Args: []any{sensor, value}})
		if err != nil {
			return err
		}
		time.Sleep(hold)
		return nil
	})
}

func (s zombiezenStore) increment(ctx context.Context, id int64) error {
	return s.inTx(ctx, func(conn *zombiezen.Conn) error {
		value, err := readValue(conn, id)
		if err != nil {
			return err
		}
		return sqlitex.Execute(conn, updateOne, &sqlitex.ExecOptions{Args: []any{value + 1, id}})
	})
}

func (s zombiezenStore) read(ctx context.Context, id int64) (float64, error) {
	conn, err := s.reader.Take(ctx)
	if err != nil {
		return 0, err
	}
	defer s.reader.Put(conn)
	return readValue(conn, id)
}

func readValue(conn *zombiezen.Conn, id int64) (float64, error) {
	stmt, err := conn.Prepare(readOne)
	if err != nil {
		return 0, err
	}
	stmt.BindInt64(1, id)
	return sqlitex.ResultFloat(stmt)
}

func (s zombiezenStore) insertAll(ctx context.Context, rows []reading) error {
	return s.inTx(ctx, func(conn *zombiezen.Conn) error {
		stmt, err := conn.Prepare(inserted + "(?, ?, ?, ?)")
		if err != nil {
			return err
		}
		for _, r := range rows {
			if err := insertRow(stmt, r); err != nil {
				return err
			}
		}
		return nil
	})
}

func insertRow(stmt *zombiezen.Stmt, r reading) error {
	stmt.BindInt64(1, r.ID)
	stmt.BindText(2, r.Sensor)
	stmt.BindFloat(3, r.Value)
	if r.Note == nil {
		stmt.BindNull(4)
	} else {
		stmt.BindText(4, *r.Note)
	}
	if _, err := stmt.Step(); err != nil {
		return err
	}
	return stmt.Reset()
}

func (s zombiezenStore) ask(ctx context.Context, pragma string) (answer string, err error) {
	conn, err := s.writer.Take(ctx)
	if err != nil {
		return "", err
	}
	defer s.writer.Put(conn)
	err = sqlitex.Execute(conn, "pragma "+pragma, &sqlitex.ExecOptions{ResultFunc: func(stmt *zombiezen.Stmt) error {
		answer = stmt.ColumnText(0)
		return nil
	}})
	return answer, err
}

func (s zombiezenStore) inTx(ctx context.Context, fn func(conn *zombiezen.Conn) error) (err error) {
	conn, err := s.writer.Take(ctx)
	if err != nil {
		return err
	}
	defer s.writer.Put(conn)
	end, err := sqlitex.ImmediateTransaction(conn)
	if err != nil {
		return err
	}
	defer end(&err)
	return fn(conn)
}

func (s zombiezenStore) Close() error { return errors.Join(s.writer.Close(), s.reader.Close()) }

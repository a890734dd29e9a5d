package postgres

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tholedb/thole/internal/engine"
)

// migrationLock is the key of the advisory lock that a migration holds for its
// transaction: "thole" in ASCII.
const migrationLock int64 = 0x74686f6c65

// migrationPoll is how often a migration asks whether it is its turn. A blocking
// wait inside the transaction would hold a snapshot for CREATE INDEX
// CONCURRENTLY to wait for.
const migrationPoll = 50 * time.Millisecond

// schemaMigrations makes golang-migrate's table, and keeps golang-migrate itself
// out of it until the transaction ends.
const schemaMigrations = `
create table if not exists schema_migrations (version bigint not null primary key, dirty boolean not null);
lock table schema_migrations in share row exclusive mode`

// BeginMigration implements [engine.Engine].
func (e *Engine) BeginMigration(ctx context.Context) (engine.Session, error) {
	begun, err := e.Begin(ctx, engine.Options{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return nil, fmt.Errorf("begin migration: %w", err)
	}
	s := begun.(*session)
	err = s.begin(ctx)
	if err == nil {
		s.conn.once = true // a migration may leave settings behind, as pg_dump's output does
		err = s.lockMigrations(ctx)
	}
	if err == nil {
		err = s.conn.say(ctx, schemaMigrations)
	}
	switch {
	case err == nil && e.pooled:
		return pooledMigration{s}, nil
	case err == nil:
		return s, nil
	}
	cause := fmt.Errorf("begin migration: %w", s.Failed(ctx, err))
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	if _, err := s.Rollback(ctx, cause); err != nil {
		return nil, err
	}
	return nil, cause
}

// lockMigrations waits for the advisory lock.
func (s *session) lockMigrations(ctx context.Context) error {
	for {
		var mine bool
		err := s.conn.pgx.QueryRow(ctx, "select pg_try_advisory_xact_lock($1)", pgx.QueryExecModeExec, migrationLock).Scan(&mine)
		if mine || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(migrationPoll):
		}
	}
}

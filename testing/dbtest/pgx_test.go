package dbtest_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tholedb/thole"
)

// What is written for pgx runs in a sandbox, in a session and outside.
func TestPgx(t *testing.T) {
	t.Parallel()
	db := onPostgres().Sandbox(t)
	ctx := t.Context()
	fill := func(on thole.Pgx, name string) error {
		if _, err := on.Exec(ctx, "insert into item (name) values ($1)", name); err != nil {
			return err
		}
		if _, err := on.CopyFrom(ctx, pgx.Identifier{"item"}, []string{"name"}, pgx.CopyFromRows([][]any{{name + " copied"}})); err != nil {
			return err
		}
		batch := new(pgx.Batch)
		batch.Queue("insert into item (name) values ($1)", name+" in a batch")
		batch.Queue("select count(*) from item")
		if err := on.SendBatch(ctx, batch).Close(); err != nil {
			return err
		}
		return pgx.BeginFunc(ctx, on, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "insert into item (name) values ($1)", name+" in a transaction")
			return err
		})
	}
	if err := fill(db.Pgx(), "alone"); err != nil {
		t.Fatal(err)
	}
	err := db.WithSession(ctx, func(tx *thole.Tx) error { return fill(tx.Pgx(), "in a session") })
	if err != nil {
		t.Fatal(err)
	}
	err = db.WithSession(ctx, func(tx *thole.Tx) error { return errors.Join(fill(tx.Pgx(), "undone"), errors.ErrUnsupported) })
	if !errors.Is(err, errors.ErrUnsupported) || errors.Is(err, thole.ErrTxAborted) {
		t.Error(err)
	}
	if err := fill(db.Pgx(), "alone"); !errors.Is(err, thole.ErrUnique) {
		t.Errorf("the same again: got %v, want ErrUnique", err)
	}
	rows, err := db.Pgx().Query(ctx, "select name from item order by id")
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(got) != 8 {
		t.Errorf("got %q, %v, want 8 names", got, err)
	}
	bad := new(pgx.Batch)
	bad.Queue("insert into item (name) values ('lost')")
	bad.Queue("insert into item (name) values ('lost')")
	if err := db.Pgx().SendBatch(ctx, bad).Close(); !errors.Is(err, thole.ErrUnique) {
		t.Errorf("a batch that fails: got %v, want ErrUnique", err)
	}
	if n := len(names(t, db)); n != 8 {
		t.Errorf("got %d names after a batch that failed, want 8", n)
	}
	short, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := db.Pgx().Exec(short, "select 1"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if err := add(ctx, db, "last"); err != nil {
		t.Error(err)
	}
}

package main

import (
	"context"
	"testing"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/testing/dbtest"
)

// The tests with dbtest. All three share one Config, as those of a package do.

func testsWith(g grounds, test func(tb testing.TB, c dbtest.Config, insert string)) *suite {
	c := dbtest.Config{Engines: []thole.Engine{g.engine}, Migrations: g.migrations}
	insert := either(g.engine == thole.SQLite, insertItemSQLite, insertItemPostgres)
	return &suite{test: func(tb testing.TB) { test(tb, c, insert) }, settle: g.settle}
}

func openSessionTests(_ context.Context, g grounds) (*suite, error) {
	return testsWith(g, func(tb testing.TB, c dbtest.Config, insert string) {
		_, err := c.Session(tb).ExecContext(tb.Context(), insert, itemName, itemQuantity)
		check(tb, err)
	}), nil
}

func openSandboxTests(_ context.Context, g grounds) (*suite, error) {
	return testsWith(g, func(tb testing.TB, c dbtest.Config, insert string) {
		check(tb, insertItem(tb.Context(), c.Sandbox(tb), insert))
	}), nil
}

func openDatabaseTests(_ context.Context, g grounds) (*suite, error) {
	return testsWith(g, func(tb testing.TB, c dbtest.Config, insert string) {
		check(tb, insertItem(tb.Context(), c.Database(tb), insert))
	}), nil
}

// insertItem is the code under test.
func insertItem(ctx context.Context, db *thole.DB, insert string) error {
	return db.WithSession(ctx, func(tx *thole.Tx) error {
		_, err := tx.ExecContext(ctx, insert, itemName, itemQuantity)
		return err
	})
}

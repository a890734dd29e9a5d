package thole_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/testdb"
	"github.com/tholedb/thole/testing/dbtest"
)

// onPostgres opens a database of the test's own by a URL, with a change to its
// configuration.
func onPostgres(t *testing.T, url string, change func(*thole.Config)) *thole.DB {
	t.Helper()
	cfg, err := thole.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	change(cfg)
	db, err := thole.OpenConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func single(cfg *thole.Config) { cfg.Postgres.MaxConns = 1 }

func mustRun(t *testing.T, q thole.Querier, statements ...string) {
	t.Helper()
	for _, text := range statements {
		if _, err := q.ExecContext(t.Context(), text); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
}

// TestStatementsSurviveSchemaChanges runs statements that the connection knows
// after the session itself has changed what they mean.
func TestStatementsSurviveSchemaChanges(t *testing.T) {
	t.Parallel()
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		mustRun(t, db, "create table t (n int)", "insert into t values (1)")
		errUndone := errors.New("undone")
		for round, end := range []error{errUndone, nil} {
			err := db.WithSession(t.Context(), func(tx *thole.Tx) error {
				for i := range 3 {
					rows, err := thole.All[map[string]any](t.Context(), tx, "select * from t where n = ?", 1)
					if err != nil || len(rows) != 1 || len(rows[0]) != i+1 {
						return fmt.Errorf("round %d, select %d: got %v, error %w", round, i, rows, err)
					}
					mustRun(t, tx, fmt.Sprintf("alter table t add column c%d int", i))
				}
				return end
			})
			if !errors.Is(err, end) {
				t.Error(err)
			}
		}
	})
}

// TestTemporaryTableShadows inserts into the table that a name means by now.
func TestTemporaryTableShadows(t *testing.T) {
	t.Parallel()
	db := onPostgres(t, testdb.Postgres(t), single)
	mustRun(t, db, "create table t (n int)")
	for i := range 3 {
		for _, create := range []string{"create temp table t (n int) on commit drop", "create temp table t on commit drop as select 0 as n"} {
			err := db.WithSession(t.Context(), func(tx *thole.Tx) error {
				const insert = "insert into t values (?)"
				if _, err := tx.ExecContext(t.Context(), insert, i); err != nil {
					return err
				}
				mustRun(t, tx, create)
				_, err := tx.ExecContext(t.Context(), insert, 100+i)
				return err
			})
			if err != nil {
				t.Error(err)
			}
		}
	}
	got, err := thole.All[int](t.Context(), db, "select n from public.t order by n")
	if want := []int{0, 0, 1, 1, 2, 2}; err != nil || !slices.Equal(got, want) {
		t.Errorf("rows: got %v, error %v, want %v", got, err, want)
	}
}

// TestForgottenStatements has the server forget what was prepared: the session
// that says so goes on, and the first statement of another is prepared again.
func TestForgottenStatements(t *testing.T) {
	t.Parallel()
	db := onPostgres(t, testdb.Postgres(t), single)
	mustRun(t, db, "create table t (n int)")
	add := func(forget string) func(tx *thole.Tx) error {
		return func(tx *thole.Tx) error {
			for n := range 2 {
				if _, err := tx.ExecContext(t.Context(), "insert into t values (?)", n); err != nil {
					return err
				}
				if forget != "" {
					mustRun(t, tx, forget)
				}
			}
			return nil
		}
	}
	for _, fn := range []func(*thole.Tx) error{add(""), add("deallocate all"), add("do $$ begin execute 'deallocate all'; end $$"), add("")} {
		if err := db.WithSession(t.Context(), fn); err != nil {
			t.Error(err)
		}
		if _, err := db.ExecContext(t.Context(), "insert into t values (?)", 2); err != nil {
			t.Error(err)
		}
	}
	if got, err := thole.One[int](t.Context(), db, "select count(*) from t"); err != nil || got != 12 {
		t.Errorf("rows: got %d, error %v, want 12", got, err)
	}
}

// TestUnnoticedPooler tells thole that there is none: a statement may fail, and is
// never another one that somebody else has prepared.
func TestUnnoticedPooler(t *testing.T) {
	t.Parallel()
	db := onPostgres(t, testdb.PgBouncer(t)+"&pooler=none", func(cfg *thole.Config) { cfg.Postgres.MaxConns = 8 })
	var all sync.WaitGroup
	var right atomic.Int32
	for client := range 8 {
		all.Go(func() {
			for i := range 60 {
				k := (client*7 + i) % 5
				got, err := thole.One[int](t.Context(), db, fmt.Sprintf("select ?::int * 100 + %d", k), 1)
				if err == nil && got != 100+k {
					t.Errorf("got %d, want %d", got, 100+k)
				}
				if err == nil {
					right.Add(1)
				}
			}
		})
	}
	all.Wait()
	if right.Load() == 0 {
		t.Error("no statement ran")
	}
}

// TestColumnsAreTheCallers changes the names that rows gave out.
func TestColumnsAreTheCallers(t *testing.T) {
	t.Parallel()
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		const query = "select 1 as a, 2 as b where 1 = ?"
		for range 2 {
			rows, err := db.QueryContext(t.Context(), query, 1)
			if err != nil {
				t.Fatal(err)
			}
			columns, err := rows.Columns()
			columns[0], columns[1] = "b", "a"
			if err := errors.Join(err, rows.Close(), rows.Err()); err != nil { //nolint:sqlclosecheck // looked at
				t.Error(err)
			}
		}
		type row struct{ A, B int }
		if got, err := thole.One[row](t.Context(), db, query, 1); err != nil || got != (row{1, 2}) {
			t.Errorf("got %v, error %v, want {1 2}", got, err)
		}
	})
}

type panics struct{}

func (panics) Value() (driver.Value, error) { panic("of a Valuer") }

// counted counts statements that began and ended.
type counted struct{ began, ended int }

func (c *counted) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	c.began++
	return ctx
}

func (c *counted) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) { c.ended++ }

// TestPanickingArgument has an argument panic while it is encoded, also between
// the two flights of a statement that is not known: the connection goes on, and
// so does the session around the one that panicked.
func TestPanickingArgument(t *testing.T) {
	t.Parallel()
	tracer := new(counted)
	db := onPostgres(t, testdb.Postgres(t), func(cfg *thole.Config) {
		single(cfg)
		cfg.Postgres.ConnConfig.Tracer = tracer
	})
	mustRun(t, db, "create table t (n int)")
	for _, text := range []string{"insert into t values (?)", "insert into t values (?) -- once more", "insert into t values (?)"} {
		err := db.WithSession(t.Context(), func(tx *thole.Tx) error {
			mustRun(t, tx, "insert into t values (1)")
			func() {
				defer func() {
					if v := recover(); v != "of a Valuer" {
						t.Errorf("recovered %v", v)
					}
				}()
				_ = tx.WithSession(tx.Context(), func(tx *thole.Tx) error {
					_, err := tx.ExecContext(t.Context(), text, panics{})
					return err
				})
			}()
			mustRun(t, tx, "insert into t values (2)")
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	if got, err := thole.One[int](t.Context(), db, "select count(*) from t"); err != nil || got != 6 {
		t.Errorf("rows: got %d, error %v, want 6", got, err)
	}
	if n := db.Pool().Stat().NewConnsCount(); n != 1 {
		t.Errorf("connections made: got %d, want 1", n)
	}
	if tracer.began == 0 || tracer.began != tracer.ended {
		t.Errorf("traced: %d statements began and %d ended", tracer.began, tracer.ended)
	}
}

// TestReadOnlyStays tries what lets a transaction of PostgreSQL 15 write again.
func TestReadOnlyStays(t *testing.T) {
	t.Parallel()
	db := onPostgres(t, testdb.Postgres(t), single)
	mustRun(t, db, "create table t (n int)")
	readOnly := thole.SessionOptions{ReadOnly: true}
	for _, text := range []string{
		"reset transaction_read_only", "set Transaction_Read_Only to default", "select 1; reset transaction_read_only",
		"set transaction read write", "set local transaction_read_only = off", "select set_config('transaction_read_only', 'off', true)",
	} {
		write := func(tx *thole.Tx) error {
			_, _ = tx.ExecContext(t.Context(), text)
			_, err := tx.ExecContext(t.Context(), "insert into t values (1)")
			return err
		}
		if err := db.WithSessionOptions(t.Context(), readOnly, write); err == nil {
			t.Errorf("%s: wrote in a read-only session", text)
		}
		err := db.WithSession(t.Context(), func(tx *thole.Tx) error { return tx.WithSessionOptions(t.Context(), readOnly, write) })
		if err == nil {
			t.Errorf("%s: wrote in a nested read-only session", text)
		}
		if strings.Contains(text, ";") {
			continue // the protocol of these takes one
		}
		for name, run := range map[string]func(tx pgx.Tx){
			"Exec":      func(tx pgx.Tx) { _, _ = tx.Exec(t.Context(), text, pgx.QueryExecModeExec) },
			"SendBatch": func(tx pgx.Tx) { _ = tx.SendBatch(t.Context(), queued(text)).Close() },
		} {
			err := db.WithSessionOptions(t.Context(), readOnly, func(tx *thole.Tx) error {
				run(tx.Pgx())
				_, err := tx.ExecContext(t.Context(), "insert into t values (1)")
				return err
			})
			if err == nil {
				t.Errorf("%s by pgx's %s: wrote in a read-only session", text, name)
			}
		}
	}
	if got, err := thole.One[int](t.Context(), db, "select count(*) from t"); err != nil || got != 0 {
		t.Errorf("rows: got %d, error %v, want none", got, err)
	}
}

// TestSearchPathsAreApart runs the same text in sessions whose tables are of
// different types, and in one that changes its path.
func TestSearchPathsAreApart(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"cache_statement", "cache_describe", "exec"} {
		db := onPostgres(t, testdb.Postgres(t)+"&default_query_exec_mode="+mode, single)
		mustRun(t, db, "create schema a", "create schema b", "create table a.t (v int)", "create table b.t (v text)")
		add := func(tx *thole.Tx) error {
			_, err := tx.ExecContext(t.Context(), "insert into t values (?)", "0042")
			return err
		}
		for range 2 {
			for _, path := range []string{"a", "b"} {
				opts := thole.SessionOptions{Settings: map[string]string{"search_path": path}}
				err := db.WithSessionOptions(t.Context(), opts, func(tx *thole.Tx) error {
					mustRun(t, tx, "select 1")
					return add(tx)
				})
				if err != nil {
					t.Errorf("%s: %s: %v", mode, path, err)
				}
			}
			err := db.WithSession(t.Context(), func(tx *thole.Tx) error {
				mustRun(t, tx, "set local search_path = a")
				err := add(tx)
				mustRun(t, tx, "select set_config('search_path', 'b', true)")
				return errors.Join(err, add(tx))
			})
			if err != nil {
				t.Errorf("%s: %v", mode, err)
			}
		}
		got, err := thole.All[string](t.Context(), db, "select v::text from a.t union all select v from b.t order by 1")
		if want := []string{"0042", "0042", "0042", "0042", "42", "42", "42", "42"}; err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: got %q, error %v, want %q", mode, got, err, want)
		}
	}
}

package thole_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/testdb"
	"github.com/tholedb/thole/testing/dbtest"
)

// onPgx runs a test on a database with a table, and behind a pooler too.
func onPgx(t *testing.T, test func(t *testing.T, db *thole.DB)) {
	t.Helper()
	for name, url := range map[string]func(testing.TB) string{"direct": testdb.Postgres, "pgbouncer": testdb.PgBouncer} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := onPostgres(t, url(t), func(*thole.Config) {})
			mustRun(t, db, "create table t (id int primary key, note text)")
			test(t, db)
		})
	}
}

func wantIDs(t *testing.T, db *thole.DB, want ...int) {
	t.Helper()
	got, err := thole.All[int](t.Context(), db, "select id from t order by id")
	if err != nil || !slices.Equal(got, want) && len(got)+len(want) > 0 {
		t.Errorf("rows: got %v, error %v, want %v", got, err, want)
	}
}

type note struct {
	ID   int
	Note *string
}

// TestPgx uses a session, and the database, as code that is written for pgx does.
func TestPgx(t *testing.T) {
	t.Parallel()
	onPgx(t, func(t *testing.T, db *thole.DB) {
		ctx := t.Context()
		err := db.WithSession(ctx, func(tx *thole.Tx) error {
			usePgx(t, tx.Pgx(), 1)
			usePgx(t, db.Pgx(), 100, tx.Context())
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		usePgx(t, db.Pgx(), 200)
		wantIDs(t, db, 1, 2, 3, 4, 5, 6, 7, 100, 101, 102, 103, 104, 105, 106, 200, 201, 202, 203, 204, 205, 206)
	})
}

// usePgx adds seven rows from an id on, in every way.
func usePgx(t *testing.T, db thole.Pgx, id int, within ...context.Context) {
	t.Helper()
	ctx := append(within, t.Context())[0]
	tag, err := db.Exec(ctx, "insert into t values ($1, $2)", id, "one")
	if err != nil || tag.String() != "INSERT 0 1" {
		t.Errorf("Exec: got %v, error %v", tag, err)
	}
	if _, err := db.Exec(ctx, fmt.Sprintf("insert into t values (%d); insert into t values (%d)", id+1, id+2)); err != nil {
		t.Errorf("Exec of two: %v", err)
	}
	var got int
	if err := db.QueryRow(ctx, "insert into t values (@id) returning id", pgx.NamedArgs{"id": id + 3}).Scan(&got); err != nil || got != id+3 {
		t.Errorf("QueryRow: got %d, error %v", got, err)
	}
	if n, err := db.CopyFrom(ctx, pgx.Identifier{"t"}, []string{"id"}, pgx.CopyFromRows([][]any{{id + 4}})); err != nil || n != 1 {
		t.Errorf("CopyFrom: got %d, error %v", n, err)
	}
	batch := new(pgx.Batch)
	batch.Queue("insert into t values ($1)", id+5)
	batch.Queue("select note from t where id = $1", id).QueryRow(func(row pgx.Row) error {
		var note string
		err := row.Scan(&note)
		if note != "one" {
			t.Errorf("batch: got %q", note)
		}
		return err
	})
	if err := db.SendBatch(ctx, batch).Close(); err != nil {
		t.Errorf("SendBatch: %v", err)
	}
	rows, _ := db.Query(ctx, "select id, note from t where id between $1 and $2 order by id", id, id+3)
	notes, err := pgx.CollectRows(rows, pgx.RowToStructByName[note])
	if err != nil || len(notes) != 4 || notes[0].ID != id || *notes[0].Note != "one" || notes[1].Note != nil {
		t.Errorf("Query: got %v, error %v", notes, err)
	}
	rows, _ = db.Query(ctx, "select id, note, now(), array[1,2] from t where id = $1", pgx.QueryExecModeExec, id)
	if values, err := pgx.CollectOneRow(rows, pgx.RowToMap); err != nil || values["note"] != "one" {
		t.Errorf("Query in another mode: got %v, error %v", values, err)
	}
	if err := db.QueryRow(ctx, "select 1 from t where id = -1").Scan(new(int)); !errors.Is(err, pgx.ErrNoRows) {
		t.Errorf("no row: got error %v", err)
	}
	useNestedPgx(t, ctx, db, id+6)
}

// useNestedPgx keeps one transaction of two.
func useNestedPgx(t *testing.T, ctx context.Context, db thole.Pgx, id int) {
	t.Helper()
	for _, keep := range []bool{false, true} {
		err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "insert into t values ($1)", id); err != nil {
				return err
			}
			if !keep {
				return io.EOF
			}
			return nil
		})
		if keep == (err != nil) {
			t.Errorf("BeginFunc: got error %v, want one: %t", err, !keep)
		}
	}
}

// queued is a batch of the texts.
func queued(texts ...string) *pgx.Batch {
	batch := new(pgx.Batch)
	for _, text := range texts {
		batch.Queue(text)
	}
	return batch
}

// TestPgxBeginTakesDefaults opens a nested session where Config.Session forbids it.
func TestPgxBeginTakesDefaults(t *testing.T) {
	t.Parallel()
	db := onPostgres(t, testdb.Postgres(t), func(cfg *thole.Config) { cfg.Session.Nested = thole.NestedForbidden })
	err := db.WithSession(t.Context(), func(tx *thole.Tx) error {
		_, err := tx.Pgx().Begin(t.Context())
		return err
	})
	if !errors.Is(err, thole.ErrNested) {
		t.Errorf("got error %v, want ErrNested", err)
	}
}

// TestPgxNamesCaller has pgx's BeginFunc open a nested session: the message names
// the place in the program.
func TestPgxNamesCaller(t *testing.T) {
	t.Parallel()
	db := onPostgres(t, testdb.Postgres(t), single)
	ctx := t.Context()
	err := db.WithSession(ctx, func(tx *thole.Tx) error {
		return pgx.BeginFunc(ctx, tx.Pgx(), func(pgx.Tx) error { _, err := tx.ExecContext(ctx, "select 1"); return err })
	})
	if !errors.Is(err, thole.ErrNested) || !strings.Contains(err.Error(), "/pgx_test.go:") {
		t.Errorf("got error %v, want ErrNested with the place of BeginFunc", err)
	}
}

// TestPgxFails has statements fail: the error is thole's, and pgx's too, and the
// session is not kept.
func TestPgxFails(t *testing.T) {
	t.Parallel()
	onPgx(t, func(t *testing.T, db *thole.DB) {
		ctx := t.Context()
		mustRun(t, db, "insert into t values (1)")
		for name, fail := range map[string]func(db thole.Pgx) error{
			"Exec": func(db thole.Pgx) error { _, err := db.Exec(ctx, "insert into t values ($1)", 1); return err },
			"QueryRow": func(db thole.Pgx) error {
				return db.QueryRow(ctx, "insert into t values (1) returning id").Scan(new(int))
			},
			"CopyFrom": func(db thole.Pgx) error {
				_, err := db.CopyFrom(ctx, pgx.Identifier{"t"}, []string{"id"}, pgx.CopyFromRows([][]any{{3}, {1}}))
				return err
			},
			"SendBatch": func(db thole.Pgx) error {
				batch := new(pgx.Batch)
				batch.Queue("insert into t values (2)")
				batch.Queue("insert into t values (1)")
				return db.SendBatch(ctx, batch).Close()
			},
			"Begin": func(db thole.Pgx) error {
				return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error { _, err := tx.Exec(ctx, "insert into t values (1)"); return err })
			},
		} {
			want := func(err error) {
				t.Helper()
				if told, ok := errors.AsType[*pgconn.PgError](err); !ok || told.Code != "23505" || !errors.Is(err, thole.ErrUnique) {
					t.Errorf("%s: got error %v, want ErrUnique with pgx's own", name, err)
				}
			}
			want(fail(db.Pgx()))
			err := db.WithSession(ctx, func(tx *thole.Tx) error {
				mustRun(t, tx, "insert into t values (9)")
				want(fail(tx.Pgx()))
				return nil
			})
			if kept := name == "Begin"; kept != (err == nil) {
				t.Errorf("%s: the session ended with %v", name, err)
			}
			mustRun(t, db, "delete from t where id = 9")
			wantIDs(t, db, 1)
		}
	})
}

// TestPgxIsGuarded holds the handles to what holds of a Tx.
func TestPgxIsGuarded(t *testing.T) {
	t.Parallel()
	onPgx(t, func(t *testing.T, db *thole.DB) {
		ctx := t.Context()
		control := new(pgx.Batch)
		control.Queue("insert into t values (1)")
		control.Queue("commit")
		begins := new(pgx.Batch)
		begins.BeginTx(pgx.TxOptions{})
		begins.Queue("insert into t values (1)")
		for name, end := range map[string]func(pgx.Tx) error{
			"Commit":        func(tx pgx.Tx) error { return tx.Commit(ctx) },
			"Rollback":      func(tx pgx.Tx) error { return tx.Rollback(ctx) },
			"Exec":          func(tx pgx.Tx) error { _, err := tx.Exec(ctx, "commit"); return err },
			"Query":         func(tx pgx.Tx) error { _, err := tx.Query(ctx, "/* */ rollback"); return err }, //nolint:sqlclosecheck // has none
			"SendBatch":     func(tx pgx.Tx) error { return tx.SendBatch(ctx, control).Close() },
			"Batch.BeginTx": func(tx pgx.Tx) error { return tx.SendBatch(ctx, begins).Close() },
		} {
			err := db.WithSession(ctx, func(tx *thole.Tx) error {
				mustRun(t, tx, "insert into t values (7)")
				if err := end(tx.Pgx()); !errors.Is(err, thole.ErrTxControl) {
					t.Errorf("%s: got error %v, want ErrTxControl", name, err)
				}
				return nil
			})
			if !errors.Is(err, thole.ErrTxControl) || thole.OutcomeOf(err) != thole.RolledBack {
				t.Errorf("%s: the session ended with %v, outcome %v, want ErrTxControl, rolled back", name, err, thole.OutcomeOf(err))
			}
		}
		var late pgx.Tx
		var rows pgx.Rows
		var results pgx.BatchResults
		err := db.WithSession(ctx, func(tx *thole.Tx) (err error) {
			late = tx.Pgx()
			rows, err = late.Query(ctx, "select generate_series(1, 100000)") //nolint:sqlclosecheck // left open
			if err != nil || !rows.Next() {
				t.Errorf("no rows, error %v", err)
			}
			if _, err := tx.ExecContext(ctx, "insert into t values (8)"); !errors.Is(err, thole.ErrBusy) {
				t.Errorf("beside rows: got error %v, want ErrBusy", err)
			}
			return nil
		})
		if !errors.Is(err, thole.ErrRowsOpen) {
			t.Errorf("rows left open: got error %v, want ErrRowsOpen", err)
		}
		if rows.Next() || rows.Err() == nil && rows.Scan(new(int)) == nil {
			t.Error("rows go on after the session")
		}
		if _, err := late.Exec(ctx, "insert into t values (8)"); !errors.Is(err, thole.ErrTxDone) {
			t.Errorf("after the session: got error %v, want ErrTxDone", err)
		}
		err = db.WithSession(ctx, func(tx *thole.Tx) error {
			results = tx.Pgx().SendBatch(ctx, queued("select 1", "select 2"))
			return nil
		})
		if !errors.Is(err, thole.ErrRowsOpen) {
			t.Errorf("batch left open: got error %v, want ErrRowsOpen", err)
		}
		if _, err := results.Exec(); !errors.Is(err, thole.ErrTxDone) {
			t.Errorf("Exec of a batch after the session: got error %v, want ErrTxDone", err)
		}
		if err := results.QueryRow().Scan(new(int)); !errors.Is(err, thole.ErrTxDone) {
			t.Errorf("QueryRow of a batch after the session: got error %v, want ErrTxDone", err)
		}
		wantIDs(t, db)
	})
}

// TestPgxRowsEndWithTheirBatch reads on when another query has the connection.
func TestPgxRowsEndWithTheirBatch(t *testing.T) {
	t.Parallel()
	db := onPostgres(t, testdb.Postgres(t), single)
	ctx := t.Context()
	batch := new(pgx.Batch)
	batch.Queue("select generate_series(1, 5)")
	batch.Queue("select 1")
	results := db.Pgx().SendBatch(ctx, batch)
	rows, err := results.Query()
	if err != nil || !rows.Next() {
		t.Errorf("no rows, error %v", err)
	}
	if err := results.Close(); err != nil {
		t.Error(err)
	}
	other, err := db.Pgx().Query(ctx, "select 77 from generate_series(1, 5)")
	if err != nil {
		t.Fatal(err)
	}
	if rows.Next() {
		t.Error("rows go on when their batch has been closed")
	}
	if got, err := pgx.CollectRows(other, pgx.RowTo[int]); err != nil || len(got) != 5 {
		t.Errorf("the other query: got %v, error %v, want five", got, err)
	}
}

// TestPgxBeneath uses what thole can't look at, and ends the transaction there.
func TestPgxBeneath(t *testing.T) {
	t.Parallel()
	db := onPostgres(t, testdb.Postgres(t), single)
	ctx := t.Context()
	mustRun(t, db, "create table t (id int primary key)")
	err := db.WithSession(ctx, func(tx *thole.Tx) error {
		objects := tx.Pgx().LargeObjects()
		oid, err := objects.Create(ctx, 0)
		if err != nil {
			return err
		}
		object, err := objects.Open(ctx, oid, pgx.LargeObjectModeWrite)
		if err != nil {
			return err
		}
		if _, err := object.Write([]byte("hello")); err != nil {
			return err
		}
		if _, err := tx.Pgx().Prepare(ctx, "mine", "insert into t values ($1)"); err != nil {
			return err
		}
		if _, err := tx.Pgx().Conn().Exec(ctx, "mine", 1); err != nil {
			return err
		}
		if _, err := tx.Pgx().Exec(ctx, "mine", 2); err != nil {
			return err
		}
		rows, err := tx.Pgx().Query(ctx, "mine", 3)
		rows.Close()
		return errors.Join(err, rows.Err(), object.Close())
	})
	if err != nil {
		t.Error(err)
	}
	wantIDs(t, db, 1, 2, 3)
	for _, end := range []error{nil, io.EOF} {
		err := db.WithSession(ctx, func(tx *thole.Tx) error {
			if _, err := tx.Pgx().Conn().Exec(ctx, "commit"); err != nil {
				t.Error(err)
			}
			return end
		})
		if !errors.Is(err, thole.ErrTxControl) || thole.OutcomeOf(err) != thole.Unknown {
			t.Errorf("fn returned %v: got %v, outcome %v, want ErrTxControl, unknown", end, err, thole.OutcomeOf(err))
		}
	}
}

// brokenSource fails after a row.
type brokenSource struct{ rows int }

func (s *brokenSource) Next() bool             { s.rows++; return s.rows == 1 }
func (s *brokenSource) Values() ([]any, error) { return []any{s.rows}, nil }
func (s *brokenSource) Err() error             { return io.ErrUnexpectedEOF }

// TestPgxShowsNoValues has pgx fail with values that it quotes.
func TestPgxShowsNoValues(t *testing.T) {
	t.Parallel()
	onPgx(t, func(t *testing.T, db *thole.DB) {
		const secret = "4111111111111111"
		ctx := t.Context()
		for name, fail := range map[string]func() error{
			"CopyFrom": func() error {
				_, err := db.Pgx().CopyFrom(ctx, pgx.Identifier{"t"}, []string{"id"}, pgx.CopyFromRows([][]any{{secret + "x"}}))
				return err
			},
			"argument": func() error { _, err := db.Pgx().Exec(ctx, "insert into t values ($1)", secret+"x"); return err },
			"scan":     func() error { return db.Pgx().QueryRow(ctx, "select 411111111111111 * 10 + 1").Scan(new(int16)) },
			"scan of a batch": func() error {
				results := db.Pgx().SendBatch(ctx, queued("select 411111111111111 * 10 + 1"))
				defer func() { _ = results.Close() }()
				return results.QueryRow().Scan(new(int16))
			},
		} {
			err := fail()
			if err == nil || strings.Contains(err.Error(), secret) || errors.Is(err, thole.ErrTimeout) {
				t.Errorf("%s: got error %v, want one without the value", name, err)
			}
			if _, ok := errors.AsType[*thole.Error](err); !ok {
				t.Errorf("%s: got %T, want a *thole.Error in it", name, err)
			}
		}
		_, err := db.Pgx().CopyFrom(ctx, pgx.Identifier{"t"}, []string{"id"}, new(brokenSource))
		if !errors.Is(err, io.ErrUnexpectedEOF) || thole.OutcomeOf(err) != thole.RolledBack {
			t.Errorf("a source that fails: got error %v, outcome %v, want its own, rolled back", err, thole.OutcomeOf(err))
		}
		wantIDs(t, db)
	})
}

// TestPgxOnSQLite has none.
func TestPgxOnSQLite(t *testing.T) {
	t.Parallel()
	db := dbtest.Config{Engines: []thole.Engine{thole.SQLite}}.Database(t)
	if db.Pgx() != nil || db.Pool() != nil {
		t.Errorf("got %v and %v, want nil", db.Pgx(), db.Pool())
	}
	err := db.WithSession(t.Context(), func(tx *thole.Tx) error {
		if tx.Pgx() != nil {
			t.Errorf("got %v, want nil", tx.Pgx())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

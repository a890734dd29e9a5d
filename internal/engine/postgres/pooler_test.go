package postgres

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tholedb/thole/internal/engine"
	"github.com/tholedb/thole/internal/testdb"
)

// TestPoolerIsFound opens databases with a pooler and without one.
func TestPoolerIsFound(t *testing.T) {
	t.Parallel()
	direct, pooled := testURL(t), testdb.PgBouncer(t)
	for _, tt := range []struct {
		name, url string
		change    func(*pgxpool.Config)
		want      protocol
		made      int64 // connections: the first is given up where there is a pooler
	}{
		{"none", direct, nil, byName, 1},
		{"pooler", pooled, nil, byDescription, 2},
		{"none, told otherwise", direct + "&pooler=transaction", nil, byDescription, 2},
		{"pooler, told otherwise", pooled + "&pooler=none", nil, byName, 1},
		{"two round trips", pooled, execMode(pgx.QueryExecModeDescribeExec), byDescription, 2},
		{"asked for", pooled, execMode(pgx.QueryExecModeExec), byText, 2},
		{"asked for simple", pooled, execMode(pgx.QueryExecModeSimpleProtocol), byText, 2},
		{"no descriptions", pooled + "&description_cache_capacity=0", nil, byText, 2},
		{"none, descriptions", direct, execMode(pgx.QueryExecModeCacheDescribe), byDescription, 1},
		{"none, no statements", direct + "&statement_cache_capacity=0", nil, byText, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			changes := []func(*pgxpool.Config){maxConns(1)}
			if tt.change != nil {
				changes = append(changes, tt.change)
			}
			e := openURL(t, tt.url, changes...)
			if e.protocol != tt.want {
				t.Errorf("opened: got %v, want %v", e.protocol, tt.want)
			}
			adopted, err := Adopt(testContext(t), e.pool, testEnv(t.Output()))
			if err != nil {
				t.Fatal(err)
			}
			if adopted.protocol != tt.want {
				t.Errorf("adopted: got %v, want %v", adopted.protocol, tt.want)
			}
			if got := e.pool.Stat().NewConnsCount(); got != tt.made {
				t.Errorf("connections made: got %d, want %d", got, tt.made)
			}
		})
	}
}

// pooledConns is how many connections a pool of one makes: the first, on which
// the pooler was found, is given up.
const pooledConns = 2

// TestPoolerSharesConnections has clients that take turns on PgBouncer's
// connections, and use the same statements there.
func TestPoolerSharesConnections(t *testing.T) {
	t.Parallel()
	const clients, sessions = 16, 40
	url := testdb.PgBouncer(t)
	setUp(t, openURL(t, url), "create table t (client int, n int, primary key (client, n))")
	var all sync.WaitGroup
	for client := range clients {
		e := openURL(t, url, maxConns(1))
		all.Go(func() {
			for n := range sessions {
				if err := countUp(testContext(t), e, client, n); err != nil {
					t.Errorf("client %d, session %d: %v", client, n, err)
					return
				}
			}
		})
	}
	all.Wait()
}

// countUp adds a row in a session, and counts the client's before and after its
// end.
func countUp(ctx context.Context, e *Engine, client, n int) error {
	begun, err := e.Begin(ctx, engine.Options{})
	if err != nil {
		return err
	}
	s := begun.(*session)
	if err := addAndCount(ctx, s, client, n); err != nil {
		_, err := s.Rollback(ctx, err)
		return err
	}
	if _, err := s.Commit(ctx, true); err != nil {
		return err
	}
	c, err := e.Conn(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	return wantCount(ctx, c, client, n+1)
}

func addAndCount(ctx context.Context, s *session, client, n int) error {
	if err := exec(ctx, s, "insert into t values ($1, $2)", client, n); err != nil {
		return err
	}
	if _, err := s.PrepareContext(ctx, "select count(*) from t where client = $1"); err != nil { // and never closed
		return s.Failed(ctx, err)
	}
	return wantCount(ctx, s, client, n+1)
}

func wantCount(ctx context.Context, c engine.Conn, client, want int) error {
	got, err := query(ctx, c, "select count(*) from t where client = $1", client)
	if err == nil && got[0] != int64(want) {
		err = fmt.Errorf("got %v rows, want %d", got[0], want)
	}
	return err
}

// TestPoolerMigrates has two clients migrate on one connection of PgBouncer's,
// on which nothing must be left that is prepared or set.
func TestPoolerMigrates(t *testing.T) {
	t.Parallel()
	url := testdb.PgBouncer(t)
	for range 2 {
		s, err := openURL(t, url, maxConns(1)).BeginMigration(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		if got := mustQuery(t, s, "show search_path"); got[0] != `"$user", public` {
			t.Errorf("search_path = %s, want it as it was", got[0])
		}
		mustExec(t, s, "set search_path = pg_catalog")
		if out, err := s.Commit(testContext(t), true); out != engine.Committed {
			t.Errorf("Commit = %d, %v", out, err)
		}
	}
	s, err := openURL(t, url, maxConns(1)).BeginMigration(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := exec(testContext(t), s, "select 1/0"); err == nil {
		t.Error("1/0: got no error")
	}
	out, err := s.Commit(testContext(t), true)
	if failed := wantKind(t, err, engine.ErrTxAborted); out != engine.RolledBack || failed.Code != "22012" {
		t.Errorf("Commit after a failure = %d, %v, want %d and the failure", out, err, engine.RolledBack)
	}
}

func TestPoolerPreparedStatement(t *testing.T) {
	t.Parallel()
	e := openURL(t, testdb.PgBouncer(t), maxConns(1))
	setUp(t, e, "create table t (id int)")
	s := begin(t, e, engine.Options{})
	prepared, err := s.PrepareContext(testContext(t), "insert into t values ($1) returning id")
	if err != nil {
		t.Fatal(err)
	}
	if got := prepared.NumInput(); got != 1 {
		t.Errorf("NumInput() = %d, want 1", got)
	}
	if _, err := prepared.(*stmt).ExecContext(testContext(t), named([]any{1})); err != nil {
		t.Error(err)
	}
	rows, err := prepared.(*stmt).QueryContext(testContext(t), named([]any{2}))
	if err != nil {
		t.Fatal(err)
	}
	if err := rows.Close(); err != nil {
		t.Error(err)
	}
	if got := mustQuery(t, s, "select count(*) from pg_prepared_statements where name <> ''"); got[0] != int64(0) {
		t.Errorf("the server knows %v statements by name, want none", got[0])
	}
	if err := prepared.Close(); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]any{int64(1), int64(2)}, mustQuery(t, s, "select id from t order by id")); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	if _, err := s.PrepareContext(testContext(t), "insert into nowhere values ($1)"); err == nil {
		t.Error("PrepareContext of a statement that is wrong: got no error")
	}
	if _, err := s.Rollback(testContext(t), nil); err != nil {
		t.Error(err)
	}
}

// TestPoolerStaleDescription changes a column between two uses of a statement,
// of which pgx has kept the description. Outside a session it runs once more,
// and nobody notices.
func TestPoolerStaleDescription(t *testing.T) {
	t.Parallel()
	const (
		insert    = "insert into t (v) values ($1)"
		returning = "insert into t (v) values ($1) returning *"
		where     = "select v from t where v = $1"
	)
	for _, tt := range []struct {
		name     string
		run      func(*testing.T, engine.Conn, string, ...any) []any
		text     string
		was, is  string // the type of the column
		old, arg any
		want     []any // column v afterwards
	}{
		{"does not encode", execute, insert, "int", "bigint", 1, int64(1) << 40, []any{int64(1), int64(1) << 40}},
		{"42804", execute, insert, "int", "jsonb using to_jsonb(v)", 1, 2, []any{[]byte("1"), []byte("2")}},
		{"42804 of a query", queried, returning, "int", "jsonb using to_jsonb(v)", 1, 2, []any{[]byte("1"), []byte("2")}},
		{"42883", queried, where, "int", "text", 1, "1", []any{"1"}},
		{"08P01", execute, returning, "int, w int", "int, add x int", 1, 2, []any{int64(1), int64(2)}},
		{"another format", queried, returning, "int", "money", 1, "2", []any{"$1.00", "$2.00"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := openURL(t, testdb.PgBouncer(t), maxConns(1))
			c := take(t, e)
			defer c.Close()
			mustExec(t, c, "create table t (v "+tt.was+")")
			if tt.text == where {
				mustExec(t, c, insert, 1)
			}
			tt.run(t, c, tt.text, tt.old)
			mustExec(t, c, "alter table t alter v type "+tt.is)
			if got := tt.run(t, c, tt.text, tt.arg); tt.text != insert && got != nil && !cmp.Equal(got, tt.want[len(tt.want)-1:]) {
				t.Errorf("result: got %q, want %q", got, tt.want[len(tt.want)-1:])
			}
			if diff := cmp.Diff(tt.want, mustQuery(t, c, "select v from t order by v::text")); diff != "" {
				t.Errorf("column (-want +got):\n%s", diff)
			}
			if got := e.pool.Stat().NewConnsCount(); got != pooledConns {
				t.Errorf("connections made: got %d, want %d", got, pooledConns)
			}
		})
	}
}

// queried is mustQuery.
func queried(t *testing.T, c engine.Conn, text string, args ...any) []any {
	t.Helper()
	return mustQuery(t, c, text, args...)
}

// execute is mustExec in the shape of mustQuery.
func execute(t *testing.T, c engine.Conn, text string, args ...any) []any {
	t.Helper()
	mustExec(t, c, text, args...)
	return nil
}

// TestPoolerStaleDescriptionInSession differs: what the server has refused has
// aborted the transaction, which begins anew where it was the first statement.
func TestPoolerStaleDescriptionInSession(t *testing.T) {
	t.Parallel()
	e := openURL(t, testdb.PgBouncer(t), maxConns(1))
	const insert = "insert into t (v) values ($1)"
	setUp(t, e, "create table t (v int)")
	use := func(arg any, before ...string) error {
		s := openSession(t, e, engine.Options{})
		for _, text := range before {
			mustExec(t, s, text)
		}
		err := exec(testContext(t), s, insert, arg)
		if err == nil {
			_, err = s.Commit(testContext(t), true)
			return err
		}
		if _, err := s.Rollback(testContext(t), nil); err != nil {
			t.Error(err)
		}
		return err
	}
	if err := use(1); err != nil {
		t.Fatal(err)
	}
	setUp(t, e, "alter table t alter v type bigint")
	if err := use(int64(1) << 40); err != nil {
		t.Errorf("an argument that did not encode: got %v, want nil: nothing was sent", err)
	}
	setUp(t, e, "alter table t alter v type jsonb using to_jsonb(v)")
	failed := wantKind(t, use(2, "select 1"), nil)
	if failed.Code != "42804" || failed.Retry != engine.RetryAsked || failed.Aborts != engine.AbortsLevel {
		t.Errorf("got %v with retry %d, extent %d, want 42804 that a new attempt cures", failed, failed.Retry, failed.Aborts)
	}
	if err := use(2, "select 1"); err != nil {
		t.Errorf("the new attempt: got %v, want nil", err)
	}
	setUp(t, e, "alter table t alter v type bigint using v::text::bigint")
	if err := use(2); err != nil {
		t.Errorf("the first statement: got %v, want nil: the transaction began anew", err)
	}
	for _, wrong := range []struct {
		text string
		args []any
	}{
		{"insert into t (v) values (true)", nil},
		{"insert into t (v) values ($1, 1)", []any{1}},
	} {
		s := begin(t, e, engine.Options{})
		if err := exec(testContext(t), s, wrong.text, wrong.args...); explained(t, err).Retry != engine.RetryNever {
			t.Errorf("%s: got %v, want a failure that no attempt cures", wrong.text, err)
		}
		if _, err := s.Rollback(testContext(t), nil); err != nil {
			t.Error(err)
		}
	}
}

// TestPoolerExecutesOnce has statements fail with the same codes for other
// reasons. A sequence does not roll back, so it tells how often they ran.
func TestPoolerExecutesOnce(t *testing.T) {
	t.Parallel()
	e := openURL(t, testdb.PgBouncer(t), maxConns(1))
	setUp(t, e, "create sequence ran", `create function fail(code text) returns int language plpgsql as
		$$ begin perform nextval('ran'); raise exception using errcode = code; end $$`,
		`create procedure fail_late(code text) language plpgsql as
		$$ begin perform nextval('ran'); commit; raise exception using errcode = code; end $$`)
	var runs int64
	for _, code := range []string{"42804", "42883", "0A000", "08P01", "22P02"} {
		for _, text := range []string{"select fail($1)", "call fail_late($1)"} {
			for _, run := range []func(c engine.Conn) error{
				func(c engine.Conn) error { return exec(testContext(t), c, text, code) },
				func(c engine.Conn) error { _, err := query(testContext(t), c, text, code); return err },
			} {
				c := take(t, e)
				if failed := explained(t, run(c)); failed.Code != code {
					t.Errorf("%s: got %v, want code %s", text, failed, code)
				}
				_ = c.Close()
				runs++
				if got := once(t, e, "select last_value from ran"); got[0] != runs {
					t.Fatalf("%s with %s: ran %v times, want %d", text, code, got[0], runs)
				}
			}
		}
	}
	// Text without arguments goes by the simple protocol, and may be a script.
	c := take(t, e)
	defer c.Close()
	if err := exec(testContext(t), c, "select nextval('ran'); insert into nowhere values (1)"); explained(t, err).Code != "42P01" {
		t.Errorf("script: got %v, want 42P01", err)
	}
	if got := mustQuery(t, c, "select last_value from ran"); got[0] != runs+1 {
		t.Errorf("script: ran %v times, want once", got[0].(int64)-runs)
	}
}

// TestPoolerCancelsItsOwn has clients that share connections to the server, of
// whom some cancel their statements: the others don't notice, and all keep their
// connection to the pooler.
func TestPoolerCancelsItsOwn(t *testing.T) {
	t.Parallel()
	const clients, statements = 6, 15
	url := testdb.PgBouncer(t)
	var cancelled atomic.Int32
	var all sync.WaitGroup
	for client := range clients {
		e := openURL(t, url, maxConns(1))
		all.Go(func() {
			for range statements {
				if client%2 == 0 {
					if err := sleep(testContext(t), e, 5*time.Millisecond); err != nil {
						t.Errorf("a statement that nobody cancelled: got %v", err)
					}
					continue
				}
				ctx, cancel := context.WithTimeout(testContext(t), 20*time.Millisecond)
				// A ctx that ends early may have sent nothing.
				if wantKind(t, sleep(ctx, e, time.Minute), engine.ErrTimeout).Code == queryCanceled {
					cancelled.Add(1)
				}
				cancel()
			}
			if got := e.pool.Stat().NewConnsCount(); got != pooledConns {
				t.Errorf("client %d: connections made: got %d, want %d", client, got, pooledConns)
			}
		})
	}
	all.Wait()
	if cancelled.Load() == 0 {
		t.Error("the server has cancelled no statement")
	}
}

// sleep opens a session that waits in the server, and ends it.
func sleep(ctx context.Context, e *Engine, d time.Duration) error {
	s, err := e.Begin(context.WithoutCancel(ctx), engine.Options{})
	if err != nil {
		return err
	}
	_, err = query(ctx, s, "select pg_sleep($1)", d.Seconds())
	_, rollback := s.Rollback(context.WithoutCancel(ctx), err)
	if rollback != nil {
		return rollback
	}
	return err
}

func TestPoolerOption(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"postgres://host/db":                             "",
		"postgres://host/db?pooler=transaction":          "transaction",
		"postgres://host/db?sslmode=disable&pooler=none": "none",
		"host=h dbname=db pooler=transaction":            "transaction",
		"pooler=none host=h":                             "none",
	} {
		cfg, ok, err := ParseURL(url)
		if !ok || err != nil {
			t.Errorf("ParseURL(%q) = %t, %v", url, ok, err)
			continue
		}
		if got := poolerOf(cfg); got != want {
			t.Errorf("%s: got %q, want %q", url, got, want)
		}
		if _, sent := cfg.ConnConfig.RuntimeParams["pooler"]; sent {
			t.Errorf("%s: the server is told", url)
		}
	}
	for _, value := range []string{"", "session", "Transaction", "true"} {
		_, ok, err := ParseURL("postgres://u:" + secret + "@host/db?pooler=" + value)
		failed := wantKind(t, err, engine.ErrURL)
		if !ok || !strings.Contains(failed.Message, "pooler is transaction or none") || strings.Contains(failed.Message, secret) {
			t.Errorf("pooler=%s: got %t, %v, want an error with the values", value, ok, failed)
		}
	}
}

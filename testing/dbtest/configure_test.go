package dbtest_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/pgserver"
	"github.com/tholedb/thole/testing/dbtest"
)

// B1: DBTEST_URL names the engine where the Config does not.
func TestB1URL(t *testing.T) {
	onPostgres().Sandbox(t) // skips without a server
	url, err := pgserver.URL(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("DBTEST_URL", url)
	if got := stock.Sandbox(t).Engine(); got != thole.Postgres {
		t.Errorf("got engine %s, want postgres", got)
	}
}

// B15: what the library tells others of a session, its log for one, says that it
// was committed.
func TestB15Log(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, config dbtest.Config) {
		var log bytes.Buffer
		config.Configure = func(cfg *thole.Config) {
			cfg.Logger, cfg.Slow = slog.New(slog.NewTextHandler(&log, nil)), time.Nanosecond
		}
		db := config.Sandbox(t)
		log.Reset() // the template's
		err := inSession(t, db, func(ctx context.Context, tx *thole.Tx) error { return add(ctx, tx, "slow") })
		if err != nil || !strings.Contains(log.String(), "outcome=committed") {
			t.Errorf("got %v and the log %q, want the outcome committed", err, log.String())
		}
	})
}

// Configure sets what sessions have by themselves, in sandboxes and databases; the
// migrations and fixtures don't have it.
func TestConfigure(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, config dbtest.Config) {
		config.Configure = func(cfg *thole.Config) { cfg.Session.ReadOnly = true }
		config.Fixtures = func(ctx context.Context, db *thole.DB) error {
			return db.WithSession(ctx, func(tx *thole.Tx) error { return add(ctx, tx, "fixture") })
		}
		for name, db := range map[string]*thole.DB{"Sandbox": config.Sandbox(t), "Database": config.Database(t)} {
			err := inSession(t, db, func(ctx context.Context, tx *thole.Tx) error { return add(ctx, tx, "refused") })
			if err == nil {
				t.Errorf("%s: the session is not read-only", name)
			}
			wantNames(t, db, "fixture")
		}
	})
}

// B49: a server in an odd zone finds code that relies on UTC.
func TestB49Zone(t *testing.T) {
	t.Parallel()
	const zone = "Canada/Newfoundland"
	config := onPostgres()
	config.Configure = func(cfg *thole.Config) { cfg.Postgres.ConnConfig.RuntimeParams["timezone"] = zone }
	for name, db := range map[string]*thole.DB{"Sandbox": config.Sandbox(t), "Database": config.Database(t)} {
		for range 2 { // also after a session that has set another one
			err := inSession(t, db, func(ctx context.Context, tx *thole.Tx) error {
				if got, err := thole.One[string](ctx, tx, "show timezone"); err != nil || got != zone {
					t.Errorf("%s: got the zone %q, %v, want %s", name, got, err, zone)
				}
				at := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
				if got, err := thole.One[time.Time](ctx, tx, "select ?::timestamptz", at); err != nil || !got.Equal(at) || got.Location() != time.UTC {
					t.Errorf("%s: got %v, %v, want %v", name, got, err, at)
				}
				_, err := tx.ExecContext(ctx, "set local timezone = 'UTC'")
				return err
			})
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

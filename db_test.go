package thole_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/testdb"
	"github.com/tholedb/thole/testing/dbtest"
)

func TestParseURL(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ url, want string }{
		{"sqlite:///data/app.db", "thole.Config(sqlite data/app.db)"},
		{"sqlite:////var/lib/app.db", "thole.Config(sqlite /var/lib/app.db)"},
		{"sqlite:data/app.db", "thole.Config(sqlite data/app.db)"},
		{"file:data/app.db", "thole.Config(sqlite data/app.db)"},
		{"sqlite://", "thole.Config(sqlite :memory:)"},
		{"sqlite:///:memory:", "thole.Config(sqlite :memory:)"},
		{"sqlite+pysqlite:///app.db", "thole.Config(sqlite app.db)"},
		{"sqlite:///a%20b%23c%3Fd%25.db", "thole.Config(sqlite a b#c?d%.db)"},
		{"postgres://u:secret@db/app", "thole.Config(postgres db:5432/app)"},
		{"postgresql+psycopg://u:secret@h1,h2:5433/app", "thole.Config(postgres h1:5432,h2:5433/app)"},
		{"host=db dbname=app user=u password=secret", "thole.Config(postgres db:5432/app)"},
	} {
		cfg, err := thole.ParseURL(tt.url)
		if err != nil {
			t.Errorf("ParseURL(%q): %v", tt.url, err)
			continue
		}
		if got := cfg.String(); got != tt.want {
			t.Errorf("ParseURL(%q): got %s, want %s", tt.url, got, tt.want)
		}
	}
}

func TestParseURLRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ url, hint string }{
		{"", "DATABASE_URL"},
		{"mysql://u:secret@db/app", "sqlite:///data/app.db"},
		{"data/app.db", "sqlite:///data/app.db"},
		{"sqlite://data/app.db", "sqlite:///data/app.db"},
		{"sqlite:///app.db?synchronos=full", "synchronous"},
		{"sqlite:///app.db?_pragma=foreign_keys(0)", "_pragma"},
		{"postgres://u:sec@ret@db/app", "%40"},
		{"postgres://u:secret@db:port/app", "port"},
	} {
		_, err := thole.ParseURL(tt.url)
		if !errors.Is(err, thole.ErrURL) {
			t.Errorf("ParseURL(%q): got error %v, want ErrURL", tt.url, err)
			continue
		}
		if !strings.Contains(err.Error(), tt.hint) {
			t.Errorf("ParseURL(%q): got error %v, want one that mentions %s", tt.url, err, tt.hint)
		}
	}
}

// FuzzSecrets prints, logs and marshals everything that is made of a URL with a
// password in it: the configuration, the errors, and those of opening.
func FuzzSecrets(f *testing.F) {
	for _, url := range []string{
		"postgres://u:%s@127.0.0.1:1/app", "postgres://127.0.0.1:1/app?password=%s", "host=127.0.0.1 port=1 password='%s' user=u",
		"host=127.0.0.1 port=1 password='%s", "postgres://u:%s", "postgres://u:%s@h:x/app", "postgres://u:%s@[::1/app", "sqlite://u:%s@db/app",
		"mysql://u:%s@db/app", "sqlite:///app.db?password=%s", "%s", "postgres://u:a@b%s@127.0.0.1:1/app", "postgres://u:%s@127.0.0.1:1/app?sslmode=%%",
	} {
		f.Add(url)
	}
	const secret = "zq7Xsecret" //nolint:gosec // a password of nobody
	f.Fuzz(func(t *testing.T, format string) {
		url := strings.Replace(format, "%s", secret, 1)
		var out strings.Builder
		log := slog.New(slog.NewJSONHandler(&out, nil))
		show := func(v any) {
			fmt.Fprintf(&out, "%v %+v %#v %s %q", v, v, v, v, v)
			log.Info("it is", "it", v)
			if marshalled, err := json.Marshal(v); err == nil {
				out.Write(marshalled)
			}
		}
		cfg, err := thole.ParseURL(url)
		if err != nil {
			show(err)
		} else if cfg.Postgres != nil {
			show(cfg)
			show(*cfg)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := thole.OpenConfig(ctx, cfg); err != nil {
				show(err)
			}
		}
		// Where it is a host or a path it is no password.
		if err == nil && (cfg.Postgres == nil || cfg.Postgres.ConnConfig.Password != secret) {
			t.Skip()
		}
		if strings.Contains(out.String(), secret) {
			t.Errorf("the password is in what is printed: %s", out.String())
		}
	})
}

func TestSecretsOfDB(t *testing.T) {
	t.Parallel()
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		want := db.String()
		for _, got := range []string{fmt.Sprintf("%v", db), fmt.Sprintf("%+v", db), fmt.Sprintf("%#v", db), db.LogValue().String()} {
			if got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		}
	})
}

func TestOpenCreatesFile(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "a b", "c%d#e")
	db, err := thole.Open(t.Context(), "sqlite:///"+strings.NewReplacer("%", "%25", "?", "%3F").Replace(filepath.Join(folder, "f?ü.db")))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for name, want := range map[string]os.FileMode{folder: 0o700, filepath.Join(folder, "f?ü.db"): 0o600} {
		info, err := os.Stat(name)
		if err != nil {
			t.Error(err)
		} else if got := info.Mode().Perm(); got != want {
			t.Errorf("%s: got mode %o, want %o", name, got, want)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	both := &thole.Config{SQLite: &thole.SQLiteConfig{}, Postgres: &pgxpool.Config{}}
	unsupported := &thole.Config{SQLite: &thole.SQLiteConfig{}, Session: thole.SessionOptions{Deferrable: true}}
	for name, cfg := range map[string]*thole.Config{"nil": nil, "empty": {}, "both": both, "session": unsupported} {
		if _, err := thole.OpenConfig(t.Context(), cfg); !errors.As(err, new(*thole.Error)) {
			t.Errorf("%s: got error %v, want a *thole.Error", name, err)
		}
	}
	unmade := &thole.Config{Postgres: &pgxpool.Config{}}
	if _, err := thole.OpenConfig(t.Context(), unmade); !errors.As(err, new(*thole.Error)) {
		t.Errorf("a configuration of no parser: got error %v, want a *thole.Error", err)
	}
	if _, err := thole.OpenPool(t.Context(), nil, thole.Config{}); !errors.As(err, new(*thole.Error)) {
		t.Errorf("nil pool: got error %v, want a *thole.Error", err)
	}
	noDatabase := filepath.Join(t.TempDir(), "notes.txt")
	if err := os.WriteFile(noDatabase, []byte(strings.Repeat("this is not a database. ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := thole.Open(t.Context(), "sqlite:///"+noDatabase); !errors.As(err, new(*thole.Error)) {
		t.Errorf("another file: got error %v, want a *thole.Error", err)
	}
}

// TestOpenUnreachable opens a server that does not answer, within ctx.
func TestOpenUnreachable(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := thole.Open(ctx, "postgres://127.0.0.1:1/app"); !errors.Is(err, context.Canceled) {
		t.Errorf("done ctx: got error %v, want context.Canceled", err)
	}
	if _, err := thole.Open(t.Context(), "postgres://127.0.0.1:1/app?connect_timeout=1"); !errors.Is(err, thole.ErrConnLost) {
		t.Errorf("nobody listens: got error %v, want ErrConnLost", err)
	}
}

// TestOpenPool uses a pool of the application's, which Close leaves open.
func TestOpenPool(t *testing.T) {
	t.Parallel()
	pool, err := pgxpool.New(t.Context(), testdb.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	db, err := thole.OpenPool(t.Context(), pool, thole.Config{Session: thole.SessionOptions{ReadOnly: true}})
	if err != nil {
		t.Fatal(err)
	}
	err = db.WithSession(t.Context(), func(tx *thole.Tx) error {
		_, err := tx.ExecContext(t.Context(), "create table x ()")
		return err
	})
	if !errors.Is(err, thole.ErrReadOnly) {
		t.Errorf("got error %v, want ErrReadOnly, as Config.Session asks", err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	if err := pool.Ping(t.Context()); err != nil {
		t.Errorf("the pool after Close: %v", err)
	}
}

func TestClosed(t *testing.T) {
	t.Parallel()
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		ctx := t.Context()
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Errorf("second Close: got error %v, want nil", err)
		}
		_, exec := db.ExecContext(ctx, "select 1")
		for name, err := range map[string]error{
			"ExecContext":     exec,
			"QueryRowContext": db.QueryRowContext(ctx, "select 1").Scan(new(int)),
			"GetContext":      db.GetContext(ctx, new(int), "select 1"),
			"PingContext":     db.PingContext(ctx),
			"Migrate":         db.Migrate(ctx, os.DirFS("migrations")),
			"WithSession":     db.WithSession(ctx, func(*thole.Tx) error { return nil }),
		} {
			if !errors.Is(err, thole.ErrClosed) {
				t.Errorf("%s: got error %v, want ErrClosed", name, err)
			}
		}
	})
}

// TestCloseWaits closes under an open session: Close waits for it, refuses new
// ones, and after its time names the place where it was opened.
func TestCloseWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db, err := thole.Open(context.Background(), "sqlite://")
		if err != nil {
			t.Fatal(err)
		}
		opened, end, ended := make(chan struct{}), make(chan struct{}), make(chan error)
		go func() {
			ended <- db.WithSession(context.Background(), func(*thole.Tx) error {
				close(opened)
				<-end
				return nil
			})
		}()
		<-opened
		err = db.Close()
		if !errors.Is(err, thole.ErrTimeout) || !strings.Contains(err.Error(), "db_test.go:") {
			t.Errorf("Close: got error %v, want ErrTimeout with the place of the session", err)
		}
		close(end)
		if err := <-ended; err != nil {
			t.Errorf("the session that was open: got error %v, want nil: it committed", err)
		}
	})
}

// TestMigrateInSession is refused: on SQLite it would wait for its own session.
func TestMigrateInSession(t *testing.T) {
	t.Parallel()
	dbtest.EachDatabase(t, func(t *testing.T, db *thole.DB) {
		err := db.WithSession(t.Context(), func(tx *thole.Tx) error {
			return db.Migrate(tx.Context(), os.DirFS("migrations"))
		})
		if !errors.Is(err, thole.ErrNested) {
			t.Errorf("got error %v, want ErrNested", err)
		}
	})
}

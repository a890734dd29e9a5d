package migrate

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tholedb/thole/internal/engine"
	"github.com/tholedb/thole/internal/engine/postgres"
	"github.com/tholedb/thole/internal/engine/sqlite"
	"github.com/tholedb/thole/internal/testdb"
)

// each runs test on a fresh database of each engine, of which url is the URL.
func each(t *testing.T, test func(t *testing.T, url string)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		test(t, "sqlite:///"+filepath.Join(t.TempDir(), "test.db"))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		test(t, testdb.Postgres(t))
	})
}

// eachEngine is each for tests that need one engine only.
func eachEngine(t *testing.T, test func(t *testing.T, eng engine.Engine)) {
	t.Helper()
	each(t, func(t *testing.T, url string) { test(t, openEngine(t, url)) })
}

// openEngine opens the database and closes it when the test ends.
func openEngine(t *testing.T, url string) engine.Engine {
	t.Helper()
	eng, err := openURL(t.Context(), url)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		if err := eng.Close(context.Background()); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return eng
}

func openURL(ctx context.Context, url string) (engine.Engine, error) {
	env := engine.Env{Log: slog.New(slog.DiscardHandler), Sessions: new(engine.Registry)}
	if path, ok := strings.CutPrefix(url, "sqlite:///"); ok {
		return sqlite.Open(ctx, sqlite.Config{Path: path}, env)
	}
	cfg, _, err := postgres.ParseURL(url)
	if err != nil {
		return nil, err
	}
	return postgres.Open(ctx, cfg, env)
}

// exec runs texts, each in a session of its own.
func exec(t *testing.T, eng engine.Engine, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if err := tryExec(t, eng, text); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
}

func tryExec(t *testing.T, eng engine.Engine, text string) error {
	t.Helper()
	s, err := eng.Begin(t.Context(), engine.Options{})
	if err != nil {
		t.Fatalf("begin: %v", err)
	}
	if _, err := s.ExecContext(t.Context(), text, nil); err != nil {
		cause := s.Failed(t.Context(), err)
		_, err := s.Rollback(t.Context(), cause)
		return errors.Join(cause, err)
	}
	_, err = s.Commit(t.Context(), true)
	return err
}

// query returns the columns and rows of a query as texts.
func query(t *testing.T, eng engine.Engine, text string) [][]string {
	t.Helper()
	conn, err := eng.Conn(t.Context())
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	defer conn.Close()
	rows, err := conn.QueryContext(t.Context(), text, nil)
	if err != nil {
		t.Fatalf("%s: %v", text, conn.Failed(t.Context(), err))
	}
	defer rows.Close()
	all := [][]string{rows.Columns()}
	row := make([]driver.Value, len(rows.Columns()))
	for {
		err := rows.Next(row)
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatalf("%s: %v", text, conn.Failed(t.Context(), err))
		}
		texts := make([]string, len(row))
		for i, value := range row {
			texts[i] = fmt.Sprint(value)
		}
		all = append(all, texts)
	}
}

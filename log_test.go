package thole_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/testdb"
)

// logged keeps what a Logger is told, as JSON.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

// take returns the lines since the last call.
func (l *logged) take(t *testing.T) []map[string]any {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var lines []map[string]any
	for decoder := json.NewDecoder(&l.text); decoder.More(); {
		var line map[string]any
		if err := decoder.Decode(&line); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line)
	}
	return lines
}

// eachLogged opens a database of each engine whose Logger is told to log.
func eachLogged(t *testing.T, level slog.Level, change func(*thole.Config), test func(t *testing.T, db *thole.DB, log *logged)) {
	t.Helper()
	for name, url := range map[string]func(testing.TB) string{"sqlite": testdb.SQLite, "postgres": testdb.Postgres} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, err := thole.ParseURL(url(t))
			if err != nil {
				t.Fatal(err)
			}
			log := new(logged)
			cfg.Logger = slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: level}))
			change(cfg)
			db, err := thole.OpenConfig(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = db.Close() })
			openForErrors(t, db)
			log.take(t)
			test(t, db, log)
		})
	}
}

// wantLine checks what a line says of a session.
func wantLine(t *testing.T, line map[string]any, want map[string]any) {
	t.Helper()
	for key, value := range want {
		if line[key] != value {
			t.Errorf("%s: got %v in %v, want %v", key, line[key], line, value)
		}
	}
	if caller := fmt.Sprint(line["caller"]); !strings.Contains(caller, "log_test.go:") {
		t.Errorf("caller: got %s, want a line of log_test.go", caller)
	}
	if age, ok := line["age"].(float64); !ok || age <= 0 {
		t.Errorf("age: got %v, want a duration", line["age"])
	}
}

// TestLogSessions fails, repeats and slows down sessions.
func TestLogSessions(t *testing.T) {
	t.Parallel()
	eachLogged(t, slog.LevelDebug, func(*thole.Config) {}, func(t *testing.T, db *thole.DB, log *logged) {
		const secret = "s3cr3t"
		opts := thole.SessionOptions{Label: "forge", MaxAttempts: 2}
		locked := lockedError(t)
		err := db.WithSessionOptions(t.Context(), opts, func(tx *thole.Tx) error {
			if tx.Attempt() == 1 {
				return locked
			}
			_, err := tx.ExecContext(t.Context(), "insert into parent values (2, ?, ?)", secret, -1)
			return fmt.Errorf("%s: %w", secret, err)
		})
		if !errors.Is(err, thole.ErrCheck) {
			t.Fatal(err)
		}
		lines := log.take(t)
		if len(lines) != 3 {
			t.Fatalf("got %d lines %v, want 3", len(lines), lines)
		}
		wantLine(t, lines[0], map[string]any{"level": "DEBUG", "msg": "thole: a session failed", "label": "forge", "attempt": 1.0, "outcome": "rolled back"})
		wantLine(t, lines[1], map[string]any{"level": "DEBUG", "msg": "thole: a session runs again", "label": "forge", "attempt": 2.0})
		wantLine(t, lines[2], map[string]any{"level": "DEBUG", "msg": "thole: a session failed", "label": "forge", "attempt": 2.0, "query": "insert into parent values (2, ?, ?)"})
		if text := fmt.Sprint(lines); strings.Contains(text, secret) || !strings.Contains(text, "parent") {
			t.Errorf("got %s, want the statement, and neither its values nor the text of fn's error", text)
		}

		_ = db.WithSession(t.Context(), func(*thole.Tx) error { return errors.New(secret) })
		lines = log.take(t)
		wantLine(t, lines[0], map[string]any{"error": "*errors.errorString"})
		if err := db.WithSession(t.Context(), func(*thole.Tx) error { return nil }); err != nil {
			t.Error(err)
		}
		if lines := log.take(t); len(lines) > 0 {
			t.Errorf("got lines %v about a session that committed, want none", lines)
		}
	})
}

// begin sends a statement, with the first of which a session begins.
func begin(tx *thole.Tx) error {
	_, err := tx.ExecContext(tx.Context(), "select 1")
	return err
}

// lockedError is one that a new attempt can cure.
func lockedError(t *testing.T) error {
	t.Helper()
	url := testdb.SQLite(t)
	var dbs [2]*thole.DB
	for i := range dbs {
		cfg, err := thole.ParseURL(url)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Session.LockTimeout = 20 * time.Millisecond
		cfg.Session.MaxAttempts = 1
		cfg.Logger = slog.New(slog.DiscardHandler)
		if dbs[i], err = thole.OpenConfig(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		defer dbs[i].Close()
	}
	var busy error
	err := dbs[0].WithSession(t.Context(), func(tx *thole.Tx) error {
		if err := begin(tx); err != nil {
			return err
		}
		busy = dbs[1].WithSession(t.Context(), begin)
		return nil
	})
	if err != nil || !errors.Is(busy, thole.ErrLocked) {
		t.Fatalf("got errors %v and %v, want nil and ErrLocked", err, busy)
	}
	return busy
}

// TestLogSlow is told of a session that took longer than it should, whatever
// became of it, and of no other.
func TestLogSlow(t *testing.T) {
	t.Parallel()
	slow := func(cfg *thole.Config) { cfg.Slow = time.Nanosecond }
	eachLogged(t, slog.LevelInfo, slow, func(t *testing.T, db *thole.DB, log *logged) {
		for outcome, end := range map[string]error{"committed": nil, "rolled back": errUndo} {
			_ = db.WithSessionOptions(t.Context(), thole.SessionOptions{Label: "slow"}, func(*thole.Tx) error { return end })
			lines := log.take(t)
			if len(lines) != 1 {
				t.Fatalf("got %d lines %v, want 1", len(lines), lines)
			}
			wantLine(t, lines[0], map[string]any{"level": "WARN", "msg": "thole: a session was slow", "label": "slow", "attempt": 1.0, "outcome": outcome})
		}
	})
	t.Run("patient", func(t *testing.T) {
		t.Parallel()
		patient := func(cfg *thole.Config) { cfg.Slow = time.Hour }
		eachLogged(t, slog.LevelInfo, patient, func(t *testing.T, db *thole.DB, log *logged) {
			_ = db.WithSession(t.Context(), func(*thole.Tx) error { return errUndo })
			if lines := log.take(t); len(lines) > 0 {
				t.Errorf("got lines %v, want none: an operator need not know", lines)
			}
		})
	})
}

// TestLogExhaustion has a session wait for what all the others have, and tells of
// it once a second, however many wait.
func TestLogExhaustion(t *testing.T) {
	t.Parallel()
	const waits = 20
	single := func(cfg *thole.Config) {
		if cfg.Postgres != nil {
			cfg.Postgres.MaxConns = 1
		}
	}
	eachLogged(t, slog.LevelInfo, single, func(t *testing.T, db *thole.DB, log *logged) {
		err := db.WithSessionOptions(t.Context(), thole.SessionOptions{Label: "holder"}, func(tx *thole.Tx) error {
			if err := begin(tx); err != nil {
				return err
			}
			for range waits {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
				defer cancel()
				if err := db.WithSession(ctx, begin); !errors.Is(err, thole.ErrTimeout) {
					t.Errorf("got error %v, want %v", err, thole.ErrTimeout)
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		lines := log.take(t)
		if len(lines) == 0 || len(lines) == waits {
			t.Fatalf("got %d lines %v, want at least one, and one a second at most", len(lines), lines)
		}
		if lines[0]["level"] != "WARN" || !strings.Contains(fmt.Sprint(lines[0]["msg"]), `session "holder" opened at`) {
			t.Errorf("got line %v, want one that names who has what is waited for", lines[0])
		}
	})
}

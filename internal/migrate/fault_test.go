package migrate

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/tholedb/thole/internal/engine"
)

// losing is an engine whose migrations get no answer to COMMIT.
type losing struct {
	engine.Engine
	commit bool // whether COMMIT takes effect all the same
	gone   bool // whether the database can't be reached afterwards
	lost   int  // the answers lost
}

var errGone = errors.New("connection refused")

func (e *losing) BeginMigration(ctx context.Context) (engine.Session, error) {
	if e.gone && e.lost > 0 {
		return nil, &engine.Error{Kind: engine.ErrConnLost, Message: "connect", Err: errGone}
	}
	s, err := e.Engine.BeginMigration(ctx)
	if err != nil {
		return nil, err
	}
	return losingSession{s, e}, nil
}

type losingSession struct {
	engine.Session
	eng *losing
}

func (s losingSession) Commit(ctx context.Context, observed bool) (engine.Outcome, error) {
	s.eng.lost++
	var err error
	if s.eng.commit {
		_, err = s.Session.Commit(ctx, observed)
	} else {
		_, err = s.Session.Rollback(ctx, nil)
	}
	return engine.Unknown, &engine.Error{Kind: engine.ErrCommitUnknown, Retry: engine.RetryForbidden, Message: "no answer", Err: err}
}

func TestUpCommitUnknown(t *testing.T) {
	t.Parallel()
	files := map[string]string{
		"1_a.up.sql": "CREATE TABLE a (n integer); INSERT INTO a VALUES (0)",
		"2_b.up.sql": "UPDATE a SET n = n + 1",
	}
	t.Run("committed", func(t *testing.T) {
		t.Parallel()
		eachEngine(t, func(t *testing.T, eng engine.Engine) {
			e := &losing{Engine: eng, commit: true}
			up(t, e, files)
			if e.lost != 2 {
				t.Errorf("answers lost: got %d, want 2", e.lost)
			}
			wantVersion(t, eng, "2")
			wantValue(t, eng, "SELECT n FROM a", "1")
		})
	})
	t.Run("rolled back", func(t *testing.T) {
		t.Parallel()
		eachEngine(t, func(t *testing.T, eng engine.Engine) {
			err := upFails(t, &losing{Engine: eng}, files, "apply 1_a.up.sql: ")
			if errors.Is(err, engine.ErrCommitUnknown) || !errors.Is(err, engine.ErrConnLost) {
				t.Errorf("Up: got %v, want %v", err, engine.ErrConnLost)
			}
			up(t, eng, files)
			wantVersion(t, eng, "2")
			wantValue(t, eng, "SELECT n FROM a", "1")
		})
	})
	t.Run("gone", func(t *testing.T) {
		t.Parallel()
		eachEngine(t, func(t *testing.T, eng engine.Engine) {
			err := upFails(t, &losing{Engine: eng, commit: true, gone: true}, files, "apply 1_a.up.sql: ")
			if !errors.Is(err, engine.ErrCommitUnknown) || !errors.Is(err, errGone) {
				t.Errorf("Up: got %v, want %v and %v", err, engine.ErrCommitUnknown, errGone)
			}
			up(t, eng, files)
			wantVersion(t, eng, "2")
			wantValue(t, eng, "SELECT n FROM a", "1")
		})
	})
}

// unreadable is an engine on whose migrations no row can be read.
type unreadable struct {
	engine.Engine
	err error // of the first row
}

func (e unreadable) BeginMigration(ctx context.Context) (engine.Session, error) {
	s, err := e.Engine.BeginMigration(ctx)
	if err != nil {
		return nil, err
	}
	return unreadableSession{s, e.err}, nil
}

type unreadableSession struct {
	engine.Session
	err error
}

func (s unreadableSession) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	rows, err := s.Session.QueryContext(ctx, query, args)
	return unreadableRows{rows, s.err}, err
}

type unreadableRows struct {
	driver.Rows
	err error
}

func (r unreadableRows) Next([]driver.Value) error { return r.err }

// A version that could not be read is not taken for none, after which the first
// migration would run again.
func TestUpVersionUnreadable(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, eng engine.Engine) {
		files := map[string]string{"1_a.up.sql": "CREATE TABLE IF NOT EXISTS a (n integer); INSERT INTO a VALUES (1)"}
		up(t, eng, files)
		cutOff := fmt.Errorf("receive message: %w", io.EOF)
		if err := Up(t.Context(), unreadable{eng, cutOff}, memFS(files)); !errors.Is(err, cutOff) {
			t.Errorf("Up: got %v, want %v", err, cutOff)
		}
		wantValue(t, eng, "SELECT count(*) FROM a", "1")
	})
}

// A migration that hides the table of versions isn't run for ever.
func TestUpVersionGone(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, eng engine.Engine) {
		files := map[string]string{"1_a.up.sql": "CREATE TABLE IF NOT EXISTS a (n integer); INSERT INTO a VALUES (1)"}
		upFails(t, unreadable{eng, io.EOF}, files, "version 1 was just committed and is gone")
		wantValue(t, eng, "SELECT count(*) FROM a", "1")
	})
}

// impatient is an engine whose caller gives up at the moment of COMMIT.
type impatient struct {
	engine.Engine
	cancel context.CancelFunc
}

func (e impatient) BeginMigration(ctx context.Context) (engine.Session, error) {
	s, err := e.Engine.BeginMigration(ctx)
	if err != nil {
		return nil, err
	}
	return impatientSession{s, e.cancel}, nil
}

type impatientSession struct {
	engine.Session
	cancel context.CancelFunc
}

func (s impatientSession) Commit(ctx context.Context, observed bool) (engine.Outcome, error) {
	s.cancel()
	return s.Session.Commit(ctx, observed)
}

// A ctx that ends at COMMIT ends the migrations after this one.
func TestUpContextEndsAtCommit(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, eng engine.Engine) {
		ctx, cancel := context.WithCancel(t.Context())
		err := Up(ctx, impatient{eng, cancel}, memFS(map[string]string{
			"1_a.up.sql": "CREATE TABLE a (n integer)",
			"2_b.up.sql": "CREATE TABLE b (n integer)",
		}))
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Up: got %v, want %v", err, context.Canceled)
		}
		wantVersion(t, eng, "1")
		exec(t, eng, "CREATE TABLE b (n integer)", "DROP TABLE a")
	})
}

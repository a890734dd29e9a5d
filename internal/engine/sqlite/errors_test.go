package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/tholedb/thole/internal/engine"
)

var errorOpts = cmp.Options{cmpopts.IgnoreFields(engine.Error{}, "Err"), cmpopts.EquateErrors()}

func TestExplainCode(t *testing.T) {
	t.Parallel()
	tests := []struct {
		code int
		text string
		want engine.Error
	}{
		{2067, "constraint failed: UNIQUE constraint failed: t.a (2067)", engine.Error{
			Kind: engine.ErrUnique, Code: "SQLITE_CONSTRAINT_UNIQUE", Table: "t", Column: "a", Message: "UNIQUE constraint failed: t.a",
		}},
		{2067, "constraint failed: UNIQUE constraint failed: t.a, t.b (2067)", engine.Error{
			Kind: engine.ErrUnique, Code: "SQLITE_CONSTRAINT_UNIQUE", Table: "t", Column: "a, b", Message: "UNIQUE constraint failed: t.a, t.b",
		}},
		{2067, "constraint failed: UNIQUE constraint failed: index 'low' (2067)", engine.Error{
			Kind: engine.ErrUnique, Code: "SQLITE_CONSTRAINT_UNIQUE", Constraint: "low", Message: "UNIQUE constraint failed: index 'low'",
		}},
		{1555, "constraint failed: UNIQUE constraint failed: t.id (1555)", engine.Error{
			Kind: engine.ErrUnique, Code: "SQLITE_CONSTRAINT_PRIMARYKEY", Table: "t", Column: "id", Message: "UNIQUE constraint failed: t.id",
		}},
		{2579, "constraint failed: UNIQUE constraint failed: t.rowid (2579)", engine.Error{
			Kind: engine.ErrUnique, Code: "SQLITE_CONSTRAINT_ROWID", Table: "t", Column: "rowid", Message: "UNIQUE constraint failed: t.rowid",
		}},
		{1299, "constraint failed: NOT NULL constraint failed: t.c (1299)", engine.Error{
			Kind: engine.ErrNotNull, Code: "SQLITE_CONSTRAINT_NOTNULL", Table: "t", Column: "c", Message: "NOT NULL constraint failed: t.c",
		}},
		{275, "constraint failed: CHECK constraint failed: n > 0 (275)", engine.Error{
			Kind: engine.ErrCheck, Code: "SQLITE_CONSTRAINT_CHECK", Constraint: "n > 0", Message: "CHECK constraint failed: n > 0",
		}},
		{787, "constraint failed: FOREIGN KEY constraint failed (787)", engine.Error{
			Kind: engine.ErrForeignKey, Code: "SQLITE_CONSTRAINT_FOREIGNKEY", Message: "FOREIGN KEY constraint failed",
		}},
		{1811, "constraint failed: too heavy (1811)", engine.Error{Code: "SQLITE_CONSTRAINT_TRIGGER", Message: "too heavy"}},
		{3091, "constraint failed: cannot store TEXT value in INTEGER column t.a (3091)", engine.Error{
			Code: "SQLITE_CONSTRAINT_DATATYPE", Message: "cannot store TEXT value in INTEGER column t.a",
		}},
		{19, "constraint failed (19)", engine.Error{Code: "SQLITE_CONSTRAINT", Message: "constraint failed"}},
		{5, "database is locked (5) (SQLITE_BUSY)", engine.Error{
			Kind: engine.ErrLocked, Code: "SQLITE_BUSY", Message: "database is locked", Retry: engine.RetryUnasked,
		}},
		{261, "database is locked (261)", engine.Error{
			Kind: engine.ErrLocked, Code: "SQLITE_BUSY_RECOVERY", Message: "database is locked", Retry: engine.RetryUnasked,
		}},
		{773, "database is locked (773)", engine.Error{
			Kind: engine.ErrLocked, Code: "SQLITE_BUSY_TIMEOUT", Message: "database is locked", Retry: engine.RetryUnasked,
		}},
		{517, "database is locked (517)", engine.Error{
			Kind: engine.ErrSerialization, Code: "SQLITE_BUSY_SNAPSHOT", Message: "database is locked", Retry: engine.RetryUnasked,
		}},
		{6, "database table is locked: database table is locked: t (6)", engine.Error{
			Kind: engine.ErrLocked, Code: "SQLITE_LOCKED", Message: "database table is locked: t", Retry: engine.RetryAsked,
		}},
		{262, "database table is locked (262)", engine.Error{
			Kind: engine.ErrLocked, Code: "SQLITE_LOCKED_SHAREDCACHE", Message: "database table is locked", Retry: engine.RetryAsked,
		}},
		{8, "attempt to write a readonly database (8)", engine.Error{
			Kind: engine.ErrReadOnly, Code: "SQLITE_READONLY", Message: "attempt to write a readonly database",
		}},
		{1032, "attempt to write a readonly database (1032)", engine.Error{
			Kind: engine.ErrReadOnly, Code: "SQLITE_READONLY_DBMOVED", Message: "attempt to write a readonly database",
		}},
		{9, "interrupted (9)", engine.Error{Code: "SQLITE_INTERRUPT", Message: "interrupted"}},
		{13, "database or disk is full (13)", engine.Error{Code: "SQLITE_FULL", Message: "database or disk is full"}},
		{778, "disk I/O error (778)", engine.Error{Code: "SQLITE_IOERR_WRITE", Message: "disk I/O error"}},
		{26, "file is not a database (26)", engine.Error{Code: "SQLITE_NOTADB", Message: "file is not a database"}},
		{10 | 250<<8, "disk I/O error (64010)", engine.Error{Code: "SQLITE_IOERR", Message: "disk I/O error"}},
	}
	for _, test := range tests {
		t.Run(test.text, func(t *testing.T) {
			t.Parallel()
			cause := errors.New(test.text)
			got := explainCode(t.Context(), test.code, test.text, cause)
			if diff := cmp.Diff(test.want, *got, errorOpts); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			if !errors.Is(got, cause) {
				t.Errorf("cause: got %v, want %v", got.Err, cause)
			}
		})
	}
}

// Of every code there is, only those in explainCode's table may have a kind.
func TestExplainEveryCode(t *testing.T) {
	t.Parallel()
	kinds := map[string]error{
		"SQLITE_CONSTRAINT_UNIQUE": engine.ErrUnique, "SQLITE_CONSTRAINT_PRIMARYKEY": engine.ErrUnique,
		"SQLITE_CONSTRAINT_ROWID": engine.ErrUnique, "SQLITE_CONSTRAINT_NOTNULL": engine.ErrNotNull,
		"SQLITE_CONSTRAINT_CHECK": engine.ErrCheck, "SQLITE_CONSTRAINT_FOREIGNKEY": engine.ErrForeignKey,
		"SQLITE_BUSY_SNAPSHOT": engine.ErrSerialization,
	}
	families := map[string]error{"SQLITE_BUSY": engine.ErrLocked, "SQLITE_LOCKED": engine.ErrLocked, "SQLITE_READONLY": engine.ErrReadOnly}
	for code, name := range codes {
		want := kinds[name]
		if want == nil {
			want = families[codes[code&0xff]]
		}
		got := explainCode(t.Context(), code, "text", nil)
		if got.Kind != want || got.Code != name {
			t.Errorf("%s (%d): got %v, %s, want %v", name, code, got.Kind, got.Code, want)
		}
		if !strings.HasPrefix(name, codes[code&0xff]) {
			t.Errorf("%s (%d): got the primary code %s, want the beginning of the name", name, code, codes[code&0xff])
		}
	}
}

func TestExplainContext(t *testing.T) {
	t.Parallel()
	reason := errors.New("the client went away")
	cancelled, cancel := context.WithCancelCause(t.Context())
	cancel(reason)
	late, cancelLate := context.WithTimeout(t.Context(), -1)
	t.Cleanup(cancelLate)
	limited, cancelLimited := context.WithTimeoutCause(t.Context(), -1, reason)
	t.Cleanup(cancelLimited)

	tests := map[string]struct {
		ctx     context.Context
		err     error
		want    engine.Error
		matches []error
	}{
		"cancelled with a cause": {
			cancelled, context.Canceled,
			engine.Error{Message: "context canceled"}, // the program's words may hold anything
			[]error{context.Canceled, reason},
		},
		"deadline": {
			late, context.DeadlineExceeded,
			engine.Error{Kind: engine.ErrTimeout, Message: "context deadline exceeded"},
			[]error{context.DeadlineExceeded, engine.ErrTimeout},
		},
		"deadline with a cause": {
			limited, context.DeadlineExceeded,
			engine.Error{Kind: engine.ErrTimeout, Message: "context deadline exceeded"},
			[]error{context.DeadlineExceeded, engine.ErrTimeout, reason},
		},
		"another's deadline": {
			t.Context(), context.DeadlineExceeded,
			engine.Error{Kind: engine.ErrTimeout, Message: "context deadline exceeded"},
			[]error{context.DeadlineExceeded},
		},
		"bad connection": {
			t.Context(), driver.ErrBadConn,
			engine.Error{Kind: engine.ErrConnLost, Message: "connection is closed"},
			nil,
		},
		"anything else": {
			t.Context(), reason,
			engine.Error{Message: "the client went away"},
			[]error{reason},
		},
		"explained already": {
			cancelled, fmt.Errorf("again: %w", &engine.Error{Message: "m", Code: "c"}),
			engine.Error{Message: "m", Code: "c"},
			nil,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := explain(test.ctx, test.err)
			if diff := cmp.Diff(test.want, *got, errorOpts); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			for _, target := range test.matches {
				if !errors.Is(got, target) {
					t.Errorf("errors.Is(%v, %v): got false, want true", got, target)
				}
			}
			if errors.Is(got, driver.ErrBadConn) {
				t.Error("errors.Is(err, driver.ErrBadConn): got true, want false")
			}
		})
	}

	interrupted := explainCode(cancelled, 9, "interrupted (9)", reason)
	if interrupted.Code != "SQLITE_INTERRUPT" || !errors.Is(interrupted, context.Canceled) {
		t.Errorf("interrupted statement: got %v, want the context's error", interrupted)
	}
}

func TestWithoutValue(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		"bad JSON path: 'secret'":            "bad JSON path",
		"no such column: secret":             "no such column",
		`fts5: syntax error near "secret"`:   "fts5: syntax error near",
		"malformed MATCH expression: [se]":   "malformed MATCH expression",
		"integer overflow":                   "integer overflow",
		"unable to open database: /a secret": "unable to open database",
		"it's":                               "it",
		"":                                   "",
	}
	for message, want := range tests {
		if got := withoutValue(message); got != want {
			t.Errorf("withoutValue(%q): got %q, want %q", message, got, want)
		}
	}
}

// FuzzExplainCode gives codes that no SQLite gives: the primary code decides
// what the extended one does not, and the kind never comes from the text.
func FuzzExplainCode(f *testing.F) {
	for _, code := range []int{
		sqlite3.SQLITE_ERROR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_BUSY_SNAPSHOT, sqlite3.SQLITE_CONSTRAINT_UNIQUE,
		sqlite3.SQLITE_CONSTRAINT_CHECK, sqlite3.SQLITE_READONLY_DBMOVED, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_FULL, -1, 0, 1 << 30,
	} {
		f.Add(code, "UNIQUE constraint failed: t.a, t.b", "a: b (SQLITE_BUSY)")
		f.Add(code, "UNIQUE constraint failed: index 'low'", "")
	}
	f.Fuzz(func(t *testing.T, code int, text, other string) {
		cause := errors.New("cause")
		one, two := explainCode(t.Context(), code, text, cause), explainCode(t.Context(), code, other, cause)
		if one.Kind != two.Kind || one.Retry != two.Retry || one.Aborts != two.Aborts || one.Code != two.Code {
			t.Errorf("code %d: the text decides: %+v and %+v", code, one, two)
		}
		if !errors.Is(one, cause) {
			t.Errorf("code %d: %v does not wrap the driver's error", code, one)
		}
		want := map[int]error{
			sqlite3.SQLITE_BUSY: engine.ErrLocked, sqlite3.SQLITE_LOCKED: engine.ErrLocked, sqlite3.SQLITE_READONLY: engine.ErrReadOnly,
		}[code&0xff]
		if code == sqlite3.SQLITE_BUSY_SNAPSHOT {
			want = engine.ErrSerialization
		}
		if code&0xff != sqlite3.SQLITE_CONSTRAINT && one.Kind != want {
			t.Errorf("code %d: got kind %v, want %v", code, one.Kind, want)
		}
		if retries := errors.Is(one, engine.ErrLocked) || errors.Is(one, engine.ErrSerialization); retries != (one.Retry != engine.RetryNever) {
			t.Errorf("code %d: got kind %v and retry %d", code, one.Kind, one.Retry)
		}
	})
}

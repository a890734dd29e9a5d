package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/testdb"
	"github.com/tholedb/thole/migrations"
	"github.com/tholedb/thole/testing/dbtest"
)

var databases = dbtest.Config{
	Migrations: migrations.FS,
	Configure:  func(cfg *thole.Config) { cfg.Logger = quiet },
}

const (
	tower  = `{"name":"Tower Shield","defense_rating":60,"material":"iron"}`
	mirror = `{"name":"Mirror of Dawn","defense_rating":70,"material":"silver","enchantment":"blinding light"}`
)

var quiet = slog.New(slog.DiscardHandler)

// eachURL runs test on an empty database of every engine.
func eachURL(t *testing.T, test func(t *testing.T, databaseURL string)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { t.Parallel(); test(t, testdb.SQLite(t)) })
	t.Run("postgres", func(t *testing.T) { t.Parallel(); test(t, testdb.Postgres(t)) })
}

// migrated makes the tables.
func migrated(t *testing.T, databaseURL string) string {
	t.Helper()
	db, err := thole.Open(t.Context(), databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Migrate(t.Context(), migrations.FS); err != nil {
		t.Fatal(err)
	}
	return databaseURL
}

// open opens a database that is not quite what its URL says.
func open(t *testing.T, databaseURL string, change func(*thole.Config)) *thole.DB {
	t.Helper()
	cfg, err := thole.ParseURL(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Logger = quiet
	change(cfg)
	db, err := thole.OpenConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// eachService runs test on every engine.
func eachService(t *testing.T, test func(t *testing.T, handler http.Handler, db *thole.DB)) {
	t.Helper()
	databases.Each(t, func(t *testing.T, db *thole.DB) {
		t.Parallel()
		test(t, newHandler(db, quiet), db)
	})
}

func TestPostShield(t *testing.T) {
	t.Parallel()
	eachService(t, func(t *testing.T, handler http.Handler, db *thole.DB) {
		w := request(t, handler, http.MethodPost, "/shields", mirror)
		wantStatus(t, w, http.StatusCreated)
		want := Shield{"Mirror of Dawn", new(int32(70)), "silver", new("blinding light")}
		if diff := cmp.Diff(want, decode[Shield](t, w)); diff != "" {
			t.Errorf("shield (-want +got):\n%s", diff)
		}
		wantStatus(t, request(t, handler, http.MethodPost, "/shields", mirror), http.StatusConflict)
		wantStock(t, db, map[string]int{"silver": 1})
	})
}

func TestPostShieldRefused(t *testing.T) {
	t.Parallel()
	tests := []struct {
		body   string
		status int
		want   string // of the message
	}{
		{``, http.StatusBadRequest, "not JSON"},
		{`{`, http.StatusBadRequest, "not JSON"},
		{`[]`, http.StatusBadRequest, "the body has the wrong type"},
		{`null`, http.StatusBadRequest, "name must have"},
		{tower + tower, http.StatusBadRequest, "nothing after it"},
		{`{"name":"Tower Shield","colour":"red"}`, http.StatusBadRequest, `not known: "colour"`},
		{`{"name":7}`, http.StatusBadRequest, "name has the wrong type"},
		{`{"name":"x","defense_rating":"high","material":"iron"}`, http.StatusBadRequest, "defense_rating has the wrong type"},
		{`{"name":"x","defense_rating":2147483648,"material":"iron"}`, http.StatusBadRequest, "defense_rating has the wrong type"},
		{`{"name":"","defense_rating":1,"material":"iron"}`, http.StatusBadRequest, "name must have"},
		{`{"name":"x\u0000","defense_rating":1,"material":"iron"}`, http.StatusBadRequest, "name must have"},
		{`{"name":"x","defense_rating":1}`, http.StatusBadRequest, "material must have"},
		{`{"name":"x","defense_rating":1,"material":"iron","enchantment":""}`, http.StatusBadRequest, "enchantment must have"},
		{`{"name":"` + strings.Repeat("x", maxText+1) + `","defense_rating":1,"material":"iron"}`, http.StatusBadRequest, "1 to 100 bytes"},
		{`{"name":"` + strings.Repeat("x", maxBody) + `"}`, http.StatusRequestEntityTooLarge, "4096 bytes"},
		{`{"name":"x","material":"iron"}`, http.StatusUnprocessableEntity, "missing or out of range"},
		{`{"name":"x","defense_rating":-1,"material":"iron"}`, http.StatusUnprocessableEntity, "missing or out of range"},
	}
	eachService(t, func(t *testing.T, handler http.Handler, db *thole.DB) {
		for _, test := range tests {
			w := request(t, handler, http.MethodPost, "/shields", test.body)
			wantStatus(t, w, test.status)
			if got := decode[httpError](t, w); !strings.Contains(got.Message, test.want) {
				t.Errorf("message for %.80s: got %q, want %q in it", test.body, got.Message, test.want)
			}
		}
		wantStock(t, db, map[string]int{})
	})
}

// TestPostShieldIsWhole breaks the second statement: the first one is undone.
func TestPostShieldIsWhole(t *testing.T) {
	t.Parallel()
	eachService(t, func(t *testing.T, handler http.Handler, db *thole.DB) {
		if _, err := db.ExecContext(t.Context(), "ALTER TABLE armoury RENAME TO elsewhere"); err != nil {
			t.Fatal(err)
		}
		wantStatus(t, request(t, handler, http.MethodPost, "/shields", tower), http.StatusInternalServerError)
		wantStatus(t, request(t, handler, http.MethodGet, "/shields/Tower%20Shield", ""), http.StatusNotFound)
	})
}

func TestGetShield(t *testing.T) {
	t.Parallel()
	eachService(t, func(t *testing.T, handler http.Handler, _ *thole.DB) {
		request(t, handler, http.MethodPost, "/shields", tower)
		w := request(t, handler, http.MethodGet, "/shields/Tower%20Shield", "")
		wantStatus(t, w, http.StatusOK)
		want := `{"name":"Tower Shield","defense_rating":60,"material":"iron","enchantment":null}` + "\n"
		if diff := cmp.Diff(want, w.Body.String()); diff != "" {
			t.Errorf("body (-want +got):\n%s", diff)
		}
		for _, name := range []string{"Kite%20Shield", "%00", "%FF", strings.Repeat("x", maxText+1)} {
			wantStatus(t, request(t, handler, http.MethodGet, "/shields/"+name, ""), http.StatusNotFound)
		}
	})
}

func TestGetShields(t *testing.T) {
	t.Parallel()
	eachService(t, func(t *testing.T, handler http.Handler, _ *thole.DB) {
		if got := request(t, handler, http.MethodGet, "/shields", "").Body.String(); got != "[]\n" {
			t.Errorf("no shields: got %q, want []", got)
		}
		var want []string
		for i := range page + 1 {
			want = append(want, fmt.Sprintf("Shield %03d", i))
			body := fmt.Sprintf(`{"name":"Shield %03d","defense_rating":1,"material":"oak"}`, i)
			wantStatus(t, request(t, handler, http.MethodPost, "/shields", body), http.StatusCreated)
		}
		if diff := cmp.Diff(want[:page], listed(t, handler, "")); diff != "" {
			t.Errorf("first page (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(want[page:], listed(t, handler, "?after=Shield+099")); diff != "" {
			t.Errorf("second page (-want +got):\n%s", diff)
		}
		wantStatus(t, request(t, handler, http.MethodGet, "/shields?after=%00", ""), http.StatusBadRequest)
	})
}

func listed(t *testing.T, handler http.Handler, query string) []string {
	t.Helper()
	w := request(t, handler, http.MethodGet, "/shields"+query, "")
	wantStatus(t, w, http.StatusOK)
	var names []string
	for _, shield := range decode[[]Shield](t, w) {
		names = append(names, shield.Name)
	}
	return names
}

func TestDeleteShield(t *testing.T) {
	t.Parallel()
	eachService(t, func(t *testing.T, handler http.Handler, db *thole.DB) {
		request(t, handler, http.MethodPost, "/shields", tower)
		wantStatus(t, request(t, handler, http.MethodDelete, "/shields/Tower%20Shield", ""), http.StatusNoContent)
		for _, name := range []string{"Tower%20Shield", "%00"} {
			wantStatus(t, request(t, handler, http.MethodDelete, "/shields/"+name, ""), http.StatusNotFound)
		}
		wantStock(t, db, map[string]int{"iron": 0})
	})
}

// TestReadOnly has a database on which nothing can be written.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	readOnly := databases
	readOnly.Configure = func(cfg *thole.Config) { cfg.Session.ReadOnly = true }
	readOnly.Each(t, func(t *testing.T, db *thole.DB) {
		handler := newHandler(db, quiet)
		w := request(t, handler, http.MethodPost, "/shields", tower)
		wantStatus(t, w, http.StatusServiceUnavailable)
		wantRetryAfter(t, w)
		wantStatus(t, request(t, handler, http.MethodGet, "/shields", ""), http.StatusOK)
	})
}

// TestLocked asks for what another session holds, and asks again as it is told
// to.
func TestLocked(t *testing.T) {
	t.Parallel()
	impatient := databases
	impatient.Configure = func(cfg *thole.Config) { cfg.Session.LockTimeout = time.Millisecond }
	impatient.EachDatabase(t, func(t *testing.T, db *thole.DB) { // in a sandbox sessions don't meet
		handler := newHandler(db, quiet)
		err := db.WithSession(t.Context(), func(tx *thole.Tx) error {
			_, err := tx.ExecContext(t.Context(), "INSERT INTO shields VALUES ('Tower Shield', 1, 'iron', NULL)")
			if err != nil {
				return err
			}
			answered := make(chan *httptest.ResponseRecorder)
			go func() { answered <- request(t, handler, http.MethodPost, "/shields", tower) }()
			w := <-answered
			wantStatus(t, w, http.StatusServiceUnavailable)
			wantRetryAfter(t, w)
			return errUndo
		})
		if !errors.Is(err, errUndo) {
			t.Fatal(err)
		}
		wantStatus(t, request(t, handler, http.MethodPost, "/shields", tower), http.StatusCreated)
	})
}

var errUndo = errors.New("undo")

func TestCancelled(t *testing.T) {
	t.Parallel()
	eachService(t, func(t *testing.T, handler http.Handler, db *thole.DB) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPost, "/shields", strings.NewReader(tower)))
		wantStatus(t, w, statusClientClosedRequest)
		wantStock(t, db, map[string]int{})
	})
}

// request asks the handler.
func request(t *testing.T, handler http.Handler, method, target, body string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body)))
	return w
}

func decode[T any](t *testing.T, w *httptest.ResponseRecorder) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Errorf("body: got %s, want JSON: %v", w.Body, err)
	}
	return v
}

// wantStock compares what the armoury counts.
func wantStock(t *testing.T, db *thole.DB, want map[string]int) {
	t.Helper()
	if diff := cmp.Diff(want, stock(t, db, "SELECT material, stock AS n FROM armoury")); diff != "" {
		t.Errorf("armoury (-want +got):\n%s", diff)
	}
}

// stock reads materials and their numbers.
func stock(t *testing.T, db *thole.DB, query string) map[string]int {
	t.Helper()
	var rows []struct {
		Material string
		N        int
	}
	if err := db.SelectContext(t.Context(), &rows, query); err != nil {
		t.Fatal(err)
	}
	counted := make(map[string]int, len(rows))
	for _, row := range rows {
		counted[row.Material] = row.N
	}
	return counted
}

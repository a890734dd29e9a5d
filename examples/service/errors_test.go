package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/testing/dbtest"
)

func TestHTTPErrorOf(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err  error
		want int
	}{
		{sql.ErrNoRows, http.StatusNotFound},
		{thole.ErrUnique, http.StatusConflict},
		{thole.ErrCheck, http.StatusUnprocessableEntity},
		{thole.ErrNotNull, http.StatusUnprocessableEntity},
		{thole.ErrForeignKey, http.StatusUnprocessableEntity},
		{thole.ErrReadOnly, http.StatusServiceUnavailable},
		{thole.ErrTimeout, http.StatusServiceUnavailable},
		{errors.Join(thole.ErrTimeout, context.DeadlineExceeded), http.StatusServiceUnavailable},
		{thole.ErrLocked, http.StatusServiceUnavailable},
		{thole.ErrSerialization, http.StatusServiceUnavailable},
		{thole.ErrDeadlock, http.StatusServiceUnavailable},
		{thole.ErrConnLost, http.StatusServiceUnavailable},
		{thole.ErrClosed, http.StatusServiceUnavailable},
		{context.Canceled, statusClientClosedRequest},
		{errors.Join(thole.ErrConnLost, context.Canceled), statusClientClosedRequest},
		{errors.Join(thole.ErrTxAborted, thole.ErrUnique), http.StatusInternalServerError},
		{thole.ErrTxDone, http.StatusInternalServerError},
		{thole.ErrRowsOpen, http.StatusInternalServerError},
		{errors.New("anything else"), http.StatusInternalServerError},
		{badRequest("this is wrong"), http.StatusBadRequest},
	} {
		got := httpErrorOf(fmt.Errorf("wrapped: %w", test.err))
		if got.Status != test.want {
			t.Errorf("status of %v: got %d, want %d", test.err, got.Status, test.want)
		}
		if got.Outcome != "" {
			t.Errorf("outcome of %v: got %q, want none", test.err, got.Outcome)
		}
	}
}

// TestUnknown loses the answer to COMMIT. The client that asks again, as it is
// told to, learns that the shield was forged.
func TestUnknown(t *testing.T) {
	t.Parallel()
	eachService(t, func(t *testing.T, handler http.Handler, db *thole.DB) {
		dbtest.Faults(t, db).LoseCommitReply()
		w := request(t, handler, http.MethodPost, "/shields", tower)
		wantStatus(t, w, http.StatusServiceUnavailable)
		wantRetryAfter(t, w)
		got := decode[httpError](t, w)
		if diff := cmp.Diff(httpError{Message: errUnknown.Message, Outcome: "unknown"}, got); diff != "" {
			t.Errorf("body (-want +got):\n%s", diff)
		}
		wantStatus(t, request(t, handler, http.MethodPost, "/shields", tower), http.StatusConflict)
	})
}

// TestInternalsStayInside looks for what a failure knows in what the client is
// told.
func TestInternalsStayInside(t *testing.T) {
	t.Parallel()
	databases.Each(t, func(t *testing.T, db *thole.DB) {
		t.Parallel()
		var log strings.Builder
		s := &service{db: db, log: slog.New(slog.NewTextHandler(&log, nil))}
		handler := s.answer(func(_ http.ResponseWriter, r *http.Request) error {
			_, err := db.ExecContext(r.Context(), "INSERT INTO swords (name) VALUES (?)", "Excalibur")
			return err
		})
		w := httptest.NewRecorder()
		handler(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/shields", nil))
		wantStatus(t, w, http.StatusInternalServerError)
		for _, inside := range []string{"swords", "INSERT", "Excalibur"} {
			if strings.Contains(w.Body.String(), inside) {
				t.Errorf("body: got %s, want no %q in it", w.Body, inside)
			}
		}
		if !strings.Contains(log.String(), "swords") || strings.Contains(log.String(), "Excalibur") {
			t.Errorf("log: got %s, want the statement without its argument", &log)
		}
	})
}

func wantStatus(t *testing.T, w *httptest.ResponseRecorder, want int) {
	t.Helper()
	if w.Code != want {
		t.Errorf("status: got %d, %s, want %d", w.Code, w.Body, want)
	}
}

func wantRetryAfter(t *testing.T, w *httptest.ResponseRecorder) {
	t.Helper()
	if got := w.Header().Get("Retry-After"); got != "1" {
		t.Errorf("Retry-After: got %q, want 1", got)
	}
}

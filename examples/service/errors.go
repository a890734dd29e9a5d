package main

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"slices"

	"github.com/tholedb/thole"
)

// httpError is what a client is told of a failure: nothing of the SQL, the
// schema or the values.
type httpError struct {
	Status  int    `json:"-"`
	Message string `json:"error"`
	Outcome string `json:"outcome,omitempty"` // "unknown" where it is, else nothing happened
}

func (e *httpError) Error() string { return e.Message }

func badRequest(message string) error {
	return &httpError{Status: http.StatusBadRequest, Message: message}
}

// statusClientClosedRequest is what proxies log for a client that has gone.
const statusClientClosedRequest = 499

var (
	errUnknown = &httpError{
		Status:  http.StatusServiceUnavailable,
		Message: "it is unknown whether this happened: ask again with the same name; if it did, POST then answers 409 and DELETE 404",
		Outcome: thole.Unknown.String(),
	}
	errCancelled = &httpError{Status: statusClientClosedRequest, Message: "the request was cancelled, nothing happened"}
	errNoShield  = &httpError{Status: http.StatusNotFound, Message: "there is no such shield"}
	errExists    = &httpError{Status: http.StatusConflict, Message: "there is such a shield"}
	errRefused   = &httpError{Status: http.StatusUnprocessableEntity, Message: "this can't be a shield: a value is missing or out of range"}
	errReadOnly  = &httpError{Status: http.StatusServiceUnavailable, Message: "nothing can be changed at the moment, nothing happened: try again later"}
	errBusy      = &httpError{Status: http.StatusServiceUnavailable, Message: "nothing happened: try again"}
	errInternal  = &httpError{Status: http.StatusInternalServerError, Message: "internal error, nothing happened"}
)

// httpErrorOf says what a client is told of err, which a session returned. The
// order matters: an unknown outcome can have any cause, a request that was
// cancelled can have lost its connection by that, and a session that could not
// commit matches what it failed with before, too.
func httpErrorOf(err error) *httpError {
	is := func(targets ...error) bool {
		return slices.ContainsFunc(targets, func(target error) bool { return errors.Is(err, target) })
	}
	told, isTold := errors.AsType[*httpError](err)
	switch {
	case thole.OutcomeOf(err) == thole.Unknown:
		return errUnknown
	case isTold:
		return told
	case is(context.Canceled):
		return errCancelled
	case is(thole.ErrTxAborted): // a handler went on after a failure
		return errInternal
	case is(sql.ErrNoRows):
		return errNoShield
	case is(thole.ErrUnique):
		return errExists
	case is(thole.ErrCheck, thole.ErrNotNull, thole.ErrForeignKey):
		return errRefused
	case is(thole.ErrReadOnly): // the database is, as it can be after a failover
		return errReadOnly
	case is(thole.ErrTimeout, thole.ErrLocked, thole.ErrSerialization, thole.ErrDeadlock, thole.ErrConnLost, thole.ErrClosed):
		return errBusy
	}
	return errInternal
}

// answer makes a handler of one that returns an error.
func (s *service) answer(handle func(w http.ResponseWriter, r *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		err := handle(w, r)
		if err == nil {
			return
		}
		told := httpErrorOf(err)
		if told.Status >= http.StatusInternalServerError {
			s.log.ErrorContext(r.Context(), "request failed", "request", r.Pattern, "status", told.Status,
				"outcome", thole.OutcomeOf(err).String(), "error", err)
		}
		if told.Status == http.StatusServiceUnavailable {
			w.Header().Set("Retry-After", "1")
		}
		writeJSON(w, told.Status, told)
	}
}

package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxBody is how many bytes a request may have, maxText how many a text in it.
const (
	maxBody = 4 << 10
	maxText = 100
)

// readShield reads the one shield that is the body of a request. It refuses
// what no table can judge; what the table can it is left to.
func readShield(w http.ResponseWriter, r *http.Request) (Shield, error) {
	var shield Shield
	body := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	body.DisallowUnknownFields()
	if err := body.Decode(&shield); err != nil {
		return shield, unreadable(err)
	}
	if _, err := body.Token(); !errors.Is(err, io.EOF) {
		return shield, badRequest("the body must be one JSON object and nothing after it")
	}
	return shield, shield.check()
}

// unreadable says what is wrong with a body, without quoting its values.
func unreadable(err error) error {
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &httpError{Status: http.StatusRequestEntityTooLarge, Message: fmt.Sprintf("the body may have %d bytes", tooLarge.Limit)}
	}
	if mistyped, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return badRequest(cmp.Or(mistyped.Field, "the body") + " has the wrong type or is out of range")
	}
	if field, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok { // encoding/json has no type for it
		return badRequest("the body has a field that is not known: " + field)
	}
	return badRequest("the body is not JSON")
}

func (s Shield) check() error {
	switch {
	case !isText(s.Name):
		return badText("name")
	case !isText(s.Material):
		return badText("material")
	case s.Enchantment != nil && !isText(*s.Enchantment):
		return badText("enchantment")
	}
	return nil
}

func badText(field string) error {
	return badRequest(fmt.Sprintf("%s must have 1 to %d bytes and no control characters", field, maxText))
}

// isText reports whether both engines can store s: PostgreSQL refuses NUL, and
// what is not UTF-8.
func isText(s string) bool {
	return s != "" && len(s) <= maxText && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // fails when the client is gone
}

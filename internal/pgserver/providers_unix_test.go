//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package pgserver

import (
	"context"
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// askDocker has Docker be asked as if its package were imported, and return s or
// err.
func askDocker(t *testing.T, image string, s *Server, reason string, err error) {
	t.Helper()
	t.Setenv("DBTEST_URL", "")
	t.Setenv(ImageVariable, image)
	t.Cleanup(func() { docker = nil })
	RegisterDocker(func(_ context.Context, got string) (*Server, string, error) {
		if got != image {
			t.Errorf("Docker is asked for image %q, want %q", got, image)
		}
		return s, reason, err
	})
}

// hideLocal has no program be found on this machine.
func hideLocal(t *testing.T) {
	t.Helper()
	places := binPatterns
	binPatterns = nil
	t.Cleanup(func() { binPatterns = places })
	t.Setenv("PATH", t.TempDir())
}

// B28: DBTEST_URL, then the programs on this machine, then Docker; but Docker
// before the programs where an image is named.
//
//nolint:paralleltest // the environment is the process's
func TestB28Order(t *testing.T) {
	inDocker := &Server{URL: "postgres://docker/test", Provider: "Docker, image"}
	unset := Passed{"DBTEST_URL", "not set"}
	t.Run("local before Docker", func(t *testing.T) {
		newHost(t) // or there is nothing to start
		askDocker(t, "", nil, "", errors.New("it was asked"))
		s := findNow(t)
		if s.Passed[0] != unset || hasReason(s.Passed, "Docker", "") {
			t.Errorf("found %s, passed over %v", s.Provider, s.Passed)
		}
	})
	t.Run("Docker after local", func(t *testing.T) {
		askDocker(t, "", inDocker, "", nil)
		hideLocal(t)
		if s := findNow(t); s != inDocker || s.Passed[0] != unset || !hasReason(s.Passed, "PATH", "no initdb") {
			t.Errorf("found %s, passed over %v", s.Provider, s.Passed)
		}
	})
	t.Run("image before local", func(t *testing.T) {
		askDocker(t, "image", inDocker, "", nil)
		s := findNow(t)
		if diff := cmp.Diff([]Passed{unset}, s.Passed); s != inDocker || diff != "" {
			t.Errorf("found %s, passed over (-want +got):\n%s", s.Provider, diff)
		}
	})
	t.Run("URL before image", func(t *testing.T) {
		askDocker(t, "image", inDocker, "", nil)
		t.Setenv("DBTEST_URL", "postgres://host/test")
		if s := findNow(t); s.Provider != "DBTEST_URL" {
			t.Errorf("found %s, want that of DBTEST_URL", s.Provider)
		}
	})
	t.Run("local without an engine", func(t *testing.T) {
		newHost(t)
		askDocker(t, "image", nil, "no engine", nil)
		if s := findNow(t); s == inDocker || !hasReason(s.Passed, "Docker", "no engine") {
			t.Errorf("found %s, passed over %v", s.Provider, s.Passed)
		}
	})
	t.Run("local without the import", func(t *testing.T) {
		newHost(t)
		t.Setenv("DBTEST_URL", "")
		t.Setenv(ImageVariable, "image")
		if s := findNow(t); !hasReason(s.Passed, "Docker", ImageVariable+" is set, but Docker is not imported: import _ \"") {
			t.Errorf("found %s, passed over %v", s.Provider, s.Passed)
		}
	})
}

// A provider that is there and fails is not passed over.
func TestB28FailureIsNotPassedOver(t *testing.T) {
	broken := errors.New("broken")
	askDocker(t, "image", nil, "", broken)
	if s, err := find(t.Context()); !errors.Is(err, broken) || errors.As(err, new(*NotFoundError)) {
		t.Errorf("find = %v, %v, want %v", s, err, broken)
	}
	t.Setenv("DBTEST_URL", "postgres://host/orders")
	if s, err := find(t.Context()); err == nil || !strings.Contains(err.Error(), "DBTEST_UNSAFE=1") {
		t.Errorf("find = %v, %v, want DBTEST_URL refused", s, err)
	}
}

// B32: where there is nothing, every provider says why.
func TestB32NothingThere(t *testing.T) {
	t.Setenv("DBTEST_URL", "")
	hideLocal(t)
	if path, err := exec.LookPath("postgres"); err == nil {
		t.Fatalf("found %s, want none", path)
	}
	s, err := find(t.Context())
	var missing *NotFoundError
	if !errors.As(err, &missing) {
		t.Fatalf("find = %v, %v, want %T", s, err, missing)
	}
	for provider, reason := range map[string]string{
		"DBTEST_URL": "not set",
		"PATH":       "no initdb",
		"Docker":     "not imported: import _ \"github.com/tholedb/thole/testing/dbtest/dockerpg\"",
	} {
		if !hasReason(missing.Passed, provider, reason) {
			t.Errorf("error %q has no %s: %s", err, provider, reason)
		}
	}
	askDocker(t, "", nil, "no engine", nil)
	if _, err := find(t.Context()); !strings.HasSuffix(err.Error(), "; Docker: no engine") {
		t.Errorf("error %q does not end with Docker's reason", err)
	}
}

// findNow is find in this process, for the test alone.
func findNow(t *testing.T) *Server {
	t.Helper()
	s, err := find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.lifeline.Close() })
	return s
}

// hasReason reports whether a provider was passed over for such a reason.
func hasReason(passed []Passed, provider, reason string) bool {
	return slices.ContainsFunc(passed, func(p Passed) bool {
		return p.Provider == provider && strings.HasPrefix(p.Reason, reason)
	})
}

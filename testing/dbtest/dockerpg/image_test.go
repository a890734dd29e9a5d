package dockerpg

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ory/dockertest/v3/docker"
)

// registry serves the image thole-test-empty with one layer, which it holds back
// until it is told.
type registry struct {
	blobs    map[string][]byte
	manifest []byte
	layer    string        // its digest
	deliver  chan struct{} // closed when the layer may be had
	over     chan struct{} // closed when the test has ended
}

func newRegistry(t *testing.T) *registry {
	t.Helper()
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	content := time.Now().String() // so that the engine does not have it
	if err := w.WriteHeader(&tar.Header{Name: "file", Mode: 0o644, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(w, content)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r := &registry{blobs: map[string][]byte{}, deliver: make(chan struct{}), over: make(chan struct{})}
	r.layer = r.add(layer.Bytes())
	config := fmt.Appendf(nil, `{"os": "linux", "architecture": %q, "config": {}, "rootfs": {"type": "layers", "diff_ids": [%q]}}`,
		runtime.GOARCH, r.layer)
	r.manifest = fmt.Appendf(nil, `{"schemaVersion": 2, "mediaType": %q,
		"config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": %d, "digest": %q},
		"layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar", "size": %d, "digest": %q}]}`,
		manifestType, len(config), r.add(config), layer.Len(), r.layer)
	return r
}

const manifestType = "application/vnd.docker.distribution.manifest.v2+json"

func (r *registry) add(blob []byte) string {
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(blob))
	r.blobs[digest] = blob
	return digest
}

// ServeHTTP answers what a pull asks for.
//
// https://distribution.github.io/distribution/spec/api/
func (r *registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	digest := req.URL.Path[strings.LastIndex(req.URL.Path, "/")+1:]
	switch {
	case strings.Contains(req.URL.Path, "/manifests/"):
		w.Header().Set("Content-Type", manifestType)
		w.Header().Set("Docker-Content-Digest", fmt.Sprintf("sha256:%x", sha256.Sum256(r.manifest)))
		w.Write(r.manifest)
	case digest == r.layer:
		select {
		case <-r.deliver:
		case <-req.Context().Done():
			return
		case <-r.over:
			return
		}
		fallthrough
	default:
		w.Write(r.blobs[digest])
	}
}

// said collects lines, and calls heard for each.
type said struct {
	mu    sync.Mutex
	lines []string
	heard func(line string)
}

func (s *said) Write(line []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, string(line))
	s.heard(string(line))
	return len(line), nil
}

// pullable returns an engine and the name of an image that a registry has.
func pullable(t *testing.T) (*engine, *registry, string) {
	t.Helper()
	testServer(t, 0)
	e, err := connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if e.bind == "" || runtime.GOOS != "linux" {
		t.Skip("the engine is on another machine than the registry would be")
	}
	r := newRegistry(t)
	s := httptest.NewServer(r)
	t.Cleanup(func() {
		close(r.over) // the engine may go on with a pull that was given up
		s.Close()
	})
	return e, r, strings.TrimPrefix(s.URL, "http://") + "/thole-test-empty:1"
}

// TestB33Pull says that an image is being pulled, again while it is, and how
// long it took.
func TestB33Pull(t *testing.T) {
	t.Parallel()
	e, r, name := pullable(t)
	var once sync.Once
	out := &said{heard: func(line string) {
		if strings.Contains(line, "still pulling") {
			once.Do(func() { close(r.deliver) })
		}
	}}
	t.Cleanup(func() { e.Client.RemoveImage(name) })
	if err := e.pull(t.Context(), name, out, 10*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	first, last := out.lines[0], out.lines[len(out.lines)-1]
	if want := "dbtest: image " + name + ": pulling it ("; !strings.HasPrefix(first, want) {
		t.Errorf("first line = %q, want %q…", first, want)
	}
	if want := "dbtest: image " + name + ": pulled ("; !strings.HasPrefix(last, want) || !strings.HasSuffix(last, "s)\n") {
		t.Errorf("last line = %q, want %q… with the time", last, want)
	}
	lines := len(out.lines)
	id, _, err := e.image(t.Context(), name, out)
	if err != nil || id == "" || len(out.lines) != lines {
		t.Errorf("image that is there = %q, %v, %d lines, want its id and no pull", id, err, len(out.lines)-lines)
	}
}

// TestB33PullEnds when its time is over.
func TestB33PullEnds(t *testing.T) {
	t.Parallel()
	e, _, name := pullable(t)
	over := errors.New("over")
	ctx, cancel := context.WithCancelCause(t.Context())
	out := &said{heard: func(line string) {
		if strings.Contains(line, "still pulling") {
			cancel(over)
		}
	}}
	if err := e.pull(ctx, name, out, 10*time.Millisecond); !errors.Is(err, over) {
		t.Errorf("pull: error %v, want %v", err, over)
	}
	if _, err := e.Client.InspectImage(name); !errors.Is(err, docker.ErrNoSuchImage) {
		t.Errorf("inspect the image: error %v, want %v", err, docker.ErrNoSuchImage)
	}
}

// TestUnknownImage is an error: the provider is there, and is not passed over.
func TestUnknownImage(t *testing.T) {
	t.Parallel()
	testServer(t, 0)
	out := &said{heard: func(string) {}}
	s, reason, err := server{image: "127.0.0.1:1/none", progress: out}.find(t.Context())
	if s != nil || reason != "" || err == nil || !strings.Contains(err.Error(), "pull image 127.0.0.1:1/none: ") {
		t.Errorf("find = %v, %q, %v, want an error", s, reason, err)
	}
	if last := out.lines[len(out.lines)-1]; !strings.Contains(last, "not pulled") {
		t.Errorf("last line = %q, want the end", last)
	}
}

package dockerpg

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestB33Endpoint has the engine found as the docker command finds it.
func TestB33Endpoint(t *testing.T) {
	const usual = "unix:///var/run/docker.sock"
	for _, tt := range []struct {
		name, host, context, current string
		want                         string
		fails                        bool
	}{
		{name: "nothing set", want: usual},
		{name: "host", host: "tcp://10.0.0.1:2375", want: "tcp://10.0.0.1:2375"},
		{name: "current context", current: "there", want: "unix:///there.sock"},
		{name: "context", context: "there", current: "gone", want: "unix:///there.sock"},
		{name: "host before context", host: "tcp://10.0.0.1:2375", context: "there", want: "tcp://10.0.0.1:2375"},
		{name: "default context", context: "default", current: "there", want: usual},
		{name: "unknown context", context: "gone", fails: true},
		{name: "context without host", context: "hollow", fails: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "config.json"), fmt.Sprintf(`{"auths": {}, "currentContext": %q}`, tt.current))
			for name, endpoint := range map[string]string{"there": "unix:///there.sock", "hollow": ""} {
				id := fmt.Sprintf("%x", sha256.Sum256([]byte(name)))
				write(t, filepath.Join(dir, "contexts", "meta", id, "meta.json"),
					fmt.Sprintf(`{"Name": %q, "Metadata": {}, "Endpoints": {"docker": {"Host": %q, "SkipTLSVerify": false}}}`, name, endpoint))
			}
			t.Setenv("DOCKER_CONFIG", dir)
			t.Setenv("DOCKER_HOST", tt.host)
			t.Setenv("DOCKER_CONTEXT", tt.context)
			pool, err := newPool()
			if err != nil || tt.fails {
				if !tt.fails || err == nil {
					t.Errorf("newPool: error %v, want one: %v", err, tt.fails)
				}
				return
			}
			if got := pool.Client.Endpoint(); got != tt.want {
				t.Errorf("endpoint = %s, want %s", got, tt.want)
			}
		})
	}
}

// TestB32NoEngine gives the reason rather than an error.
func TestB32NoEngine(t *testing.T) {
	t.Setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
	s, reason, err := server{image: Image}.find(t.Context())
	if s != nil || err != nil || !strings.HasPrefix(reason, "no engine answers: ") || !strings.Contains(reason, "/nowhere/docker.sock") {
		t.Errorf("find = %v, %q, %v, want the reason alone", s, reason, err)
	}
}

func TestContainerNameStandsForAll(t *testing.T) {
	t.Parallel()
	base := server{image: "a", idle: 60e9}
	e := &engine{bind: "127.0.0.1"}
	names := map[string]string{
		"base":       base.options(e, "id", nil).Name,
		"image":      server{image: "b", idle: base.idle}.options(e, "id", nil).Name,
		"new image":  base.options(e, "other", nil).Name,
		"entrypoint": base.options(e, "id", []string{"x"}).Name,
		"idle":       server{image: "a", idle: 61e9}.options(e, "id", nil).Name,
		"address":    base.options(&engine{}, "id", nil).Name,
	}
	seen := map[string]string{}
	for what, name := range names {
		if other, ok := seen[name]; ok {
			t.Errorf("%s and %s have the same name %s", what, other, name)
		}
		seen[name] = what
	}
	if diff := cmp.Diff(base.options(e, "id", nil), base.options(e, "id", nil)); diff != "" {
		t.Errorf("the same server twice differs:\n%s", diff)
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

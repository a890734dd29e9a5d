package dockerpg

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/ory/dockertest/v3"
)

// pingLimit bounds how long an engine on another machine may take to answer.
const pingLimit = 5 * time.Second

// engine is a Docker engine that answers. Its client keeps no connection open.
type engine struct {
	*dockertest.Pool
	host string // where its containers' ports are
	bind string // the address that it opens them on; empty: all
}

// connect returns the engine that the docker command would use. Without one it
// fails at once, as nothing listens at the socket.
func connect(ctx context.Context) (*engine, error) {
	pool, err := newPool()
	if err != nil {
		return nil, err
	}
	e := &engine{Pool: pool, host: "127.0.0.1", bind: "127.0.0.1"}
	if u, err := url.Parse(pool.Client.Endpoint()); err == nil && u.Hostname() != "" && u.Scheme != "npipe" {
		e.host, e.bind = u.Hostname(), ""
	}
	ctx, cancel := context.WithTimeout(ctx, pingLimit)
	defer cancel()
	if err := pool.Client.PingWithContext(ctx); err != nil {
		return nil, fmt.Errorf("no engine answers: %w", err)
	}
	return e, nil
}

// newPool reads the docker command's configuration, which gives DOCKER_HOST
// precedence over contexts.
//
// https://docs.docker.com/engine/manage-resources/contexts/
func newPool() (*dockertest.Pool, error) {
	name := os.Getenv("DOCKER_CONTEXT")
	dir, err := configDir()
	if name == "" && err == nil {
		name = currentContext(dir)
	}
	if os.Getenv("DOCKER_HOST") != "" || name == "" || name == "default" {
		return dockertest.NewPool("")
	}
	if err != nil {
		return nil, err
	}
	id := fmt.Sprintf("%x", sha256.Sum256([]byte(name)))
	endpoint, err := contextEndpoint(filepath.Join(dir, "contexts", "meta", id, "meta.json"))
	if err != nil {
		return nil, fmt.Errorf("read Docker context %q: %w", name, err)
	}
	keys := filepath.Join(dir, "contexts", "tls", id, "docker")
	if _, err := os.Stat(keys); err == nil {
		return dockertest.NewTLSPool(endpoint, keys)
	}
	return dockertest.NewPool(endpoint)
}

// configDir is the folder of the docker command's configuration.
func configDir() (string, error) {
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		return dir, nil
	}
	home, err := os.UserHomeDir()
	return filepath.Join(home, ".docker"), err
}

// currentContext is the name that "docker context use" wrote, if any.
func currentContext(dir string) string {
	var config struct {
		CurrentContext string `json:"currentContext"`
	}
	if readJSON(filepath.Join(dir, "config.json"), &config) != nil {
		return "" // most people have no such file
	}
	return config.CurrentContext
}

// contextEndpoint is where the engine of a context listens.
func contextEndpoint(file string) (string, error) {
	var meta struct {
		Endpoints struct {
			Docker struct{ Host string } `json:"docker"`
		}
	}
	if err := readJSON(file, &meta); err != nil {
		return "", err
	}
	if meta.Endpoints.Docker.Host == "" {
		return "", errors.New("it names no host")
	}
	return meta.Endpoints.Docker.Host, nil
}

func readJSON(file string, to any) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, to)
}

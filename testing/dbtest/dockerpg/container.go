package dockerpg

import (
	"crypto/sha256"
	_ "embed"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ory/dockertest/v3/docker"

	"github.com/tholedb/thole/internal/pgserver"
)

const (
	// label is on every container of ours. Its value is the container's name.
	label = "thole.dbtest"

	port    = docker.Port("5432/tcp")
	memory  = "/thole"  // a folder that lies in memory
	shmSize = 256 << 20 // for parallel queries; Docker's 64 MB are too few
)

// settings are those of a server that several processes share, some of them on
// other machines: it finds out that a client is gone although the client waits
// for an answer, or could not say so.
var settings = []string{
	"client_connection_check_interval=10s",
	"tcp_keepalives_idle=60", "tcp_keepalives_interval=10", "tcp_keepalives_count=6",
}

// watch is what runs in a container.
//
//go:embed watch.sh
var watch string

// options are the container as all processes that share it would create it, but
// for the password. Its name stands for all that it is; as the engine allows one
// of a name, no two processes create two.
func (s server) options(e *engine, id string, entrypoint []string) docker.CreateContainerOptions {
	seconds := int(s.idle / time.Second)
	config := &docker.Config{
		Image:      id,
		Entrypoint: slices.Concat([]string{"sh", "-c", watch, "sh"}, entrypoint),
		Cmd:        []string{"postgres"},
		Env: []string{
			"PGDATA=" + memory + "/data",
			"POSTGRES_INITDB_ARGS=" + strings.Join(pgserver.ClusterArgs, " "),
			"THOLE_IDLE=" + strconv.Itoa(seconds),
			"THOLE_STEP=" + strconv.Itoa(max(seconds/12, 1)),
			"THOLE_LOCK=" + strconv.Itoa(lock),
		},
		ExposedPorts: map[docker.Port]struct{}{port: {}},
	}
	for _, setting := range slices.Concat(pgserver.Settings, settings) {
		config.Cmd = append(config.Cmd, "-c", setting)
	}
	host := &docker.HostConfig{
		AutoRemove:   true,
		PortBindings: map[docker.Port][]docker.PortBinding{port: {{HostIP: e.bind, HostPort: "0"}}},
		ShmSize:      shmSize,
		Tmpfs:        map[string]string{memory: ""},
	}
	key := sha256.Sum256(fmt.Appendf(nil, "%q %+v %+v", s.image, *config, *host))
	name := fmt.Sprintf("thole-dbtest-%x", key[:8])
	config.Labels = map[string]string{label: name}
	return docker.CreateContainerOptions{Name: name, Config: config, HostConfig: host}
}

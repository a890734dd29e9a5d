package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// postmaster is the process on this machine whose children are the server's; 0
// where that is not known, as on another system than Linux.
type postmaster int

// findPostmaster finds the process that has started the one behind conn.
func findPostmaster(ctx context.Context, conn *pgx.Conn) (postmaster, error) {
	var pid int
	if err := conn.QueryRow(ctx, "select pg_backend_pid()").Scan(&pid); err != nil {
		return 0, err
	}
	process, err := readProcess(pid)
	if errors.Is(err, fs.ErrNotExist) || err == nil && process.name != "postgres" {
		return 0, nil // the server is on another machine
	}
	return postmaster(process.parent), err
}

// cpuTime is how long the processes of the server that run now have had a CPU.
func (p postmaster) cpuTime() time.Duration {
	if p == 0 {
		return 0
	}
	var total time.Duration
	pids, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range pids {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		if process, err := readProcess(pid); err == nil && process.parent == int(p) {
			total += process.cpu
		}
	}
	return total
}

// process is what Linux tells of one.
type process struct {
	name   string
	parent int
	cpu    time.Duration
}

// readProcess reads /proc. The nanoseconds of schedstat are better than the
// hundredths of a second in stat.
//
// https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
// https://docs.kernel.org/scheduler/sched-stats.html
func readProcess(pid int) (process, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, err
	}
	sched, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid))
	if err != nil {
		return process{}, err
	}
	var p process
	var cpu int64
	open, end := strings.IndexByte(string(stat), '('), strings.LastIndexByte(string(stat), ')')
	if open < 0 || end < open {
		return process{}, fmt.Errorf("read /proc/%d/stat: no name in it", pid)
	}
	p.name = string(stat[open+1 : end])
	var state string
	if _, err := fmt.Sscan(string(stat[end+1:]), &state, &p.parent); err != nil {
		return process{}, err
	}
	if _, err := fmt.Sscan(string(sched), &cpu); err != nil {
		return process{}, err
	}
	p.cpu = time.Duration(cpu)
	return p, nil
}

//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package pgserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	dirPrefix = "thole-pg-"
	lockName  = "lock"
)

// makeDir makes a server's directory in the first folder that serves, and a
// locked file in it. The lock is held by us and then by the watcher, so that a
// directory whose lock is free has lost both.
func (h host) makeDir() (string, *os.File, error) {
	for _, parent := range h.parents {
		h.sweep(parent)
	}
	var failures []error
	for _, parent := range h.parents {
		dir, lock, err := h.makeDirIn(parent)
		if err == nil {
			return dir, lock, nil
		}
		failures = append(failures, err)
	}
	return "", nil, fmt.Errorf("make directory: %w", errors.Join(failures...))
}

func (h host) makeDirIn(parent string) (string, *os.File, error) {
	dir, err := os.MkdirTemp(parent, dirPrefix)
	if err != nil {
		return "", nil, err
	}
	lock, err := makeLock(filepath.Join(dir, lockName))
	if err == nil {
		err = h.give(dir)
	}
	if err == nil {
		// A parent of the directory may be closed to the server's account.
		err = h.command(context.Background(), dir, "/bin/sh", "-c", ":").Run()
	}
	if err != nil {
		lock.Close()
		os.RemoveAll(dir)
		return "", nil, err
	}
	return dir, lock, nil
}

// makeLock makes a locked file. It gets its name when it is locked, so that
// sweep finds none that is yet to be.
func makeLock(path string) (*os.File, error) {
	f, err := os.Create(path + ".new")
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// sweep removes the directories in parent whose process and watcher are both
// gone, as after a power cut. Whatever cannot be removed is left to the next
// run. A server that outlived its watcher ends by itself within a minute of its
// directory's going.
func (h host) sweep(parent string) {
	entries, _ := os.ReadDir(parent) // nothing to sweep where nothing can be read
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), dirPrefix) {
			continue
		}
		info, err := e.Info()
		if err != nil {
			continue // somebody else has swept it
		}
		// In a folder open to all, anybody can make directories of this name.
		if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid == h.owner() {
			removeUnlocked(filepath.Join(parent, e.Name()), time.Since(info.ModTime()))
		}
	}
}

// removeUnlocked removes a server's directory if nobody holds its lock. One that
// has no lock yet, or whose process died just then, is left for an hour.
func removeUnlocked(dir string, age time.Duration) {
	lock, err := os.Open(filepath.Join(dir, lockName))
	if errors.Is(err, os.ErrNotExist) && age > time.Hour {
		os.RemoveAll(dir)
	}
	if err != nil {
		return
	}
	defer lock.Close()
	if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
		os.RemoveAll(dir)
	}
}

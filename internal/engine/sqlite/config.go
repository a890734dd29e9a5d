package sqlite

import (
	"cmp"
	"fmt"
	"math"
	"runtime"
	"strings"
	"time"

	"modernc.org/sqlite"

	"github.com/tholedb/thole/internal/engine"
)

// Config says which database to open and how. Its zero value is a database in memory.
type Config struct {
	// Path is the database file. It is created if it doesn't exist, for its
	// owner only, and so are the folders above it. A relative path is one in
	// the working directory at the time of opening.
	// Default: no file; all sessions share one database in memory, which ends
	// with Close. It has one connection, so that also readers wait in line, and
	// for open rows. ":memory:" means the same.
	Path string

	// Synchronous is how often SQLite waits for the disk: "normal" may lose the
	// last commits when the power fails, "full" and "extra" lose none; see
	// https://sqlite.org/pragma.html#pragma_synchronous.
	// Default: "full".
	Synchronous string

	// BusyTimeout is how long a statement waits for the locks of other
	// processes; readers count whole milliseconds. What waits in this process
	// follows the session's LockTimeout, which cuts this one too.
	// Default: 10 s.
	BusyTimeout time.Duration

	// Readers is how many connections read, besides the one that writes. A
	// database in memory has one connection for both.
	// Default: GOMAXPROCS, and at least 4.
	Readers int

	// Driver is called once with the private driver of the database, before
	// its first connection. Functions, collations, modules and connection hooks
	// are registered there; each connection has them. Pragmas that all
	// connections shall have belong in a hook. The commit hook and the rollback
	// hook of a connection are thole's own.
	// Default: nothing is registered.
	Driver func(*sqlite.Driver) error
}

// maxReaders bounds what a typing error can do.
const maxReaders = 1000

// synchronous are the values of the pragma of this name, as it reads back.
var synchronous = map[string]string{"normal": "1", "full": "2", "extra": "3"}

// inMemory reports whether the database has no file.
func (c Config) inMemory() bool { return c.Path == "" || c.Path == ":memory:" }

// complete returns the configuration with its defaults in place, or the first thing that is wrong with it.
func (c Config) complete() (Config, error) {
	c.Synchronous = strings.ToLower(cmp.Or(c.Synchronous, "full"))
	c.BusyTimeout = cmp.Or(c.BusyTimeout, 10*time.Second)
	c.Readers = cmp.Or(c.Readers, max(runtime.GOMAXPROCS(0), 4))
	if strings.ContainsRune(c.Path, 0) {
		return c, refuse("the path has a NUL byte in it")
	}
	if c.Synchronous == "off" {
		return c, refuse("synchronous=off is not supported, as a crash can destroy the database; it is full, normal or extra")
	}
	if _, ok := synchronous[c.Synchronous]; !ok {
		return c, refuse("synchronous is full, normal or extra")
	}
	if c.BusyTimeout < time.Millisecond || c.BusyTimeout.Milliseconds() > math.MaxInt32 {
		return c, refuse("busy_timeout is a duration such as 5s, or a number of milliseconds, from 1ms to 596h")
	}
	if c.Readers < 1 || c.Readers > maxReaders {
		return c, refuse(fmt.Sprintf("readers is a number from 1 to %d", maxReaders))
	}
	return c, nil
}

// refuse returns the error of a configuration, from a URL or not.
func refuse(why string) *engine.Error {
	return &engine.Error{Kind: engine.ErrURL, Message: why}
}

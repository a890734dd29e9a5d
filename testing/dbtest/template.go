package dbtest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"reflect"
	"runtime/debug"
	"sync"
	"unsafe"

	"github.com/tholedb/thole"
)

// This file is about templates: databases with the migrations and fixtures of a
// Config, made once, of which each test has a copy.

// templateVersion is part of a template's name, and changes when templates do.
const templateVersion = "1"

// isEmpty reports whether the template is an empty database.
func (c Config) isEmpty() bool { return c.Migrations == nil && c.Fixtures == nil }

// fill makes an empty database what the Config says.
func (c Config) fill(ctx context.Context, db *thole.DB) error {
	if err := c.migrate(ctx, db); err != nil {
		return err
	}
	return c.load(ctx, db)
}

func (c Config) migrate(ctx context.Context, db *thole.DB) error {
	if c.Migrations == nil {
		return nil
	}
	return guarded("Migrations", func() error { return db.Migrate(ctx, c.Migrations) })
}

func (c Config) load(ctx context.Context, db *thole.DB) error {
	if c.Fixtures == nil {
		return nil
	}
	return guarded("Fixtures", func() error {
		if err := c.Fixtures(ctx, db); err != nil {
			return fmt.Errorf("run Fixtures: %w", err)
		}
		return nil
	})
}

// guarded runs do, in which what is named has a part. A panic or runtime.Goexit is an
// error then, for all tests that ask for the template rather than for the one that
// happens to make it. Goexit can't be stopped: do has a goroutine of its own.
func guarded(what string, do func() error) error {
	err := fmt.Errorf("%s called runtime.Goexit (t.FailNow?)", what)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if v := recover(); v != nil {
				err = fmt.Errorf("%s panicked: %v\n%s", what, v, debug.Stack())
			}
		}()
		err = do()
	}()
	<-done
	return err
}

// configure lets the Config change a configuration.
func (c Config) configure(cfg *thole.Config) *thole.Config {
	if c.Configure != nil {
		c.Configure(cfg)
	}
	return cfg
}

// forTemplate is a configuration by which a template is made: what it says of the
// sessions of tests is not for those of migrations and fixtures.
func forTemplate(cfg *thole.Config) *thole.Config {
	own := *cfg
	own.Session = thole.SessionOptions{}
	return &own
}

// identity tells Configs with equal templates, within this process. It costs
// little where Migrations is an embed.FS, or another type that compares.
type identity struct {
	migrations          any
	fixtures, configure unsafe.Pointer
}

func (c Config) identity() identity {
	id := identity{fixtures: pointer(c.Fixtures), configure: pointer(c.Configure)}
	switch v := reflect.ValueOf(c.Migrations); {
	case !v.IsValid():
	case v.Comparable():
		id.migrations = c.Migrations
	default:
		id.migrations = c.digest() // of a map, whose files may change
	}
	return id
}

// pointer tells functions apart, also two closures of one literal.
func pointer[F any](f F) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&f)) }

// digest is one of all files of the migrations, in hexadecimal. Files that can't be
// read are left out: migrating says so. Where reading panics it is like no other.
func (c Config) digest() string {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%s\n", templateVersion)
	if c.Migrations != nil && guarded("Migrations", func() error { return c.addFiles(h) }) != nil {
		_, _ = fmt.Fprintln(h, rand.Text())
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// addFiles writes the files of the migrations to h, which never fails.
func (c Config) addFiles(h io.Writer) error {
	return fs.WalkDir(c.Migrations, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return nil //nolint:nilerr // see digest
		}
		content, _ := fs.ReadFile(c.Migrations, path)
		_, _ = fmt.Fprintf(h, "%q %d\n", path, len(content))
		_, _ = h.Write(content)
		return nil
	})
}

// keys are names for identities, in this process.
var keys names

type names struct {
	mu    sync.Mutex
	known map[identity]string
}

func (n *names) of(id identity) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.known == nil {
		n.known = map[identity]string{}
	}
	if _, ok := n.known[id]; !ok {
		n.known[id] = rand.Text()
	}
	return n.known[id]
}

// once makes a value for each identity once, and keeps it, and the Config's
// functions, as long as the process lives.
type once[T any] struct {
	mu   sync.Mutex
	made map[identity]func() (T, error)
}

func (o *once[T]) get(id identity, fill func() (T, error)) (T, error) {
	o.mu.Lock()
	if o.made == nil {
		o.made = map[identity]func() (T, error){}
	}
	get, ok := o.made[id]
	if !ok {
		get = sync.OnceValues(fill)
		o.made[id] = get
	}
	o.mu.Unlock()
	return get()
}

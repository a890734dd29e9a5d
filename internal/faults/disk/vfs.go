package disk

import (
	"path/filepath"
	"sync"
	"unsafe"

	"modernc.org/libc"
	"modernc.org/libc/sys/types"
	sqlite3 "modernc.org/sqlite/lib"
)

// SQLite's functions for files, https://sqlite.org/c3ref/io_methods.html, and
// the one that opens them, https://sqlite.org/c3ref/vfs.html.
type (
	opens     = func(tls *libc.TLS, vfs, name, file uintptr, flags int32, outFlags uintptr) int32
	closes    = func(tls *libc.TLS, file uintptr) int32
	transfers = func(tls *libc.TLS, file, data uintptr, size int32, offset int64) int32
	truncates = func(tls *libc.TLS, file uintptr, size int64) int32
	syncs     = func(tls *libc.TLS, file uintptr, flags int32) int32
)

// shim is SQLite's own file system with another function that opens files. As
// that opens them with SQLite's own, they are SQLite's own files, and all that
// is changed in one on a [Disk] is its table of functions.
var shim struct {
	once  sync.Once
	below uintptr // the file system
	opens opens   // of it

	mu     sync.RWMutex
	disks  map[string]*Disk    // by folder
	files  map[uintptr]*file   // by SQLite's own
	tables map[uintptr]uintptr // ours by SQLite's own
}

// file is an open file on a disk.
type file struct {
	disk  *Disk
	below *sqlite3.Tsqlite3_io_methods
}

func mount(folder string, d *Disk) {
	shim.once.Do(install)
	shim.mu.Lock()
	defer shim.mu.Unlock()
	shim.disks[folder] = d
}

func unmount(folder string) {
	shim.mu.Lock()
	defer shim.mu.Unlock()
	delete(shim.disks, folder)
}

// install makes the shim what SQLite opens files with by default. What SQLite
// keeps a pointer to is in memory of its own, and stays there.
func install() {
	shim.disks = make(map[string]*Disk)
	shim.files = make(map[uintptr]*file)
	shim.tables = make(map[uintptr]uintptr)
	tls := libc.NewTLS()
	defer tls.Close()
	shim.below = sqlite3.Xsqlite3_vfs_find(tls, 0)
	vfs := clone[sqlite3.Tsqlite3_vfs](tls, shim.below)
	shim.opens = function[opens](at[sqlite3.Tsqlite3_vfs](vfs).FxOpen)
	at[sqlite3.Tsqlite3_vfs](vfs).FxOpen = pointer[opens](openFile)
	name, err := libc.CString("faults")
	if err != nil {
		panic(err)
	}
	at[sqlite3.Tsqlite3_vfs](vfs).FzName = name
	if rc := sqlite3.Xsqlite3_vfs_register(tls, vfs, 1); rc != sqlite3.SQLITE_OK {
		panic("disk: SQLite refuses the file system")
	}
}

// clone is a copy of a T of SQLite's, which nobody frees.
func clone[T any](tls *libc.TLS, from uintptr) uintptr {
	to := libc.Xmalloc(tls, types.Size_t(unsafe.Sizeof(*new(T))))
	if to == 0 {
		panic("disk: no memory")
	}
	*at[T](to) = *at[T](from)
	return to
}

// at is what stands at an address of SQLite's.
func at[T any](address uintptr) *T { return *(**T)(unsafe.Pointer(&address)) }

// pointer is what SQLite calls a Go function by: the pointer that is the
// function's value, https://golang.org/s/go11func.
func pointer[F any](f F) uintptr { return *(*uintptr)(unsafe.Pointer(&struct{ f F }{f})) }

// function is the reverse of pointer.
func function[F any](p uintptr) F { return *(*F)(unsafe.Pointer(&struct{ p uintptr }{p})) }

func openFile(tls *libc.TLS, _, name, handle uintptr, flags int32, outFlags uintptr) int32 {
	rc := shim.opens(tls, shim.below, name, handle, flags, outFlags)
	if rc != sqlite3.SQLITE_OK || name == 0 {
		return rc
	}
	shim.mu.Lock()
	defer shim.mu.Unlock()
	if d := shim.disks[filepath.Dir(libc.GoString(name))]; d != nil {
		methods := &at[sqlite3.Tsqlite3_file](handle).FpMethods
		shim.files[handle] = &file{d, at[sqlite3.Tsqlite3_io_methods](*methods)}
		*methods = table(tls, *methods)
	}
	return rc
}

// table is a table of SQLite's with functions of ours in it.
func table(tls *libc.TLS, below uintptr) uintptr {
	if known := shim.tables[below]; known != 0 {
		return known
	}
	address := clone[sqlite3.Tsqlite3_io_methods](tls, below)
	changed := at[sqlite3.Tsqlite3_io_methods](address)
	changed.FxClose = pointer[closes](closeFile)
	changed.FxRead = pointer[transfers](readFile)
	changed.FxWrite = pointer[transfers](writeFile)
	changed.FxTruncate = pointer[truncates](truncateFile)
	changed.FxSync = pointer[syncs](syncFile)
	shim.tables[below] = address
	return address
}

func find(handle uintptr) *file {
	shim.mu.RLock()
	defer shim.mu.RUnlock()
	return shim.files[handle]
}

func closeFile(tls *libc.TLS, handle uintptr) int32 {
	shim.mu.Lock()
	f := shim.files[handle]
	delete(shim.files, handle) // before another can get the address
	shim.mu.Unlock()
	return function[closes](f.below.FxClose)(tls, handle)
}

func readFile(tls *libc.TLS, handle, data uintptr, size int32, offset int64) int32 {
	f := find(handle)
	if v := f.disk.judge(Read, size, offset); v.instead {
		return int32(v.code)
	}
	return function[transfers](f.below.FxRead)(tls, handle, data, size, offset)
}

func writeFile(tls *libc.TLS, handle, data uintptr, size int32, offset int64) int32 {
	f := find(handle)
	v := f.disk.judge(Write, size, offset)
	if v.instead {
		size = v.arrives
	}
	if size > 0 {
		if rc := function[transfers](f.below.FxWrite)(tls, handle, data, size, offset); rc != sqlite3.SQLITE_OK {
			return rc
		}
	}
	return int32(v.code)
}

func truncateFile(tls *libc.TLS, handle uintptr, size int64) int32 {
	f := find(handle)
	if v := f.disk.judge(Truncate, 0, size); v.instead {
		return int32(v.code)
	}
	return function[truncates](f.below.FxTruncate)(tls, handle, size)
}

func syncFile(tls *libc.TLS, handle uintptr, flags int32) int32 {
	f := find(handle)
	if v := f.disk.judge(Sync, 0, 0); v.instead {
		return int32(v.code)
	}
	return function[syncs](f.below.FxSync)(tls, handle, flags)
}

package conformance

import (
	"errors"
	"reflect"
	"sync"
	"unsafe"

	"modernc.org/libc"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// tracing are the functions that are called by SQLite, by their connection.
var tracing sync.Map // of uintptr and func(text string)

// trace has seen called with each statement that SQLite begins to run on conn, prepared anew or not. The driver has no
// way to ask for that: https://sqlite.org/c3ref/trace_v2.html.
func trace(conn sqlite.ExecQuerierContext, seen func(text string)) error {
	db := uintptr(reflect.ValueOf(conn).Elem().FieldByName("db").Uint())
	tracing.Store(db, seen)
	tls := libc.NewTLS()
	defer tls.Close()
	call := struct {
		f func(*libc.TLS, uint32, uintptr, uintptr, uintptr) int32
	}{traced}
	if rc := sqlite3.Xsqlite3_trace_v2(tls, db, sqlite3.SQLITE_TRACE_STMT, *(*uintptr)(unsafe.Pointer(&call)), db); rc != sqlite3.SQLITE_OK {
		return errors.New("SQLite does not trace")
	}
	return nil
}

func traced(_ *libc.TLS, _ uint32, db, _, text uintptr) int32 {
	if seen, ok := tracing.Load(db); ok {
		seen.(func(string))(libc.GoString(text))
	}
	return 0
}

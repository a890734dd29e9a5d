package pgclone

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// The names of databases, of at most 63 bytes:
//
//	thole_clone_20261130202703_00ff00ff00ff00ff_1     when, the owner, which of the owner's
//	thole_template_150013_0123456789abcdef0123456789abcdef    the server's version, a digest
//
// Whatever has another name is not ours.
const (
	anyPrefix      = "thole_"
	clonePrefix    = anyPrefix + "clone_"
	templatePrefix = anyPrefix + "template_"
)

// keptComment is the comment of a database that nobody drops.
const keptComment = "kept by dbtest"

// owner is the number of a process that makes databases, and the key of its
// lock.
type owner int64

func newOwner() owner {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return owner(binary.BigEndian.Uint64(b[:]))
}

// cloneName names the nth database of an owner. The time is for people.
func cloneName(o owner, made time.Time, n uint64) string {
	return fmt.Sprintf("%s%s_%016x_%d", clonePrefix, made.UTC().Format("20060102150405"), uint64(o), n)
}

var cloneNames = regexp.MustCompile(`^` + clonePrefix + `\d{14}_([0-9a-f]{16})_\d{1,20}$`)

// ownerOf returns whose the database of a name is; ok reports whether cloneName
// has made it.
func ownerOf(name string) (o owner, ok bool) {
	m := cloneNames.FindStringSubmatch(name)
	if m == nil {
		return 0, false
	}
	n, err := strconv.ParseUint(m[1], 16, 64)
	return owner(n), err == nil
}

var templateNames = regexp.MustCompile(`^` + templatePrefix + `\d{5,6}_[0-9a-f]{32}$`)

// Within returns the URL of the database of a name on the server of another
// URL. The error does not quote the URL, which may have a password in it.
func Within(server, name string) (string, error) {
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return "", errors.New("read the URL of the test server: it is not a URL of PostgreSQL with one host")
	}
	u.Path, u.RawPath = "/"+name, ""
	// https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
	if q := u.Query(); q.Has("dbname") || q.Has("database") {
		q.Del("dbname")
		q.Del("database")
		u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20") // as libpq and pgx read a space
	}
	return u.String(), nil
}

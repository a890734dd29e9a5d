package sqlite

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ParseURL reads a URL of SQLite. It reports by its scheme whether it is one: sqlite, sqlite3, either with a driver
// behind it such as sqlite+pysqlite, or file.
//
//	sqlite:///data/app.db        the file data/app.db; so does sqlite:data/app.db
//	sqlite:////var/lib/app.db    the file /var/lib/app.db; so does sqlite:/var/lib/app.db
//	sqlite:///C:/data/app.db     the file C:/data/app.db
//	sqlite://                    in memory; so do sqlite:///:memory:, sqlite://:memory:, sqlite::memory: and file::memory:
//	file:data/app.db             the file data/app.db
//	file:///var/lib/app.db       the file /var/lib/app.db; so does file:/var/lib/app.db
//	file:///C:/data/app.db       the file C:/data/app.db
//	sqlite:///./:memory:         the file of this name
//
// The path reads as follows:
//
//	%20, %25, %3F, %23           the byte with this number: a blank, %, ? and #; %00 is refused
//	% before anything else       itself
//	# and a blank                themselves
//	the first ?                  begins the options; others in the path are written %3F
//
// The options stand behind the path, as in sqlite:///app.db?synchronous=normal&readers=8:
//
//	synchronous                  full, normal or extra
//	busy_timeout                 a duration such as 5s, or a number of milliseconds
//	readers                      how many connections read
//
// [Config] has their meanings and defaults. Whatever else stands there is an error. The errors match
// [engine.ErrURL] and quote nothing of the URL, because a password may be in it.
func ParseURL(url string) (cfg Config, ours bool, err error) {
	scheme, rest, _ := strings.Cut(url, ":")
	scheme, _, _ = strings.Cut(strings.ToLower(scheme), "+")
	if scheme != "sqlite" && scheme != "sqlite3" && scheme != "file" {
		return Config{}, false, nil
	}
	rest, query, hasQuery := strings.Cut(rest, "?")
	cfg.Path, err = parsePath(scheme, rest)
	if err == nil && hasQuery {
		err = cfg.parseOptions(query)
	}
	if err == nil {
		_, err = cfg.complete()
	}
	if err != nil {
		return Config{}, true, err
	}
	return cfg, true, nil
}

// parsePath reads what stands between the scheme and the options; "" is a database in memory.
func parsePath(scheme, text string) (string, error) {
	path, isURL := strings.CutPrefix(text, "//")
	switch {
	case isURL && scheme != "file" && (path == "" || path == ":memory:"):
		return "", nil
	case isURL && !strings.HasPrefix(path, "/"):
		return "", refuse("what stands between the second and the third slash is a host, which SQLite has none of; " +
			"write three slashes for a relative path, as in sqlite:///data/app.db, and four for an absolute one")
	case isURL && scheme != "file":
		path = path[1:]
	}
	path = unescape(path)
	if scheme == "file" && isURL && hasDrive(path[1:]) {
		path = path[1:]
	}
	switch path {
	case "":
		return "", refuse("there is no path; a database in memory is sqlite://")
	case ":memory:":
		return "", nil
	}
	return path, nil
}

// hasDrive reports whether a path begins with a drive of Windows and a slash.
func hasDrive(path string) bool {
	return len(path) > 2 && path[1] == ':' && path[2] == '/' && (path[0]|0x20) >= 'a' && (path[0]|0x20) <= 'z'
}

// unescape puts the bytes in place of their %XX. Any other % stays.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(n))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// options are the names of the options.
var options = []string{"busy_timeout", "readers", "synchronous"}

// parseOptions reads what stands behind the question mark.
func (c *Config) parseOptions(query string) error {
	seen := make(map[string]bool)
	for option := range strings.SplitSeq(query, "&") {
		key, value, _ := strings.Cut(option, "=")
		key, value = unescape(key), unescape(value)
		if !slices.Contains(options, key) {
			return refuse(unknown(key))
		}
		if seen[key] {
			return refuse(key + " is there twice")
		}
		seen[key] = true
		if value == "" {
			return refuse(key + " has no value")
		}
		c.setOption(key, value)
	}
	return nil
}

// setOption notes the value of an option. One that can't be read becomes a value that complete refuses.
func (c *Config) setOption(key, value string) {
	switch key {
	case "synchronous":
		c.Synchronous = value
	case "readers":
		n, err := strconv.Atoi(value)
		if err != nil || n == 0 {
			n = -1
		}
		c.Readers = n
	case "busy_timeout":
		d, err := time.ParseDuration(value)
		if ms, notNumber := strconv.ParseInt(value, 10, 32); notNumber == nil {
			d, err = time.Duration(ms)*time.Millisecond, nil
		}
		if err != nil || d == 0 {
			d = -1
		}
		c.BusyTimeout = d
	}
}

// foreign are options of SQLite, of modernc.org/sqlite and of mattn/go-sqlite3, and what thole has instead.
var foreign = map[string]string{
	"_pragma":       "thole sets foreign_keys, journal_mode and busy_timeout itself; others belong in a connection hook",
	"_foreign_keys": "foreign keys are always checked",
	"_fk":           "foreign keys are always checked",
	"_journal_mode": "a file is always in WAL mode",
	"_journal":      "a file is always in WAL mode",
	"_busy_timeout": "it is busy_timeout here",
	"_timeout":      "it is busy_timeout here",
	"_synchronous":  "it is synchronous here",
	"_sync":         "it is synchronous here",
	"_txlock":       "a session that may write always begins immediate",
	"_query_only":   "a session can be read-only",
	"_time_format":  "times are always written in UTC, in one format",
	"_timezone":     "times are always written in UTC, in one format",
	"_loc":          "times are always written in UTC, in one format",
	"mode":          "a database in memory is sqlite://, and a session can be read-only",
	"cache":         "all sessions share one database without it",
	"vfs":           "the database is an ordinary file",
	"immutable":     "the database is an ordinary file",
	"nolock":        "locks are what keeps the database whole",
}

// unknown says what to write instead of an option that doesn't exist. It doesn't repeat one that it doesn't know.
func unknown(key string) string {
	list := "the options are " + strings.Join(options, ", ")
	if instead, ok := foreign[key]; ok {
		return fmt.Sprintf("there is no option %s, %s; %s", key, instead, list)
	}
	nearest := slices.MinFunc(options, func(a, b string) int { return distance(key, a) - distance(key, b) })
	return fmt.Sprintf("an option is unknown, did you mean %s? %s", nearest, list)
}

// distance is how many bytes have to be put in, taken out or replaced to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}

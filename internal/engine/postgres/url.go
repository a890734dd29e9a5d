package postgres

import (
	"cmp"
	"iter"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tholedb/thole/internal/engine"
)

// connectTimeout bounds one attempt to connect to one host, where neither the
// URL nor PGCONNECT_TIMEOUT says anything: a first host that is frozen must
// leave time for the next one. (libpq would wait for ever.)
const connectTimeout = 10 * time.Second

// ParseURL reads a PostgreSQL URL, as SQLAlchemy writes it too
// (postgresql+psycopg2://), or a keyword string of libpq (host=db dbname=app).
// It reports false for any other text, which may be another engine's URL.
//
// Everything means what it means to libpq and pgx: several hosts, the PG*
// variables, service files, sslmode and its default. The differences:
//
//   - connect_timeout is 10 seconds unless it is set; 0 sets it to none.
//   - The pool_* options of pgxpool and the options of pgx, like
//     default_query_exec_mode, are understood.
//   - pooler=transaction says that a pooler like PgBouncer in transaction mode
//     stands before the server, and pooler=none that none does. Otherwise [Open]
//     finds out.
//   - Any other name is a setting of the server, like search_path, which
//     refuses to connect (42704) if it knows none of that name. Those that libpq
//     knows and pgx doesn't are an error here.
//   - What looks like a password whose @ or / isn't percent-encoded is an error,
//     so that no half of it ends up in the name of a host.
//
// Errors match [engine.ErrURL] and never quote the URL.
//
// https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING
func ParseURL(url string) (*pgxpool.Config, bool, error) {
	text, isURL := withoutDriver(url)
	if !isURL && !isKeywords(url) {
		return nil, false, nil
	}
	if isURL {
		if problem := malformed(text); problem != "" {
			return nil, true, urlError(problem)
		}
	}
	cfg, err := pgxpool.ParseConfig(text)
	if err != nil {
		// The error quotes the URL, and its attempt to hide the password fails
		// where the URL is malformed.
		return nil, true, urlError(culprit(text, isURL))
	}
	if problem := refused(cfg); problem != "" {
		return nil, true, urlError(problem)
	}
	delete(cfg.ConnConfig.RuntimeParams, poolerOption) // the server knows no such setting
	if cfg.ConnConfig.ConnectTimeout == 0 && !mentions(cfg, "connect_timeout", "PGCONNECT_TIMEOUT") {
		cfg.ConnConfig.ConnectTimeout = connectTimeout
	}
	cfg.ConnConfig.BuildContextWatcherHandler = newCanceller
	return cfg, true, nil
}

func urlError(problem string) error {
	return &engine.Error{Kind: engine.ErrURL, Message: "parse database URL: " + problem}
}

var scheme = regexp.MustCompile(`(?i)^(postgres|postgresql)(\+[a-z0-9_]+)?://`)

// withoutDriver is the URL as pgx reads it, and whether it is one.
func withoutDriver(url string) (string, bool) {
	prefix := scheme.FindString(url)
	if prefix == "" {
		return url, false
	}
	return "postgres://" + url[len(prefix):], true
}

var firstKeyword = regexp.MustCompile(`^\s*([a-z_]+)\s*=`)

// isKeywords reports whether text begins like a keyword string: with an option
// that libpq or the pool knows.
func isKeywords(text string) bool {
	m := firstKeyword.FindStringSubmatch(text)
	return m != nil && (slices.Contains(options, m[1]) || slices.Contains(foreignOptions, m[1]))
}

// options are the names that pgx acts on, with the settings of the server that
// libpq lists among them. Errors may name them.
var options = []string{
	"application_name", "channel_binding", "connect_timeout", "database", "dbname", "default_query_exec_mode",
	"description_cache_capacity", "host", "krbspn", "krbsrvname", "max_protocol_version", "min_protocol_version",
	"options", "passfile", "password", "pool_health_check_period", "pool_max_conn_idle_time",
	"pool_max_conn_lifetime", "pool_max_conn_lifetime_jitter", "pool_max_conns", "pool_min_conns",
	"pool_min_idle_conns", "pool_ping_timeout", poolerOption, "port", "require_auth", "service", "servicefile", "sslcert",
	"sslcertmode", "sslkey", "sslmode", "sslnegotiation", "sslpassword", "sslrootcert", "sslsni",
	"statement_cache_capacity", "target_session_attrs", "user",
}

// foreignOptions are known to libpq or to JDBC. pgx would send them to the
// server as settings of that name.
var foreignOptions = []string{
	"authtype", "fallback_application_name", "gssdelegation", "gssencmode", "gsslib", "hostaddr", "keepalives",
	"keepalives_count", "keepalives_idle", "keepalives_interval", "load_balance_hosts", "oauth_client_id",
	"oauth_client_secret", "oauth_issuer", "oauth_scope", "replication", "requirepeer", "requiressl",
	"scram_client_key", "scram_server_key", "ssl", "ssl_max_protocol_version", "ssl_min_protocol_version",
	"sslcompression", "sslcrl", "sslcrldir", "sslkeylogfile", "tcp_user_timeout", "tty",
}

const encodeHint = "in a user name or password write @ as %40, / as %2F, : as %3A, ? as %3F, # as %23, % as %25"

var badPercent = regexp.MustCompile(`(?s)%([^0-9a-fA-F]|.[^0-9a-fA-F]|.?$)`)

// malformed says what is wrong with the shape of a URL, or "". It divides the
// text as libpq does: the user and password end at the first @ before a slash.
func malformed(text string) string {
	rest := strings.TrimPrefix(text, "postgres://")
	if i := strings.IndexAny(rest, "@/"); i >= 0 && rest[i] == '@' {
		rest = rest[i+1:]
	}
	rest, _, _ = strings.Cut(rest, "?")
	hosts, database, _ := strings.Cut(rest, "/")
	switch {
	case strings.Contains(hosts, "@"), strings.Contains(database, "@"):
		return "there is more than one place where the password could end: " + encodeHint
	case badPercent.MatchString(text):
		return "a % is not followed by two hexadecimal digits: " + encodeHint
	case strings.ContainsAny(text, " \t\r\n"):
		return "it contains white space: write a space as %20"
	}
	for host := range strings.SplitSeq(hosts, ",") {
		host = host[strings.LastIndex(host, "]")+1:]
		if _, port, _ := strings.Cut(host, ":"); !isPort(port) {
			return "a port is not a number from 1 to 65535; if it is no port that stands after the colon: " + encodeHint
		}
	}
	return ""
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return s == "" || err == nil && n > 0
}

// culprit names the option of a URL that pgx refuses, by trying each alone.
func culprit(text string, isURL bool) string {
	const trial = "postgres://localhost/?"
	if _, err := pgxpool.ParseConfig(trial); err != nil || !isURL {
		return unknownCulprit // it is a variable, or the text can't be divided
	}
	_, query, _ := strings.Cut(text, "?")
	for pair := range strings.SplitSeq(query, "&") {
		option, _, _ := strings.Cut(pair, "=")
		if !slices.Contains(options, option) || slices.Contains(paired, option) {
			continue
		}
		if _, err := pgxpool.ParseConfig(trial + pair); err != nil {
			return "the value of " + option + " is not valid"
		}
	}
	return unknownCulprit
}

const unknownCulprit = "check the ports, sslmode and its files, the service and its file, and the numbers and " +
	"durations of the other options, in the URL and in the PG* variables"

// paired are the options that mean nothing alone.
var paired = []string{"service", "servicefile", "sslcert", "sslkey"}

// refused says what pgx accepts and thole doesn't, or "".
func refused(cfg *pgxpool.Config) string {
	for name, value := range cfg.ConnConfig.RuntimeParams {
		switch {
		case name == poolerOption && value != poolerTransaction && value != poolerNone:
			return "the option " + poolerOption + " is " + poolerTransaction + " or " + poolerNone
		case name == "ssl":
			return "the option ssl takes only true: use sslmode"
		case slices.Contains(foreignOptions, name):
			return "the option " + name + " is not supported"
		case strings.HasPrefix(name, "pool_"):
			return "an option that begins with pool_ is not known"
		}
	}
	for host := range hosts(cfg.ConnConfig.Config) {
		if !isSocket(host) && strings.ContainsAny(host, "@/?# ") {
			return "the name of a host has a character that no host has: " + encodeHint
		}
	}
	return ""
}

// mentions reports whether an option was set explicitly. A service file isn't
// looked into.
func mentions(cfg *pgxpool.Config, option, variable string) bool {
	return strings.Contains(cfg.ConnString(), option) || os.Getenv(variable) != ""
}

// hosts yields every host and its port, in the order in which they are tried.
// With sslmode=prefer pgx has each of them twice.
func hosts(cfg pgconn.Config) iter.Seq2[string, uint16] {
	return func(yield func(string, uint16) bool) {
		host, port := cfg.Host, cfg.Port
		if !yield(host, port) {
			return
		}
		for _, next := range cfg.Fallbacks {
			if next.Host == host && next.Port == port {
				continue
			}
			host, port = next.Host, next.Port
			if !yield(host, port) {
				return
			}
		}
	}
}

func isSocket(host string) bool {
	network, _ := pgconn.NetworkAddress(host, 0)
	return network == "unix"
}

// Name is that of the database which cfg leads to: host:port/database, with
// every host.
func Name(cfg *pgxpool.Config) string { return name(cfg.ConnConfig.Config) }

// name is host:port/database, with every host.
func name(cfg pgconn.Config) string {
	var b strings.Builder
	for host, port := range hosts(cfg) {
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(net.JoinHostPort(host, strconv.Itoa(int(port))))
	}
	return b.String() + "/" + cmp.Or(cfg.Database, cfg.User)
}

// mayBePlaintext reports whether connections to another machine may go without
// TLS although nobody asked for that: sslmode=prefer, the default, is a fallback
// without TLS to pgx.
func mayBePlaintext(cfg *pgxpool.Config) bool {
	if mentions(cfg, "sslmode", "PGSSLMODE") {
		return false
	}
	return slices.ContainsFunc(cfg.ConnConfig.Fallbacks, func(f *pgconn.FallbackConfig) bool {
		return f.TLSConfig == nil && !isSocket(f.Host) && !isLoopback(f.Host)
	})
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

package postgres

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tholedb/thole/internal/engine"
)

// withoutVariables takes the PG* variables of the machine away.
func withoutVariables(t *testing.T) {
	t.Helper()
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "PG") {
			t.Setenv(name, "")
		}
	}
	t.Setenv("HOME", t.TempDir())
}

// parsed is what the tests look at of a configuration.
type parsed struct {
	Name, User, Password string
	Timeout              time.Duration
	MaxConns             int32
	Settings             map[string]string
}

//nolint:paralleltest // it changes the environment
func TestParseURL(t *testing.T) {
	withoutVariables(t)
	file := filepath.Join(t.TempDir(), "services")
	if err := os.WriteFile(file, []byte("[app]\nhost=s\ndbname=app\nuser=u\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	none := map[string]string{}
	tests := []struct {
		url  string
		want parsed
	}{
		{"postgres://u:p@h:5433/db", parsed{"h:5433/db", "u", "p", connectTimeout, 7, none}},
		{"postgresql://u:p@h/db", parsed{"h:5432/db", "u", "p", connectTimeout, 7, none}},
		{"postgresql+psycopg2://u:p@h/db", parsed{"h:5432/db", "u", "p", connectTimeout, 7, none}},
		{"Postgres+asyncpg://u@h/db", parsed{"h:5432/db", "u", "", connectTimeout, 7, none}},
		{"postgres://u@h", parsed{"h:5432/u", "u", "", connectTimeout, 7, none}},
		{"postgres://u@a,b:5433,[::1]:5434/db", parsed{"a:5432,b:5433,[::1]:5434/db", "u", "", connectTimeout, 7, none}},
		{"postgres://u:p%40%2F%3A%23%25@h/db", parsed{"h:5432/db", "u", "p@/:#%", connectTimeout, 7, none}},
		{"postgres://u:p?x@h/db", parsed{"h:5432/db", "u", "p?x", connectTimeout, 7, none}},
		{"postgres://u@/db?host=/tmp", parsed{"/tmp:5432/db", "u", "", connectTimeout, 7, none}},
		{"postgres://h/db?user=u@tenant", parsed{"h:5432/db", "u@tenant", "", connectTimeout, 7, none}},
		{"postgres://u@h/db?connect_timeout=3", parsed{"h:5432/db", "u", "", 3 * time.Second, 7, none}},
		{"postgres://u@h/db?connect_timeout=0", parsed{"h:5432/db", "u", "", 0, 7, none}},
		{"postgres://u@h/db?pool_max_conns=9&pool_ping_timeout=1s", parsed{"h:5432/db", "u", "", connectTimeout, 9, none}},
		{"postgres://u@h/db?search_path=a", parsed{"h:5432/db", "u", "", connectTimeout, 7, map[string]string{"search_path": "a"}}},
		{"host=h dbname=db user=u password='p q'", parsed{"h:5432/db", "u", "p q", connectTimeout, 7, none}},
		{" service=app servicefile=" + file, parsed{"s:5432/app", "u", "", connectTimeout, 7, none}},
	}
	for _, test := range tests {
		t.Run(test.url, func(t *testing.T) {
			cfg, ours, err := ParseURL(test.url)
			if err != nil || !ours {
				t.Fatalf("ParseURL = %v, %v", ours, err)
			}
			conn := cfg.ConnConfig
			if test.want.MaxConns == 7 {
				test.want.MaxConns = cfg.MaxConns // the default goes by the machine
			}
			got := parsed{name(conn.Config), conn.User, conn.Password, conn.ConnectTimeout, cfg.MaxConns, conn.RuntimeParams}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("configuration (-want +got):\n%s", diff)
			}
			if reflect.ValueOf(conn.BuildContextWatcherHandler).Pointer() != reflect.ValueOf(newCanceller).Pointer() {
				t.Error("a done context closes the connection")
			}
		})
	}
}

func TestParseURLVariables(t *testing.T) {
	withoutVariables(t)
	t.Setenv("PGPASSWORD", "p")
	t.Setenv("PGCONNECT_TIMEOUT", "0")
	t.Setenv("PGSSLMODE", "prefer")
	cfg, _, err := ParseURL("postgres://u@db.example/db")
	if err != nil {
		t.Fatal(err)
	}
	if got := cfg.ConnConfig; got.Password != "p" || got.ConnectTimeout != 0 || mayBePlaintext(cfg) {
		t.Errorf("password %q, timeout %v, plaintext warned of %v", got.Password, got.ConnectTimeout, mayBePlaintext(cfg))
	}
	t.Setenv("PGPORT", "x")
	if _, _, err := ParseURL("postgres://u@h/db?sslmode=disable"); !errors.Is(err, engine.ErrURL) || !strings.Contains(err.Error(), "PG*") {
		t.Errorf("with a wrong PGPORT: got %v", err)
	}
}

func TestParseURLOthers(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"", "sqlite:///app.db", "app.db", "/var/lib/app.db", ":memory:", "file:app.db?mode=ro", "mysql://u:p@h/db",
		"postgres", "postgres:", "postgresx://h", "a=b.db", "c:/data=1.db",
	} {
		if cfg, ours, err := ParseURL(url); cfg != nil || ours || err != nil {
			t.Errorf("ParseURL(%q) = %v, %v, %v, want none of ours", url, cfg, ours, err)
		}
	}
}

func TestParseURLFails(t *testing.T) {
	t.Parallel()
	const p = secret
	tests := []struct{ url, want string }{
		{"postgres://u:" + p + "@x@h/db", "more than one place where the password could end"},
		{"postgres://u:a@" + p + "/x@h/db", "more than one place where the password could end"},
		{"postgres://u:12/" + p + "@h/db", "more than one place where the password could end"},
		{"postgres://u:" + p + "/x@h/db", "more than one place where the password could end"},
		{"postgres://u:" + p + "/x", "a port is not a number"},
		{"postgres://u:" + p, "a port is not a number"},
		{"postgres://u:x%" + p + "@h/db", "two hexadecimal digits"},
		{"postgres://u:" + p + "%@h/db", "two hexadecimal digits"},
		{"postgres://u:" + p + "%0\n@h/db", "two hexadecimal digits"},
		{"postgres://u:" + p + " x@h/db", "white space"},
		{"postgres://u:" + p + "@h:99999/db", "a port is not a number"},
		{"postgres://u:" + p + "@h:0/db", "a port is not a number"},
		{"postgres://u:" + p + "@[::1/db", "a port is not a number"},
		{"postgres://u#" + p, "no host has"},
		{"postgres://u:" + p + "@h/db?sslmode=" + p, "the value of sslmode is not valid"},
		{"postgres://u:" + p + "@h/db?application_name=x&connect_timeout=" + p, "the value of connect_timeout is not valid"},
		{"postgres://u:" + p + "@h/db?pool_max_conns=0", "the value of pool_max_conns is not valid"},
		{"postgres://u:" + p + "@h/db?pool_max_conn=1", "an option that begins with pool_"},
		{"postgres://u:" + p + "@h/db?default_query_exec_mode=" + p, "the value of default_query_exec_mode is not valid"},
		{"postgres://u:" + p + "@h/db?target_session_attrs=" + p, "the value of target_session_attrs is not valid"},
		{"postgres://u:" + p + "@h/db?sslrootcert=" + p, "the value of sslrootcert is not valid"},
		{"postgres://u:" + p + "@h/db?" + p, "check the ports"},
		{"postgres://u:" + p + "@h/db?load_balance_hosts=random", "load_balance_hosts is not supported"},
		{"postgres://u:" + p + "@h/db?keepalives=1", "keepalives is not supported"},
		{"postgres://u:" + p + "@h/db?ssl=false", "ssl takes only true"},
		{"postgres://u:" + p + "@h/db?service=nosuch" + p, "the service"},
		{"host=h hostaddr=127.0.0.1", "hostaddr is not supported"},
		{"host=h password='" + p + " port=1", "check the ports"},
		{"host=h password=" + p + " " + p, "check the ports"},
		{"password=" + p + " host=" + p + "@h", "no host has"},
	}
	for _, test := range tests {
		t.Run(test.url, func(t *testing.T) {
			t.Parallel()
			cfg, ours, err := ParseURL(test.url)
			if cfg != nil || !ours || !errors.Is(err, engine.ErrURL) {
				t.Fatalf("ParseURL = %v, %v, %v, want ErrURL", cfg, ours, err)
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %q, want %q", err, test.want)
			}
			wantNoSecret(t, err)
			if encoded, err := json.Marshal(err); err != nil || bytes.Contains(encoded, []byte(secret)) {
				t.Errorf("JSON: %s, %v", encoded, err)
			}
			if errors.Unwrap(err) != nil {
				t.Errorf("wraps %T", errors.Unwrap(err))
			}
		})
	}
}

//nolint:paralleltest // it changes the environment
func TestMayBePlaintext(t *testing.T) {
	withoutVariables(t)
	for url, want := range map[string]bool{
		"postgres://u@db.example/db":                     true,
		"postgres://u@127.0.0.1,10.0.0.1/db":             true,
		"postgres://u@10.0.0.1/db?sslmode=disable":       false,
		"postgres://u@10.0.0.1/db?sslmode=prefer":        false,
		"postgres://u@10.0.0.1/db?ssl=true":              false,
		"postgres://u@localhost,127.0.0.1,[::1]:5432/db": false,
		"postgres://u@/db?host=/tmp":                     false,
	} {
		cfg, _, err := ParseURL(url)
		if err != nil {
			t.Fatal(err)
		}
		if got := mayBePlaintext(cfg); got != want {
			t.Errorf("mayBePlaintext(%q) = %v, want %v", url, got, want)
		}
	}
}

// FuzzParseURL puts a secret where the fuzzer likes: no error shows it.
func FuzzParseURL(f *testing.F) {
	for _, seed := range []string{
		"postgres://u:%s@h/db", "postgres://u:a@%s@h/db", "postgres://u:a/%s@h/db", "postgres://%s", "postgres://h:%s",
		"postgres://u:%s@[::1/db", "postgresql+x://u:p%%%s@h,b:1/db?sslmode=disable", "host=h password='%s port=x",
		"password=%s", "postgres://h/db?%s=1", "postgres://h/db?sslmode=%s", "service=%s", "postgres://h/db?%s",
	} {
		before, after, _ := strings.Cut(seed, "%s")
		f.Add(strings.ReplaceAll(before, "%%", "%"), after)
	}
	f.Fuzz(func(t *testing.T, before, after string) {
		text := before + secret + after
		if strings.Contains(text, "file") || strings.Contains(text, "ssl") && strings.Contains(text, "/dev") {
			t.Skip("reads what it likes of this machine")
		}
		cfg, ours, err := ParseURL(text)
		switch {
		case err != nil:
			if cfg != nil || !ours || !errors.Is(err, engine.ErrURL) || errors.Unwrap(err) != nil {
				t.Errorf("ParseURL(%q) = %v, %v, %v", text, cfg, ours, err)
			}
			wantNoSecret(t, err)
		case ours != (cfg != nil):
			t.Errorf("ParseURL(%q) = %v, %v", text, cfg, ours)
		case ours:
			useConfig(cfg)
		}
	})
}

// useConfig reads the configuration as Open does.
func useConfig(cfg *pgxpool.Config) {
	_ = fmt.Sprint(name(cfg.ConnConfig.Config), mayBePlaintext(cfg))
}

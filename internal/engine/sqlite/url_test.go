package sqlite

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tholedb/thole/internal/engine"
)

var ignoreDriver = cmpopts.IgnoreFields(Config{}, "Driver")

func TestParseURL(t *testing.T) {
	t.Parallel()
	tests := map[string]Config{
		"sqlite:///data/app.db":          {Path: "data/app.db"},
		"sqlite:////var/lib/app.db":      {Path: "/var/lib/app.db"},
		"sqlite:///C:/data/app.db":       {Path: "C:/data/app.db"},
		"sqlite:////C:/data/app.db":      {Path: "/C:/data/app.db"},
		"sqlite:data/app.db":             {Path: "data/app.db"},
		"sqlite:/var/lib/app.db":         {Path: "/var/lib/app.db"},
		"SQLite:app.db":                  {Path: "app.db"},
		"sqlite3:app.db":                 {Path: "app.db"},
		"sqlite3:///app.db":              {Path: "app.db"},
		"sqlite+pysqlite:///app.db":      {Path: "app.db"},
		"sqlite+aiosqlite:////app.db":    {Path: "/app.db"},
		"file:data/app.db":               {Path: "data/app.db"},
		"file:/var/lib/app.db":           {Path: "/var/lib/app.db"},
		"file:///var/lib/app.db":         {Path: "/var/lib/app.db"},
		"file:///C:/data/app.db":         {Path: "C:/data/app.db"},
		"sqlite://":                      {},
		"sqlite+aiosqlite://":            {},
		"sqlite:///:memory:":             {},
		"sqlite://:memory:":              {},
		"sqlite::memory:":                {},
		"file::memory:":                  {},
		"sqlite:///./:memory:":           {Path: "./:memory:"},
		"sqlite:///a%20b%25c%3Fd%23e.db": {Path: "a b%c?d#e.db"},
		"sqlite:///a%20%3fb.db?readers=2": {
			Path: "a ?b.db", Readers: 2,
		},
		"sqlite:///100%.db":              {Path: "100%.db"},
		"sqlite:///%zz%2.db":             {Path: "%zz%2.db"},
		"sqlite:///%+1.db":               {Path: "%+1.db"},
		"sqlite:///a b#c+d.db":           {Path: "a b#c+d.db"},
		"sqlite:///Grüße.db":             {Path: "Grüße.db"},
		"sqlite:///Gr%C3%BC%C3%9Fe.db":   {Path: "Grüße.db"},
		"sqlite://?synchronous=NORMAL":   {Synchronous: "NORMAL"},
		"sqlite:///a?busy_timeout=1m30s": {Path: "a", BusyTimeout: 90 * time.Second},
		"sqlite:///a?busy_timeout=250":   {Path: "a", BusyTimeout: 250 * time.Millisecond},
		"sqlite:///a?synchronous=extra&busy_timeout=5s&readers=1": {
			Path: "a", Synchronous: "extra", BusyTimeout: 5 * time.Second, Readers: 1,
		},
	}
	for url, want := range tests {
		t.Run(url, func(t *testing.T) {
			t.Parallel()
			got, ours, err := ParseURL(url)
			if err != nil || !ours {
				t.Fatalf("ParseURL: got %v, %v, want a SQLite URL", ours, err)
			}
			if diff := cmp.Diff(want, got, ignoreDriver); diff != "" {
				t.Errorf("Config (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseURLRefuses(t *testing.T) {
	t.Parallel()
	const list = "the options are busy_timeout, readers, synchronous"
	tests := map[string]string{ // the URL and a part of the message
		"sqlite://data/app.db":                     "sqlite:///data/app.db",
		"sqlite://user:secret@host/db":             "sqlite:///data/app.db",
		"file://host/app.db":                       "sqlite:///data/app.db",
		"sqlite":                                   "there is no path",
		"sqlite:":                                  "there is no path",
		"sqlite:///":                               "there is no path",
		"file:":                                    "there is no path",
		"sqlite:///?readers=2":                     "there is no path",
		"sqlite:///a\x00b":                         "NUL",
		"sqlite:///a%00b":                          "NUL",
		"sqlite:///a?":                             list,
		"sqlite:///a?readers=1&":                   list,
		"sqlite:///a?synchronus=normal":            "did you mean synchronous? " + list,
		"sqlite:///a?busytimeout=5s":               "did you mean busy_timeout? " + list,
		"sqlite:///a?reader=5":                     "did you mean readers? " + list,
		"sqlite:///a?SYNCHRONOUS=full":             list,
		"sqlite:///a?_pragma=foreign_keys(1)":      "there is no option _pragma, thole sets foreign_keys",
		"sqlite:///a?_txlock=immediate":            "a session that may write always begins immediate; " + list,
		"sqlite:///a?mode=memory":                  "in memory is sqlite://",
		"sqlite:///a?cache=shared":                 "there is no option cache",
		"sqlite:///a?vfs=x":                        "there is no option vfs",
		"sqlite:///a?immutable=1":                  "there is no option immutable",
		"sqlite:///a?nolock=1":                     "there is no option nolock",
		"sqlite:///a?_busy_timeout=5":              "busy_timeout here",
		"sqlite:///a?readers=1&readers=1":          "readers is there twice",
		"sqlite:///a?readers=":                     "readers has no value",
		"sqlite:///a?readers":                      "readers has no value",
		"sqlite:///a?readers=0":                    "readers is a number from 1",
		"sqlite:///a?readers=-1":                   "readers is a number from 1",
		"sqlite:///a?readers=x":                    "readers is a number from 1",
		"sqlite:///a?readers=1000000":              "readers is a number from 1 to 1000",
		"sqlite:///a?synchronous=off":              "a crash can destroy",
		"sqlite:///a?synchronous=0":                "synchronous is full, normal or extra",
		"sqlite:///a?synchronous=full;DROP":        "synchronous is full, normal or extra",
		"sqlite:///a?synchronous=full%3BDROP":      "synchronous is full, normal or extra",
		"sqlite:///a?busy_timeout=0":               "busy_timeout is a duration",
		"sqlite:///a?busy_timeout=0s":              "busy_timeout is a duration",
		"sqlite:///a?busy_timeout=-5s":             "busy_timeout is a duration",
		"sqlite:///a?busy_timeout=1us":             "busy_timeout is a duration",
		"sqlite:///a?busy_timeout=1000h":           "busy_timeout is a duration",
		"sqlite:///a?busy_timeout=99999999999":     "busy_timeout is a duration",
		"sqlite:///a?busy_timeout=5s&readers=2#no": "readers is a number",
	}
	for url, part := range tests {
		t.Run(url, func(t *testing.T) {
			t.Parallel()
			_, ours, err := ParseURL(url)
			if !ours || !errors.Is(err, engine.ErrURL) {
				t.Fatalf("ParseURL: got %v, %v, want true and %v", ours, err, engine.ErrURL)
			}
			if !strings.Contains(err.Error(), part) {
				t.Errorf("message: got %q, want %q in it", err, part)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("message: got %q, want no part of the URL in it", err)
			}
		})
	}
}

func TestParseURLLeavesOthersAlone(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"", "postgres://u:p@h/db", "app.db", "sqlit:app.db", "sqliteish:///x", "host=x dbname=sqlite:"} {
		if _, ours, err := ParseURL(url); ours || err != nil {
			t.Errorf("ParseURL(%q): got %v, %v, want false and no error", url, ours, err)
		}
	}
}

// formatURL writes the URL of a path.
func formatURL(path string) string {
	if path == "" {
		return "sqlite://"
	}
	return "sqlite:///" + escape(path)
}

func FuzzParseURL(f *testing.F) {
	const secret = "hunter2"
	for _, seed := range []string{
		"sqlite:///data/app.db", "sqlite:////a?readers=3", "sqlite://", "sqlite::memory:", "file:///C:/%41",
		"sqlite://u:" + secret + "@h/db", "sqlite:///a?" + secret + "=1", "sqlite:///a?readers=" + secret,
		"sqlite:///a?synchronous=" + secret, "sqlite:///a?busy_timeout=" + secret, "sqlite+" + secret + "://x", "sqlite:///%00%",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, url string) {
		cfg, ours, err := ParseURL(url)
		if err != nil {
			if !ours || !errors.Is(err, engine.ErrURL) {
				t.Errorf("ParseURL: got %v, %v, want an error of a SQLite URL", ours, err)
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("message: got %q, want nothing of the URL in it", err)
			}
			return
		}
		if !ours {
			return
		}
		again, ours, err := ParseURL(formatURL(cfg.Path))
		if !ours || err != nil || again.Path != cfg.Path {
			t.Errorf("path %q written as %q: got %q, %v, %v", cfg.Path, formatURL(cfg.Path), again.Path, ours, err)
		}
	})
}

func TestDistance(t *testing.T) {
	t.Parallel()
	tests := []struct {
		a, b string
		want int
	}{
		{"", "", 0},
		{"a", "", 1},
		{"", "ab", 2},
		{"readers", "readers", 0},
		{"reader", "readers", 1},
		{"raeders", "readers", 2},
		{"kitten", "sitting", 3},
	}
	for _, test := range tests {
		if got := distance(test.a, test.b); got != test.want {
			t.Errorf("distance(%q, %q): got %d, want %d", test.a, test.b, got, test.want)
		}
	}
}

package pgclone

import (
	"math"
	"testing"
	"time"
)

func TestCloneName(t *testing.T) {
	t.Parallel()
	made := time.Date(2026, 11, 30, 20, 27, 3, 0, time.UTC)
	for _, tt := range []struct {
		owner owner
		n     uint64
		want  string
	}{
		{0x1f, 1, "thole_clone_20261130202703_000000000000001f_1"},
		{-1, 12, "thole_clone_20261130202703_ffffffffffffffff_12"},
		{math.MinInt64, 0, "thole_clone_20261130202703_8000000000000000_0"},
	} {
		got := cloneName(tt.owner, made, tt.n)
		if got != tt.want {
			t.Errorf("cloneName = %s, want %s", got, tt.want)
		}
		if o, ok := ownerOf(got); !ok || o != tt.owner {
			t.Errorf("ownerOf(%s) = %x, %t, want %x", got, o, ok, tt.owner)
		}
	}
}

func TestOwnerOf(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"", "postgres", "thole_test", "thole_clone_", "thole_template_150013_0123456789abcdef0123456789abcdef",
		"thole_clone_20261130202703_000000000000001f", "thole_clone_20261130202703_000000000000001F_1",
		"thole_clone_2026113020270_000000000000001f_1", "my_thole_clone_20261130202703_000000000000001f_1",
		"thole_clone_20261130202703_000000000000001f_1_old", "thole_clone_20261130202703_000000000000001f_1\n",
	} {
		if o, ok := ownerOf(name); ok {
			t.Errorf("ownerOf(%q) = %x, want none", name, o)
		}
	}
}

func FuzzOwnerOf(f *testing.F) {
	f.Add("thole_clone_20261130202703_000000000000001f_1", int64(0x1f), uint64(1))
	f.Add("thole_clone_20261130202703_ffffffffffffffff_18446744073709551615", int64(-1), uint64(math.MaxUint64))
	f.Fuzz(func(t *testing.T, name string, o int64, n uint64) {
		if _, ok := ownerOf(name); ok && (len(name) < 44 || name[:12] != clonePrefix) {
			t.Errorf("ownerOf(%q) takes it for ours", name)
		}
		made := cloneName(owner(o), time.Now(), n)
		if got, ok := ownerOf(made); !ok || got != owner(o) {
			t.Errorf("ownerOf(%q) = %x, %t, want %x", made, got, ok, o)
		}
		if len(made) > 63 && n < 1e16 {
			t.Errorf("the name %q has %d bytes", made, len(made))
		}
	})
}

func TestWithin(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ server, want string }{
		{"postgres://u:p@host/test", "postgres://u:p@host/n"},
		{"postgresql://host:5433/test?sslmode=disable", "postgresql://host:5433/n?sslmode=disable"},
		{"postgres://host", "postgres://host/n"},
		{"postgres://host/a%2Fb?host=%2Frun&port=1", "postgres://host/n?host=%2Frun&port=1"},
		{"postgres:///?dbname=test&options=-c%20a", "postgres:///n?options=-c%20a"},
		{"postgres:///x?database=test", "postgres:///n"},
	} {
		got, err := Within(tt.server, "n")
		if err != nil || got != tt.want {
			t.Errorf("Within(%q) = %q, %v, want %q", tt.server, got, err, tt.want)
		}
	}
}

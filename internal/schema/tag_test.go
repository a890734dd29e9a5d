package schema

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseTag(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Tag{
		"":                       {},
		"primary key":            {PrimaryKey: true},
		"PRIMARY KEY, generated": {PrimaryKey: true, Generated: true},
		"default 'a, b', unique": {Default: "'a, b'", Unique: []string{""}},
		"unique one, unique two, index, index both": {Unique: []string{"one", "two"}, Index: []string{"", "both"}},
		"type numeric(10, 2), check (price > 0 and f(price, ')') > 1), default (1 + 2)": {
			Type: "numeric(10, 2)", Check: "price > 0 and f(price, ')') > 1", Default: "(1 + 2)",
		},
		"check(a > 0)": {Check: "a > 0"},
		"references warriors (id) on delete set null on update CASCADE": {
			References: &Reference{Table: "warriors", Column: "id", OnDelete: "SET NULL", OnUpdate: "CASCADE"},
		},
		"references shop.items, index": {References: &Reference{Table: "shop.items"}, Index: []string{""}},
		"references a(b)":              {References: &Reference{Table: "a", Column: "b"}},
	} {
		got, err := ParseTag(text)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%q: error %v (-want +got):\n%s", text, err, diff)
		}
	}
}

func TestParseTagErrors(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"primry key":                       "is no option",
		"unique,":                          "is no option",
		"primary":                          "primary key",
		"primary keys":                     "primary key",
		"generated always":                 "stands alone",
		"default":                          "missing",
		"default 1, default 2":             "twice",
		"check a > 0":                      "parentheses",
		"check ()":                         "missing",
		"unique a b":                       "only a name",
		"unique, unique":                   "twice",
		"references":                       "table is missing",
		"references a (b":                  "parentheses",
		"references a ()":                  "parentheses",
		"references a (b, c)":              "parentheses",
		"references a on delete explode":   "on delete and on update with",
		"references a on delete cascades":  "on delete and on update with",
		"references a b":                   "on delete and on update with",
		"references a, references b":       "twice",
		"references a on delete cascade x": "on delete and on update with",
		"type text, type int":              "twice",
		"references a on delete set null on delete cascade": "on delete and on update with",
	} {
		if got, err := ParseTag(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %+v and error %v, want %q", text, got, err, want)
		}
	}
}

func FuzzParseTag(f *testing.F) {
	for _, seed := range []string{
		"primary key, generated", "default 'a, b', unique one", "references a (b) on delete set null", "check ((a)), type numeric(10, 2)", "index a b, '", "(,),",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		tag, err := ParseTag(text)
		if err != nil || tag.Check == "" {
			return
		}
		again, err := ParseTag("check (" + tag.Check + ")")
		if balanced(tag.Check) && (err != nil || again.Check != tag.Check) {
			t.Fatalf("%q: the check %q reads as %q and error %v", text, tag.Check, again.Check, err)
		}
	})
}

// balanced reports whether a text can stand in parentheses as it is.
func balanced(text string) bool { return !strings.ContainsAny(text, "()'\"$-/\\") }

func TestPlural(t *testing.T) {
	t.Parallel()
	for noun, want := range map[string]string{
		"shield": "shields", "order_item": "order_items", "city": "cities", "day": "days", "box": "boxes", "address": "addresses", "branch": "branches", "": "",
		"y": "ies",
	} {
		if got := plural(noun); got != want {
			t.Errorf("%q: got %q, want %q", noun, got, want)
		}
	}
}

package sqltext

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestElements(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]*string{
		"{}": {}, "{1}": {new("1")}, "{1,NULL,null}": {new("1"), nil, nil}, `{"a\"\\b,","NULL",""}`: {new(`a"\b,`), new("NULL"), new("")},
		"[0:1]={1,2}": {new("1"), new("2")}, "{a b}": {new("a b")},
	} {
		got, err := Elements(text)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%q: error %v (-want +got):\n%s", text, err, diff)
		}
		if !IsArray(text) {
			t.Errorf("%q: IsArray is false", text)
		}
	}
	for _, text := range []string{"", "{", "}", "1", "{{1}}", `{"a}`, "{a,}", "{,a}", "{,}", `{"a"b}`, `{a"b}`, "[1]", "[0:1]"} {
		if got, err := Elements(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
	for _, text := range []string{"", "[1]", `["]={"]`, `"a"`, "1"} {
		if IsArray(text) {
			t.Errorf("%q: IsArray is true", text)
		}
	}
}

func FuzzElements(f *testing.F) {
	for _, seed := range []string{`{}`, `{1,NULL,"a\"\\b"}`, `[0:1]={1,2}`, `{{1}}`, `{"a}`, `{a,}`, `[1]`, `{,}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		elements, err := Elements(text)
		if err != nil {
			return
		}
		written := []byte("{")
		for i, element := range elements {
			if i > 0 {
				written = append(written, ',')
			}
			if element == nil {
				written = append(written, "NULL"...)
			} else {
				written = AppendElement(written, *element)
			}
		}
		again, err := Elements(string(append(written, '}')))
		if diff := cmp.Diff(elements, again); err != nil || diff != "" {
			t.Fatalf("%q written as %q: error %v (-want +got):\n%s", text, written, err, diff)
		}
	})
}

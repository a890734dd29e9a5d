package thole

import (
	"fmt"
	"strings"
	"testing"
)

// TestTemplatesAreBounded runs more texts than are kept, and one that is too
// long to be.
func TestTemplatesAreBounded(t *testing.T) {
	t.Parallel()
	db, err := Open(t.Context(), "sqlite://")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	for i := range keptTemplates + 100 {
		if _, err := db.ExecContext(t.Context(), fmt.Sprintf("select %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	long := "select 1 /*" + strings.Repeat("x", longestKeptQuery) + "*/"
	if _, err := db.ExecContext(t.Context(), long); err != nil {
		t.Error(err)
	}
	if kept := len(db.templates.known); kept != keptTemplates {
		t.Errorf("%d templates are kept, want %d", kept, keptTemplates)
	}
	if db.templates.known[templateKey{long, false}] != nil {
		t.Error("the long text is kept")
	}
}

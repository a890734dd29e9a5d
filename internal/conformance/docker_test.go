package conformance_test

import (
	"os"
	"strings"
	"testing"

	"github.com/tholedb/thole/internal/pgserver"
	_ "github.com/tholedb/thole/testing/dbtest/dockerpg"
)

// TestImage holds that the server of the other tests is that of the image that
// was asked for, if one was.
func TestImage(t *testing.T) {
	t.Parallel()
	image := os.Getenv(pgserver.ImageVariable)
	if image == "" {
		return // any server will do
	}
	s, err := pgserver.Find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(s.Provider, image) {
		t.Errorf("the server is %s, want image %s", s.Provider, image)
	}
}

package conformance_test

import (
	"testing"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/conformance"
	"github.com/tholedb/thole/internal/testdb"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		conformance.Run(t, conformance.Target{URL: testdb.SQLite})
	})
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		conformance.Run(t, conformance.Target{URL: func(testing.TB) string { return "sqlite://" }})
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		conformance.Run(t, conformance.Target{URL: testdb.Postgres})
	})
	t.Run("pgbouncer", func(t *testing.T) {
		t.Parallel()
		conformance.Run(t, conformance.Target{URL: testdb.PgBouncer, Pooled: true})
	})
	t.Run("sqlite sandbox", func(t *testing.T) {
		t.Parallel()
		conformance.Run(t, conformance.Target{Sandbox: thole.SQLite})
	})
	t.Run("postgres sandbox", func(t *testing.T) {
		t.Parallel()
		conformance.Run(t, conformance.Target{Sandbox: thole.Postgres})
	})
}

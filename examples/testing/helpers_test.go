package theatre

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tholedb/thole"
)

// open returns an office, and the events that it publishes.
func open(db *thole.DB) (office *Office, events *[]string) {
	events = new([]string)
	publish := func(_ context.Context, event string) { *events = append(*events, event) }
	return &Office{DB: db, Publish: publish}, events
}

// wantBooked compares the seats that are booked.
func wantBooked(t *testing.T, q thole.Querier, want ...string) {
	t.Helper()
	got, err := thole.All[string](t.Context(), q, "SELECT seat FROM bookings ORDER BY seat")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(append([]string{}, want...), got); diff != "" {
		t.Errorf("booked seats (-want +got):\n%s", diff)
	}
}

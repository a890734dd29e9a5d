package thole

import (
	"context"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestPatient ends ctx at different times.
func TestPatient(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ deadline, cancel, want time.Duration }{
		"neither":         {0, 0, time.Minute},
		"deadline":        {30 * time.Second, 0, 30 * time.Second},
		"late deadline":   {time.Hour, 0, time.Hour},
		"early deadline":  {time.Second, 0, 5 * time.Second},
		"past deadline":   {-time.Second, 0, 5 * time.Second},
		"cancelled":       {0, 20 * time.Second, 20 * time.Second},
		"cancelled early": {time.Hour, time.Second, 5 * time.Second},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if test.deadline != 0 {
					var end context.CancelFunc
					ctx, end = context.WithDeadline(ctx, began.Add(test.deadline))
					defer end()
				}
				if test.cancel != 0 {
					time.AfterFunc(test.cancel, cancel)
				}
				asking, end := patient(ctx)
				defer end()
				<-asking.Done()
				if got := time.Since(began); got != test.want {
					t.Errorf("it is asked for %s, want %s", got, test.want)
				}
			})
		})
	}
}

// TestKeyTableIsDocumented looks for the table in the comment from which a
// migration is written.
func TestKeyTableIsDocumented(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("options.go")
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(strings.ReplaceAll(string(source), "//", ""))
	if want := strings.Join(strings.Fields(keyTable), " "); !strings.Contains(strings.Join(fields, " "), want) {
		t.Errorf("the comment of IdempotencyKey does not have %q", want)
	}
}

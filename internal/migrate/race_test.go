package migrate

import (
	"context"
	"fmt"
	"io"
	"os"
	osexec "os/exec"
	"testing"

	"go.uber.org/goleak"
)

// starterURL is where a process of the race test finds its database.
const starterURL = "THOLE_TEST_MIGRATE_URL"

var raceFiles = memFS(map[string]string{
	"1_counter.up.sql": "CREATE TABLE counter (n integer); INSERT INTO counter VALUES (0)",
	"2_table.up.sql":   "CREATE TABLE t (n integer); INSERT INTO t SELECT n FROM counter",
	"3_count.up.sql":   "UPDATE counter SET n = n + 1",
})

// TestMain is also the main function of the processes of the race test. When
// all tests are done no goroutine is left, of golang-migrate's neither.
func TestMain(m *testing.M) {
	if url := os.Getenv(starterURL); url != "" {
		if err := starter(context.Background(), url); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// starter is a program that starts: it applies the migrations, as soon as its
// standard input ends.
func starter(ctx context.Context, url string) error {
	fmt.Println("ready")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	eng, err := openURL(ctx, url)
	if err != nil {
		return err
	}
	defer eng.Close(ctx)
	return Up(ctx, eng, raceFiles)
}

// Several programs that start at once apply each migration once, and none
// fails.
//
//nolint:paralleltest,tparallel // the rounds come one after the other
func TestUpRace(t *testing.T) {
	t.Parallel()
	const processes = 4
	rounds := 6
	if testing.Short() {
		rounds = 1
	}
	for round := range rounds {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			each(t, func(t *testing.T, url string) {
				race(t, url, processes)
				eng := openEngine(t, url)
				wantVersion(t, eng, "3")
				wantValue(t, eng, "SELECT n FROM counter", "1")
				wantValue(t, eng, "SELECT count(*) FROM t", "1")
			})
		})
	}
}

// race starts the processes and, when all of them are ready, lets them go.
func race(t *testing.T, url string, processes int) {
	t.Helper()
	in, gate, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	starters := make([]*osexec.Cmd, processes)
	for i := range starters {
		cmd := osexec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), starterURL+"="+url)
		cmd.Stdin, cmd.Stderr = in, os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatalf("start: %v", err)
		}
		if _, err := io.ReadFull(out, make([]byte, len("ready\n"))); err != nil {
			t.Fatalf("process is not ready: %v", err)
		}
		starters[i] = cmd
	}
	in.Close()
	gate.Close()
	for i, cmd := range starters {
		if err := cmd.Wait(); err != nil {
			t.Errorf("process %d: %v", i, err)
		}
	}
}

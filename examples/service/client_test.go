package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// What the client is told by the test that starts it.
const (
	urlVariable      = "THOLE_TEST_SERVICE_URL"
	requestsVariable = "THOLE_TEST_SERVICE_REQUESTS"
	postgresVariable = "THOLE_TEST_SERVICE_POSTGRES" // whose backends it terminates; "" for none
)

const (
	atOnce    = 400 // requests in progress
	cancelled = 10  // one in so many requests is given up
	refused   = 50  // one in so many asks for what can't be a shield
	materials = 16
)

// verdict is what the client was told of a name.
type verdict string

const (
	acknowledged verdict = "acknowledged"
	failed       verdict = "failed"     // nothing happened
	unknown      verdict = "unknown"    // says the service
	unanswered   verdict = "unanswered" // the client has not waited
)

// report is what the client has seen.
type report struct {
	Verdicts   map[string]verdict // by name
	Statuses   map[int]int
	Terminated int
}

// client asks for shields with names of their own.
type client struct {
	url     string
	http    http.Client
	latency atomic.Int64 // of the last request

	mu     sync.Mutex
	report report
}

// clientMain is the client's main function. It reports on its standard output.
func clientMain(ctx context.Context) error {
	requests, err := strconv.Atoi(os.Getenv(requestsVariable))
	if err != nil {
		return err
	}
	c := &client{
		url:    os.Getenv(urlVariable),
		http:   http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: atOnce}},
		report: report{Verdicts: map[string]verdict{}, Statuses: map[int]int{}},
	}
	c.latency.Store(int64(time.Millisecond))
	terminator := startTerminator(ctx, os.Getenv(postgresVariable))
	err = c.load(ctx, requests)
	terminated, failed := terminator()
	if err := errors.Join(err, failed); err != nil {
		return err
	}
	c.report.Terminated = terminated
	return json.NewEncoder(os.Stdout).Encode(c.report)
}

// load makes the requests, and returns what they failed with of which the
// service is not meant to make any.
func (c *client) load(ctx context.Context, requests int) error {
	var (
		workers sync.WaitGroup
		last    atomic.Int64
		errs    = make([]error, atOnce)
	)
	for worker := range atOnce {
		workers.Go(func() {
			for i := int(last.Add(1)); i <= requests && errs[worker] == nil; i = int(last.Add(1)) {
				errs[worker] = c.forge(ctx, i)
			}
		})
	}
	workers.Wait()
	return errors.Join(errs...)
}

// forge asks for the shield with the number, and sometimes gives up at a time
// at which an answer might be on its way.
func (c *client) forge(ctx context.Context, number int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if number%cancelled == 0 {
		timer := time.AfterFunc(rand.N(time.Duration(2*c.latency.Load())), cancel)
		defer timer.Stop()
	}
	shield := Shield{Name: fmt.Sprintf("Shield %d", number), DefenseRating: new(int32(60)), Material: fmt.Sprintf("material %d", number%materials)}
	if number%refused == 1 {
		shield.DefenseRating = new(int32(-1))
	}
	began := time.Now()
	status, told, err := c.post(ctx, shield)
	switch {
	case err != nil && ctx.Err() == nil:
		return err
	case err == nil:
		c.latency.Store(int64(time.Since(began)))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report.Verdicts[shield.Name] = told
	c.report.Statuses[status]++
	return nil
}

func (c *client) post(ctx context.Context, shield Shield) (status int, told verdict, err error) {
	body, err := json.Marshal(shield)
	if err != nil {
		return 0, unanswered, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+"/shields", strings.NewReader(string(body)))
	if err != nil {
		return 0, unanswered, err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return 0, unanswered, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, unanswered, err
	}
	told, err = read(response.StatusCode, answer)
	return response.StatusCode, told, err
}

// read understands an answer as a client does.
func read(status int, answer []byte) (verdict, error) {
	if status == http.StatusCreated {
		return acknowledged, nil
	}
	var problem httpError
	if err := json.Unmarshal(answer, &problem); err != nil {
		return failed, err
	}
	if problem.Outcome == "unknown" {
		return unknown, nil
	}
	return failed, nil
}

// startTerminator terminates backends at random until it is stopped, which
// returns how many.
func startTerminator(ctx context.Context, databaseURL string) (stop func() (int, error)) {
	if databaseURL == "" {
		return func() (int, error) { return 0, nil }
	}
	ctx, cancel := context.WithCancel(ctx)
	var terminated int
	ended := make(chan error, 1)
	go func() { ended <- terminate(ctx, databaseURL, &terminated) }()
	return func() (int, error) {
		cancel()
		err := <-ended
		return terminated, err
	}
}

func terminate(ctx context.Context, databaseURL string, terminated *int) error {
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	const query = `select pg_terminate_backend(pid) from (
		select pid from pg_stat_activity
		where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()
		order by random() limit 1) as victim`
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(rand.N(20 * time.Millisecond)):
		}
		tag, err := conn.Exec(context.WithoutCancel(ctx), query)
		if err != nil {
			return err
		}
		*terminated += int(tag.RowsAffected())
	}
}

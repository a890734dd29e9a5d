// Service forges shields for who asks over HTTP: on SQLite, without any set-up,
// or on the PostgreSQL that DATABASE_URL names.
//
//	go run ./examples/service
//	curl -d '{"name":"Tower Shield","defense_rating":60,"material":"iron"}' localhost:8080/shields
//	curl localhost:8080/shields
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/migrations"
)

func main() {
	addr := flag.String("addr", cmp.Or(os.Getenv("ADDR"), "localhost:8080"), "the `address` to listen on")
	flag.Parse()
	databaseURL := cmp.Or(os.Getenv("DATABASE_URL"), "sqlite:///data/app.db")

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	if err := run(ctx, os.Stdout, databaseURL, *addr); err != nil {
		slog.Error("the service failed", "error", err)
		os.Exit(1)
	}
}

// run serves until ctx is done. The database is closed when the requests have
// ended.
func run(ctx context.Context, out io.Writer, databaseURL, addr string) (err error) {
	db, err := thole.Open(ctx, databaseURL)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := db.Migrate(ctx, migrations.FS); err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "listening on http://%s, on %s\n", listener.Addr(), db.Engine())
	return serve(ctx, listener, newHandler(db, slog.Default()), grace)
}

// What a client may take. A request is bounded by sessionTimeout and by what
// COMMIT may take beyond it, so that writeTimeout and grace cut none off.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	writeTimeout      = 30 * time.Second
	idleTimeout       = time.Minute
	grace             = 20 * time.Second
)

// serve answers requests until ctx is done, then lets those that are in
// progress finish. They don't end with ctx, or every deployment would fail
// some.
func serve(ctx context.Context, listener net.Listener, handler http.Handler, grace time.Duration) error {
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	return shutDown(ctx, server)
}

// shutDown refuses new requests and waits for the others. When ctx is done it
// closes their connections, which ends their contexts and so their sessions.
func shutDown(ctx context.Context, server *http.Server) error {
	if err := server.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("shut down, requests are cut off: %w", err), server.Close())
	}
	return nil
}

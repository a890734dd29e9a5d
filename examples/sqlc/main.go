// Command sqlc runs code that sqlc has generated, for database/sql, in sessions
// of thole: a Tx and a DB are what it calls DBTX. It was generated for
// PostgreSQL, and runs on SQLite too.
//
//	go run ./examples/sqlc
//	DATABASE_URL=postgres://user:password@localhost/db go run ./examples/sqlc
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/examples/sqlc/books"
)

func main() {
	url := cmp.Or(os.Getenv("DATABASE_URL"), "sqlite://")
	if err := run(context.Background(), os.Stdout, url); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, out io.Writer, databaseURL string) error {
	db, err := thole.Open(ctx, databaseURL)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	if _, err := db.ExecContext(ctx, books.Schema); err != nil {
		return err
	}

	// Both books, or none.
	err = db.WithSession(ctx, func(tx *thole.Tx) error {
		q := books.New(tx)
		for id, title := range []string{"Cat's Cradle", "Galápagos"} {
			if _, err := q.AddBook(ctx, books.AddBookParams{ID: int64(id + 1), Title: title, Author: "Vonnegut"}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}

	// Outside a session each statement commits by itself.
	_, err = books.New(db).AddBook(ctx, books.AddBookParams{ID: 3, Title: "Galápagos", Author: "Darwin"})
	fmt.Fprintln(out, "there is one with that title:", errors.Is(err, thole.ErrUnique))

	list, err := books.New(db).BooksBy(ctx, "Vonnegut")
	if err != nil {
		return err
	}
	for _, book := range list {
		fmt.Fprintf(out, "%d %s\n", book.ID, book.Title)
	}
	return nil
}

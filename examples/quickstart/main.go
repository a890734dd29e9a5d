// Quickstart forges shields in sessions: on SQLite, without any set-up, or on
// the PostgreSQL that DATABASE_URL names.
//
//	go run ./examples/quickstart
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/migrations"
)

func main() {
	databaseURL := cmp.Or(os.Getenv("DATABASE_URL"), "sqlite:///data/app.db")
	if err := run(context.Background(), os.Stdout, databaseURL); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, databaseURL string) error {
	db, err := thole.Open(ctx, databaseURL)
	if err != nil {
		return err
	}
	defer db.Close()
	if err := db.Migrate(ctx, migrations.FS); err != nil {
		return err
	}
	fmt.Fprintln(out, "opened and migrated:", db.Engine())

	for _, step := range []func(context.Context, io.Writer, *thole.DB) error{
		restock, rollBack, forgeTwice, fillOrder, list,
	} {
		if err := step(ctx, out, db); err != nil {
			return err
		}
	}
	return nil
}

// Shield is a row of the table shields.
type Shield struct {
	Name          string  `db:"name"`
	DefenseRating int     `db:"defense_rating"`
	Material      string  `db:"material"`
	Enchantment   *string `db:"enchantment"` // nil for none
}

var (
	dragonScale = Shield{"Dragon Scale Shield", 95, "dragon scale", new("fire ward")}
	mirror      = Shield{"Mirror of Dawn", 70, "silver", new("blinding light")}
	tower       = Shield{"Tower Shield", 60, "iron", nil}
	buckler     = Shield{"Oak Buckler", 20, "oak", nil}
	kite        = Shield{"Kite Shield", 55, "iron", nil}
)

// forge adds a shield and counts it in the armoury: both or neither. Given a DB
// it is a session of its own, given a Tx a session nested in that.
func forge(ctx context.Context, q thole.Querier, s Shield) error {
	return q.WithSession(ctx, func(tx *thole.Tx) error {
		_, err := tx.ExecContext(ctx,
			"INSERT INTO armoury (material, stock) VALUES (?, 1) ON CONFLICT (material) DO UPDATE SET stock = armoury.stock + 1",
			s.Material)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx,
			"INSERT INTO shields (name, defense_rating, material, enchantment) VALUES (?, ?, ?, ?)",
			s.Name, s.DefenseRating, s.Material, s.Enchantment)
		return err
	})
}

// restock puts new shields in the place of those that an earlier run has left.
func restock(ctx context.Context, out io.Writer, db *thole.DB) error {
	shields := []Shield{dragonScale, mirror, tower, buckler}
	return db.WithSession(ctx, func(tx *thole.Tx) error {
		tx.OnCommit(func(context.Context) {
			fmt.Fprintf(out, "committed: forged %d shields\n", len(shields))
		})
		if _, err := tx.ExecContext(ctx, "DELETE FROM shields"); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "DELETE FROM armoury"); err != nil {
			return err
		}
		for _, s := range shields {
			if err := forge(ctx, tx, s); err != nil {
				return err
			}
		}
		return nil
	})
}

var errNotPaid = errors.New("the buyer has not paid")

// rollBack returns an error from a session, which undoes it.
func rollBack(ctx context.Context, out io.Writer, db *thole.DB) error {
	err := db.WithSession(ctx, func(tx *thole.Tx) error {
		if _, err := tx.ExecContext(ctx, "DELETE FROM shields"); err != nil {
			return err
		}
		return errNotPaid
	})
	if !errors.Is(err, errNotPaid) {
		return err
	}
	var left int
	if err := db.GetContext(ctx, &left, "SELECT count(*) FROM shields"); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s: all sold, but %v, so there are still %d shields\n", thole.OutcomeOf(err), err, left)
	return nil
}

// forgeTwice meets a constraint.
func forgeTwice(ctx context.Context, out io.Writer, db *thole.DB) error {
	err := forge(ctx, db, dragonScale)
	if errors.Is(err, thole.ErrUnique) {
		fmt.Fprintf(out, "%s: there is a %s already\n", thole.OutcomeOf(err), dragonScale.Name)
		return nil
	}
	return err
}

// fillOrder forges what it can. The nested session that fails undoes what it
// did, and the one outside goes on.
func fillOrder(ctx context.Context, out io.Writer, db *thole.DB) error {
	made, err := thole.WithSession(ctx, db, func(tx *thole.Tx) (made []string, err error) {
		for _, s := range []Shield{mirror, kite} {
			err := forge(ctx, tx, s)
			if errors.Is(err, thole.ErrUnique) {
				continue
			}
			if err != nil {
				return nil, err
			}
			made = append(made, s.Name)
		}
		return made, nil
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "committed: of an order of 2 shields forged %q, the other was there already\n", made)
	return nil
}

// list prints what is in the database.
func list(ctx context.Context, out io.Writer, db *thole.DB) error {
	var shields []Shield
	err := db.SelectContext(ctx, &shields,
		"SELECT name, defense_rating, material, enchantment FROM shields ORDER BY defense_rating DESC")
	if err != nil {
		return err
	}
	for _, s := range shields {
		enchantment := "no enchantment"
		if s.Enchantment != nil {
			enchantment = *s.Enchantment
		}
		fmt.Fprintf(out, "  %-20s defense %2d  %-13s %s\n", s.Name, s.DefenseRating, s.Material, enchantment)
	}
	return nil
}

package main

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/tholedb/thole"
)

// Shield is a row of the table shields, and what a client sends and gets.
type Shield struct {
	Name          string  `db:"name" json:"name"`
	DefenseRating *int32  `db:"defense_rating" json:"defense_rating"` // what is missing the table refuses
	Material      string  `db:"material" json:"material"`
	Enchantment   *string `db:"enchantment" json:"enchantment"` // nil for none
}

const columns = "name, defense_rating, material, enchantment"

// sessionTimeout bounds a session with its wait for a connection and for locks.
const sessionTimeout = 5 * time.Second

// service answers the requests.
type service struct {
	db  *thole.DB
	log *slog.Logger
}

func newHandler(db *thole.DB, log *slog.Logger) http.Handler {
	s := &service{db: db, log: log}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /shields", s.answer(s.postShield))
	mux.HandleFunc("GET /shields", s.answer(s.getShields))
	mux.HandleFunc("GET /shields/{name}", s.answer(s.getShield))
	mux.HandleFunc("DELETE /shields/{name}", s.answer(s.deleteShield))
	return mux
}

// postShield forges a shield. 201 says that it is committed.
func (s *service) postShield(w http.ResponseWriter, r *http.Request) error {
	wanted, err := readShield(w, r)
	if err != nil {
		return err
	}
	forged, err := s.forge(r.Context(), wanted)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusCreated, forged)
	return nil
}

// forge adds a shield and counts it in the armoury: both or neither.
func (s *service) forge(ctx context.Context, wanted Shield) (Shield, error) {
	opts := thole.SessionOptions{Label: "forge", Timeout: sessionTimeout}
	return thole.WithSessionOptions(ctx, s.db, opts, func(tx *thole.Tx) (forged Shield, err error) {
		err = tx.GetContext(ctx, &forged,
			"INSERT INTO shields ("+columns+") VALUES (?, ?, ?, ?) RETURNING "+columns,
			wanted.Name, wanted.DefenseRating, wanted.Material, wanted.Enchantment)
		if err != nil {
			return forged, err
		}
		_, err = tx.ExecContext(ctx,
			"INSERT INTO armoury (material, stock) VALUES (?, 1)"+
				" ON CONFLICT (material) DO UPDATE SET stock = armoury.stock + 1", wanted.Material)
		return forged, err
	})
}

// page is how many shields a list has at most.
const page = 100

// getShields lists shields by name, those after the name in the query. The next
// page begins after the last name of this one.
func (s *service) getShields(w http.ResponseWriter, r *http.Request) error {
	ctx, after := r.Context(), r.URL.Query().Get("after")
	if after != "" && !isText(after) {
		return badRequest("after must be a name")
	}
	opts := thole.SessionOptions{Label: "list shields", Timeout: sessionTimeout, ReadOnly: true}
	shields, err := thole.WithSessionOptions(ctx, s.db, opts, func(tx *thole.Tx) ([]Shield, error) {
		shields := []Shield{} // JSON's [], where nil is null
		err := tx.SelectContext(ctx, &shields,
			"SELECT "+columns+" FROM shields WHERE name > ? ORDER BY name LIMIT ?", after, page)
		return shields, err
	})
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, shields)
	return nil
}

func (s *service) getShield(w http.ResponseWriter, r *http.Request) error {
	ctx, name := r.Context(), r.PathValue("name")
	if !isText(name) {
		return errNoShield
	}
	opts := thole.SessionOptions{Label: "get shield", Timeout: sessionTimeout, ReadOnly: true}
	shield, err := thole.WithSessionOptions(ctx, s.db, opts, func(tx *thole.Tx) (shield Shield, err error) {
		err = tx.GetContext(ctx, &shield, "SELECT "+columns+" FROM shields WHERE name = ?", name)
		return shield, err
	})
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, shield)
	return nil
}

func (s *service) deleteShield(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	if !isText(name) {
		return errNoShield
	}
	if err := s.scrap(r.Context(), name); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// scrap takes a shield out of the armoury. As forge does, it locks the shield
// before its material: with one order everywhere there are no deadlocks.
func (s *service) scrap(ctx context.Context, name string) error {
	opts := thole.SessionOptions{Label: "scrap", Timeout: sessionTimeout}
	return s.db.WithSessionOptions(ctx, opts, func(tx *thole.Tx) error {
		var material string
		err := tx.GetContext(ctx, &material, "DELETE FROM shields WHERE name = ? RETURNING material", name)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, "UPDATE armoury SET stock = stock - 1 WHERE material = ?", material)
		return err
	})
}

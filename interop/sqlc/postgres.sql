-- name: Add :one
INSERT INTO items (id, name) VALUES ((SELECT coalesce(max(id), 0) + 1 FROM items), $1) RETURNING *;

-- name: Items :many
SELECT * FROM items WHERE id >= sqlc.arg(first) AND id <= sqlc.arg(last) ORDER BY id;

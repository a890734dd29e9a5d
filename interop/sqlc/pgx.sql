-- name: Add :one
INSERT INTO items (id, name) VALUES ((SELECT coalesce(max(id), 0) + 1 FROM items), $1) RETURNING *;

-- name: Items :many
SELECT * FROM items WHERE id >= sqlc.arg(first) AND id <= sqlc.arg(last) ORDER BY id;

-- name: Named :many
SELECT * FROM items WHERE name = any(sqlc.arg(names)::text[]) ORDER BY id;

-- name: Clear :exec
DELETE FROM items;

-- name: Rename :execrows
UPDATE items SET name = sqlc.arg(new_name) WHERE name = sqlc.arg(name);

-- name: Remove :execresult
DELETE FROM items WHERE id >= sqlc.arg(first) AND id <= sqlc.arg(last);

-- name: AddCopies :copyfrom
INSERT INTO items (id, name) VALUES ($1, $2);

-- name: AddBatch :batchexec
INSERT INTO items (id, name) VALUES ($1, $2);

-- name: AddBatchOne :batchone
INSERT INTO items (id, name) VALUES ($1, $2) RETURNING *;

-- name: ItemsBatch :batchmany
SELECT * FROM items WHERE id >= sqlc.arg(first) AND id <= sqlc.arg(last) ORDER BY id;

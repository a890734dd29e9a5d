-- name: AddBook :one
INSERT INTO books (id, title, author) VALUES ($1, $2, $3) RETURNING *;

-- name: Book :one
SELECT * FROM books WHERE id = $1;

-- name: BooksBy :many
SELECT * FROM books WHERE author = $1 ORDER BY title;

-- name: Rename :execrows
UPDATE books SET title = sqlc.arg(title) WHERE id = sqlc.arg(id);

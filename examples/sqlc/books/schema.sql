CREATE TABLE books (
	id         bigint PRIMARY KEY,
	title      text      NOT NULL UNIQUE,
	author     text      NOT NULL,
	added      timestamp NOT NULL DEFAULT current_timestamp
);

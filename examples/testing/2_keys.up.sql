CREATE TABLE thole_idempotency_keys (
    key     text        NOT NULL PRIMARY KEY,
    attempt text        NOT NULL,
    at      timestamptz NOT NULL DEFAULT current_timestamp
);
CREATE INDEX thole_idempotency_keys_at ON thole_idempotency_keys (at);

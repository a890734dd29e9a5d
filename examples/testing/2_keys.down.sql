DROP TABLE thole_idempotency_keys;

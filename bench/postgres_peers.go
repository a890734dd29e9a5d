package main

// pgx by hand is what the others are compared with. Each may have two
// connections for each goroutine, and keeps them: thole ends read-only sessions
// after it has answered, and nobody else needs more than one.
var pgPeers = []pgPeer{
	{"pgx", "pgx by hand: pgxpool, BeginTx, a deferred Rollback, Commit", openPgx},
	{"exec", "pgx by hand with default_query_exec_mode=exec, for PgBouncer", openExec},
	{"describe", "pgx by hand with default_query_exec_mode=cache_describe, for PgBouncer", openDescribe},
	{"thole", "its defaults, and its own methods", openPgThole},
	{"tholepgx", "thole, and its views of a session and of the database for pgx", openTholePgx},
	{"beginfunc", "pgx.BeginTxFunc", openBeginFunc},
	{"batch", "pgx's Batch.BeginTx with the first statement", openBatch},
	{"sql", "database/sql on pgx", openPgSQL},
	{"sqlx", "sqlx on pgx", openPgSqlx},
	{"libpq", "sqlx on lib/pq", openLibPQ},
	{"gorm", "gorm on pgx, SkipDefaultTransaction", openPgGorm},
	{"bun", "bun on pgx with the simple protocol, as bun writes arguments into the text", openPgBun},
	{"avito", "avito's go-transaction-manager on pgx", openAvito},
	{"cockroach", "cockroach-go's crdbpgxv5 on pgx", openCockroach},
}

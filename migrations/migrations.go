// Package migrations is the schema of the examples: a forge that keeps the
// shields it has made, and an armoury that counts what lies in store.
//
// The files are portable: the same text runs on SQLite and on PostgreSQL.
package migrations

import "embed"

// FS holds the migrations, for the Migrate method of a DB.
//
//go:embed *.sql
var FS embed.FS

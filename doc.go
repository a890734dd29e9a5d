// Package thole (rhymes with hole: the pin that holds the oar through the
// stroke) gives a program transactional sessions over SQL, the same on SQLite
// and PostgreSQL.
//
//	db, err := thole.Open(ctx, "sqlite:///data/app.db") // or postgres://…
//	if err != nil {
//		return err
//	}
//	defer db.Close()
//
// [Open] takes a database URL, whose forms are listed at [ParseURL]. [OpenConfig]
// takes more than a URL can say, [OpenPool] a pool that the program has.
//
// # Sessions
//
// A session is one transaction. It commits when the function returns nil;
// otherwise nothing has happened. This is [DB.WithSession]:
//
//	err := db.WithSession(ctx, func(tx *thole.Tx) error {
//		_, err := tx.ExecContext(ctx, "UPDATE armoury SET stock = stock - 1 WHERE material = ?", "iron")
//		return err
//	})
//
// The function [WithSession] is the same for one that makes a value.
// [SessionOptions] ask for a read-only session, an isolation level, timeouts, or
// more attempts, and each field says its default.
//
// # Sessions inside sessions
//
// A session opened inside another is a savepoint. Its error undoes what it did,
// and the outer session may go on:
//
//	err := tx.WithSession(ctx, func(tx *thole.Tx) error { return forge(ctx, tx, shield) })
//	if errors.Is(err, thole.ErrUnique) {
//		err = nil // there is such a shield
//	}
//
// Code that works inside and outside takes a [Querier], which is a [DB] or a
// [Tx]. Code that holds a *DB joins the session whose [Tx.Context] it is given;
// [From] does that by name.
//
// # Queries
//
// [One], [All] and [Each] read rows into structs, maps or single values. [Insert]
// and [InsertAll] write structs. [JSON] and [Array] are types of columns. All of
// them take a DB or a Tx:
//
//	shields, err := thole.All[Shield](ctx, tx, "SELECT * FROM shields WHERE material IN (?)", []string{"iron", "oak"})
//
// Placeholders are ?, or $1, or :name with one struct or map, on both engines.
// A slice is a list in IN (?) and NOT IN (?), and one value anywhere else.
//
// DB and Tx also have the methods of database/sql and sqlx that take a context.
// Each of them satisfies [sqlx.ExtContext] and the DBTX that sqlc generates for
// database/sql. Code that takes a *sqlx.DB or a *sqlx.Tx is given [DB.Sqlx] or
// [Tx.Sqlx], and on PostgreSQL what is written for pgx [DB.Pgx] or [Tx.Pgx].
//
// # Errors
//
// Each kind of failure is a variable that [errors.Is] finds on both engines;
// the table at [ErrUnique] says what is behind it. [Error] has the code, the
// constraint and the statement:
//
//	if failed, ok := errors.AsType[*thole.Error](err); ok && errors.Is(err, thole.ErrCheck) {
//		log.Print("refused by ", failed.Constraint)
//	}
//
// [OutcomeOf] tells what became of the session. It is unknown in two cases,
// [ErrCommitUnknown] and [ErrTxControl], and never a guess. With the caller's own
// key, such as the id of a request, thole asks what became of COMMIT: the effects
// happen once, however often it is called, see [SessionOptions.IdempotencyKey].
//
// # Hooks
//
// [Tx.OnCommit] has something done once the session is committed,
// [Tx.OnRollback] when it is not, [Tx.BeforeCommit] while it can still be
// refused:
//
//	tx.OnCommit(func(ctx context.Context) { events.Publish(ctx, "forged", shield.Name) })
//
// # Migrations and tests
//
// [DB.Migrate] makes the tables, from SQL files that the program embeds:
//
//	err := db.Migrate(ctx, migrations.FS)
//
// The package testing/dbtest gives each test a database of its own, on both
// engines.
package thole

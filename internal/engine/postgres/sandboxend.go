package postgres

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/tholedb/thole/internal/sqltext"
)

// This file is about what COMMIT does beside committing, for sessions of a
// [Sandbox].

// constraints are what has to be known of those that can be deferred.
//
// https://www.postgresql.org/docs/current/sql-set-constraints.html
type constraints struct {
	shared *sharedConstraints
	found  deferrable
	known  bool
	own    bool // the sandbox has changed the schema
}

// sharedConstraints are those of the database itself.
type sharedConstraints struct {
	sync.Mutex
	found deferrable
	known bool
}

// deferrable are the constraints that can be deferred.
type deferrable struct {
	any       bool
	immediate string // the names of those that are not, divided by commas
}

// check has the server look at all that was deferred, as COMMIT does. It fires the
// triggers while their constraints are immediate already, which COMMIT does not.
func (d deferrable) check() []command {
	if !d.any {
		return nil
	}
	return []command{{text: "set constraints all immediate"}}
}

// reset makes the constraints for the next session what they are by themselves.
func (d deferrable) reset() []command {
	if !d.any {
		return nil
	}
	commands := []command{{text: "set constraints all deferred"}}
	if d.immediate != "" {
		commands = append(commands, command{text: "set constraints " + d.immediate + " immediate"})
	}
	return commands
}

// findDeferrable leaves out those of temporary tables: they may be gone when they
// are named.
const findDeferrable = `select coalesce(bool_or(c.condeferrable), false),
		coalesce(string_agg(distinct pg_catalog.format('%I.%I', n.nspname, c.conname), ', ')
			filter (where c.condeferrable and not c.condeferred and n.nspname !~ '^pg_temp_'), '')
	from pg_catalog.pg_constraint c join pg_catalog.pg_namespace n on n.oid = c.connamespace`

// learn asks the server for the constraints once for the database, and again after a
// change of the schema in a sandbox.
func (k *constraints) learn(ctx context.Context, c *conn) (err error) {
	k.own = k.own || c.reshaped
	if k.own {
		if !k.known || c.reshaped {
			k.found, err = c.deferrable(ctx)
			k.known = err == nil
		}
		return err
	}
	k.shared.Lock()
	defer k.shared.Unlock()
	if !k.shared.known {
		k.shared.found, err = c.deferrable(ctx)
		k.shared.known = err == nil
	}
	k.found = k.shared.found
	return err
}

// deferrable asks the server.
func (c *conn) deferrable(ctx context.Context) (d deferrable, err error) {
	if err := c.start(ctx, findDeferrable); err != nil {
		return d, err
	}
	if err := c.catchUp(ctx); err != nil {
		return d, err
	}
	found := c.wire.ExecParams(ctx, findDeferrable, nil, nil, nil, nil).Read()
	if found.Err != nil {
		return d, found.Err
	}
	row := found.Rows[0]
	return deferrable{any: string(row[0]) == "t", immediate: string(row[1])}, nil
}

// forget forgets the constraints where a change of the schema is undone.
func (k *constraints) forget(c *conn) { k.known = k.known && !c.reshaped }

// temporary is a temporary table of which COMMIT drops or empties.
type temporary struct {
	table string // as it was written, in pg_temp
	drops bool
}

// temporaries are those that a text makes. One that is made by a function is not
// found.
//
// https://www.postgresql.org/docs/current/sql-createtable.html (ON COMMIT)
func temporaries(query string) (tables []temporary) {
	if !hasFold(query, "temp") || !hasFold(query, "commit") {
		return nil
	}
	for statement := range sqltext.Statements(sqltext.Postgres, query) {
		if t, ok := temporaryOf(statement.Text); ok {
			tables = append(tables, t)
		}
	}
	return tables
}

// temporaryOf reads CREATE TEMPORARY TABLE name … ON COMMIT ….
func temporaryOf(statement string) (t temporary, ok bool) {
	words := wordsOf(statement)
	is := func(at int, word string) bool { return at < len(words) && equalFold(words[at], word) }
	if !is(0, "create") {
		return t, false
	}
	name := 0
	for i := range words {
		switch {
		case name == 0 && is(i, "table") && is(i+1, "if"):
			name = i + 4 // IF NOT EXISTS
		case name == 0 && is(i, "table"):
			name = i + 1
		case is(i, "on") && is(i+1, "commit"):
			t.drops = is(i+2, "drop")
			ok = t.drops || is(i+2, "delete")
		}
	}
	if name == 0 || name >= len(words) {
		return t, false
	}
	t.table = "pg_temp." + words[name]
	if name+2 < len(words) && words[name+1] == "." {
		t.table = words[name] + "." + words[name+2]
	}
	return t, ok
}

// wordsOf are the tokens of a statement without blanks and comments.
func wordsOf(statement string) (words []string) {
	for token := range sqltext.Postgres.Tokens(statement) {
		if token.Kind != sqltext.Space && token.Kind != sqltext.Comment {
			words = append(words, token.Text)
		}
	}
	return words
}

// endTemporaries does with temporary tables what COMMIT does. Each may be gone.
func endTemporaries(tables []temporary) []command {
	if len(tables) == 0 {
		return nil
	}
	var b strings.Builder
	for _, t := range tables {
		if t.drops {
			fmt.Fprintf(&b, "drop table if exists %s cascade; ", t.table)
		} else {
			fmt.Fprintf(&b, "if to_regclass(%s) is not null then truncate %s cascade; end if; ", textOf(t.table), t.table)
		}
	}
	return []command{{text: "do $thole_end$ begin " + b.String() + "end $thole_end$"}}
}

// prepares reports whether a statement of a text prepares one by a name, which no
// rollback undoes.
func prepares(query string) bool {
	if !hasFold(query, "prepare") {
		return false
	}
	for statement := range sqltext.Statements(sqltext.Postgres, query) {
		if equalFold(firstWord(statement.Text), "prepare") {
			return true
		}
	}
	return false
}

// textOf is a name as a string constant.
func textOf(name string) string { return "'" + strings.ReplaceAll(name, "'", "''") + "'" }

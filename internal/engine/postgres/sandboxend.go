package postgres

import (
	"context"
	"sync"

	"github.com/tholedb/thole/internal/sqltext"
)

// This file is about what COMMIT does beside committing, for sessions of a
// [Sandbox].

// constraints are the commands that check deferred constraints, and defer them
// again.
//
// https://www.postgresql.org/docs/current/sql-set-constraints.html
type constraints struct {
	shared   *sharedConstraints
	commands []command
	known    bool
	own      bool // the sandbox has changed the schema
}

// sharedConstraints are those of the database itself.
type sharedConstraints struct {
	sync.Mutex
	commands []command
	known    bool
}

// deferrable finds the constraints that can be deferred, and those that are. One
// that shares its name with one that can't be is left immediate once it was
// checked: the server finds them by their names.
const deferrable = `select string_agg(name, ', '), string_agg(name, ', ') filter (where postponed and not fixed)
	from (select pg_catalog.format('%I.%I', n.nspname, c.conname) as name,
			bool_or(c.condeferrable) as loose, bool_or(c.condeferred) as postponed, bool_or(not c.condeferrable) as fixed
		from pg_catalog.pg_constraint c join pg_catalog.pg_namespace n on n.oid = c.connamespace
		group by 1) as constraints
	where loose`

// of returns the commands. The server is asked for the constraints once for the
// database, and again after a change of the schema in a sandbox.
func (k *constraints) of(ctx context.Context, c *conn) ([]command, error) {
	k.own = k.own || c.reshaped
	if k.own {
		if k.known && !c.reshaped {
			return k.commands, nil
		}
		commands, err := c.constraints(ctx)
		k.commands, k.known = commands, err == nil
		return commands, err
	}
	k.shared.Lock()
	defer k.shared.Unlock()
	if k.shared.known {
		return k.shared.commands, nil
	}
	commands, err := c.constraints(ctx)
	k.shared.commands, k.shared.known = commands, err == nil
	return commands, err
}

// constraints asks the server.
func (c *conn) constraints(ctx context.Context) (commands []command, err error) {
	if err := c.start(ctx, deferrable); err != nil {
		return nil, err
	}
	if err := c.catchUp(ctx); err != nil {
		return nil, err
	}
	found := c.wire.ExecParams(ctx, deferrable, nil, nil, nil, nil).Read()
	if found.Err != nil {
		return nil, found.Err
	}
	row := found.Rows[0]
	if row[0] != nil {
		commands = append(commands, command{text: "set constraints " + string(row[0]) + " immediate"})
	}
	if row[1] != nil {
		commands = append(commands, command{text: "set constraints " + string(row[1]) + " deferred"})
	}
	return commands, nil
}

// forget forgets the constraints where a change of the schema is undone.
func (k *constraints) forget(c *conn) { k.known = k.known && (c == nil || !c.reshaped) }

// atEnd is what becomes of the temporary tables that a text makes, at the end of
// its transaction.
//
// https://www.postgresql.org/docs/current/sql-createtable.html (ON COMMIT)
func atEnd(query string) (commands []command) {
	if !hasFold(query, "temp") || !hasFold(query, "commit") {
		return nil
	}
	for statement := range sqltext.Statements(sqltext.Postgres, query) {
		if table, action := temporary(statement.Text); action != "" {
			// The level that has made it may have been rolled back.
			block := "begin " + action + table + "; exception when undefined_table then null; end"
			commands = append(commands, command{text: "do $thole_end$" + block + "$thole_end$"})
		}
	}
	return commands
}

// temporary finds the name of the table in CREATE TEMPORARY TABLE name … ON COMMIT
// …, and what COMMIT does with it, or "".
func temporary(statement string) (table, action string) {
	var words []string
	for token := range sqltext.Postgres.Tokens(statement) {
		if token.Kind != sqltext.Space && token.Kind != sqltext.Comment {
			words = append(words, token.Text)
		}
	}
	is := func(at int, word string) bool { return at < len(words) && equalFold(words[at], word) }
	if !is(0, "create") {
		return "", ""
	}
	name := 0
	for i := range words {
		switch {
		case name == 0 && is(i, "table") && is(i+1, "if"):
			name = i + 4 // IF NOT EXISTS
		case name == 0 && is(i, "table"):
			name = i + 1
		case is(i, "on") && is(i+1, "commit") && is(i+2, "drop"):
			action = "drop table "
		case is(i, "on") && is(i+1, "commit") && is(i+2, "delete"):
			action = "delete from "
		}
	}
	if name == 0 || name >= len(words) {
		return "", ""
	}
	table = words[name]
	if name+2 < len(words) && words[name+1] == "." {
		table += "." + words[name+2]
	}
	return table, action
}

package postgres

import (
	"container/list"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// protocol is how statements with arguments or rows run, after pgx's
// [pgx.QueryExecMode].
type protocol uint8

const (
	// byName prepares a statement once on a connection, and executes it from then
	// on: one round trip, and one more where it is not known.
	byName protocol = iota

	// byDescription keeps what a statement takes, and has it parsed each time. It
	// needs nothing that another connection to the server would not have.
	byDescription

	// byText sends a statement without knowing what it takes: arguments go as
	// text that the server makes out.
	byText
)

// protocolOf is what a configuration asks for. The simple protocol, whose errors
// can't be believed, is never used for arguments: byText works wherever it does.
func protocolOf(cfg *pgx.ConnConfig, pooled bool) (kind protocol, capacity int) {
	switch cfg.DefaultQueryExecMode {
	case pgx.QueryExecModeCacheStatement:
		kind, capacity = byName, cfg.StatementCacheCapacity
	case pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec:
		kind, capacity = byDescription, cfg.DescriptionCacheCapacity
	default:
		return byText, 0
	}
	if pooled && kind == byName {
		kind, capacity = byDescription, cfg.DescriptionCacheCapacity
	}
	if capacity <= 0 {
		return byText, 0
	}
	return kind, capacity
}

// statement is one that a connection knows.
type statement struct {
	key     string // its text, and the settings that it is read by
	wire    *pgconn.StatementDescription
	params  *pgconn.StatementDescription // what it takes alone
	formats []int16                      // that its columns are asked for in
	native  []int16                      // those that pgx's types read best
	names   []string                     // of its columns
	values  []converter

	seen, reshapes bool // it has run, and changes what others mean
}

// reshapesBy reports whether the statement changes what others mean, going by its
// tag when it ran for the first time.
func (s *statement) reshapesBy(tag string) bool {
	if !s.seen {
		s.seen, s.reshapes = true, reshapes(tag, s.key)
	}
	return s.reshapes
}

// newStatement is a statement of a name, or of "", as the server described it.
func newStatement(key, name string, described *pgconn.StatementDescription, types *pgtype.Map) *statement {
	described.Name = name
	s := &statement{key: key, wire: described, params: &pgconn.StatementDescription{ParamOIDs: described.ParamOIDs}}
	if name == "" {
		return s // what its columns are may have changed when it runs
	}
	s.formats, s.native = make([]int16, len(described.Fields)), make([]int16, len(described.Fields))
	for i, field := range described.Fields {
		s.formats[i], s.native[i] = formatOf(field.DataTypeOID), types.FormatCodeForOID(field.DataTypeOID)
	}
	fields := slices.Clone(described.Fields)
	for i := range fields {
		fields[i].Format = s.formats[i]
	}
	s.names, s.values = columns(fields, types)
	return s
}

// statements are those that one connection knows, up to a number. They belong
// to the connection, from one session to the next, and stay after errors: the
// server forgets nothing when a transaction is rolled back.
//
// https://www.postgresql.org/docs/current/sql-prepare.html
type statements struct {
	capacity int
	byKey    map[string]*list.Element
	recent   list.List // of *statement; the one that ran last is in front
	dead     []string  // names that the server can forget, with the next flight
}

// knownStatements is the key in a connection's data of its statements.
const knownStatements = "thole: statements"

// statementsOf are those that a connection knows.
func statementsOf(conn *pgconn.PgConn, capacity int) *statements {
	known, ok := conn.CustomData()[knownStatements].(*statements)
	if !ok {
		known = &statements{byKey: map[string]*list.Element{}}
		conn.CustomData()[knownStatements] = known
	}
	known.capacity = capacity
	return known
}

// find returns the statement of a key, or nil.
func (k *statements) find(key string) *statement {
	at := k.byKey[key]
	if at == nil {
		return nil
	}
	k.recent.MoveToFront(at)
	return at.Value.(*statement)
}

// nameOf is the name of a statement, a digest of its key: a pooler that was not
// noticed, where others have prepared theirs on the same connection, makes an
// error of it (26000) and never another statement.
func nameOf(key string) string {
	digest := sha256.Sum256([]byte(key))
	return "thole_" + hex.EncodeToString(digest[:12])
}

// add keeps a statement that was not known, in place of the one that ran longest
// ago.
func (k *statements) add(s *statement) {
	k.byKey[s.key] = k.recent.PushFront(s)
	if k.recent.Len() > k.capacity {
		k.forget(k.recent.Back().Value.(*statement).key)
	}
}

// forgetAll drops all, as after a change of the schema.
func (k *statements) forgetAll() {
	for at := k.recent.Front(); at != nil; at = k.recent.Front() {
		k.forget(at.Value.(*statement).key)
	}
}

// forget drops the statement of a key, if it is known.
func (k *statements) forget(key string) {
	at := k.byKey[key]
	if at == nil {
		return
	}
	if name := at.Value.(*statement).wire.Name; name != "" {
		k.dead = append(k.dead, name)
	}
	k.recent.Remove(at)
	delete(k.byKey, key)
}

// disproved reports whether the server's error is one that refutes an earlier
// description of the statement, and so came before the statement was executed:
//
//   - An error with a position in the text is found when that is analysed, with
//     the types of the description (42804, 42883). Had it been described just
//     then it would have failed in that. An error in a function, or in what a
//     procedure runs, has no position in the text of the client.
//   - 08P01 without a context comes of a result with another number of columns,
//     as of "returning *", before it is asked for.
//   - A plan that is kept by a name must not change what it returns (0A000, known
//     by the routine that it comes from), or the server has forgotten the name
//     (26000), as after DEALLOCATE ALL.
//
// https://www.postgresql.org/docs/current/protocol-error-fields.html
func disproved(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || isFatal(pg) {
		return false
	}
	return pg.Position != 0 || pg.Code == protocolViolation && pg.Where == "" || pg.Code == "26000" && pg.Where == "" ||
		pg.Code == "0A000" && pg.Routine == "RevalidateCachedQuery" && pg.Where == ""
}

// reshape forgets what is known of statements, as they may be others now, and
// once more when the session ends, which may undo that.
func (c *conn) reshape() {
	c.reshaped = true
	c.known.forgetAll()
}

// settle is called when the session ends, or a part of it is undone.
func (c *conn) settle() {
	if c.reshaped {
		c.known.forgetAll()
	}
}

// reshapes reports whether a statement, of which the text and the tag are given,
// may have changed what others mean: the schema, the path in which their names are
// looked up, or that they are prepared.
func reshapes(tag, query string) bool {
	verb, _, _ := strings.Cut(tag, " ")
	switch verb {
	case "", "INSERT", "UPDATE", "DELETE", "MERGE", "FETCH", "MOVE", "COPY", "SHOW", "EXPLAIN",
		"LOCK", "TRUNCATE", "NOTIFY", "LISTEN", "UNLISTEN", "DECLARE", "CLOSE", "ANALYZE", "VACUUM":
		return false
	case "SELECT": // also the tag of CREATE TABLE AS
		return !isKept(query) && hasFold(query, "create") || hasFold(query, "set_config") ||
			equalFold(firstWord(query), "select") && hasFold(query, "into")
	case "SET", "RESET":
		return hasFold(query, "search_path") || hasFold(query, "role") || hasFold(query, "authorization") || hasFold(query, "all")
	}
	return true
}

// mayReshape is [reshapes] for a statement that has not told its tag.
func mayReshape(query string) bool {
	if isKept(query) {
		return reshapes("SELECT", query)
	}
	return reshapes(strings.ToUpper(firstWord(query)), query)
}

// Package sqltext reads SQL as text: it finds the tokens, the placeholders, the statements, and the statements
// that control the transaction, in the lexical rules of SQLite and of PostgreSQL.
//
// It parses no grammar and asks no engine. A text that the engine would refuse is read as far as the rules go,
// and the refusal is left to the engine.
//
//   - [Dialect.Tokens] is the lexer that everything else stands on.
//   - [Parse] finds the placeholders that users write, and makes the text that the engine takes.
//   - [Statements] splits a text at its semicolons.
//   - [Control] finds the statement that would end, begin or divide the transaction.
package sqltext

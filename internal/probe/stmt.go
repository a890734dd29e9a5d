package probe

import (
	"context"
	"database/sql/driver"

	"github.com/tholedb/thole/internal/engine"
	"github.com/tholedb/thole/internal/sqltext"
)

// stmt is a prepared statement of a session, noted each time it runs.
type stmt struct {
	driver.Stmt
	on   *session
	text string
}

var _ interface {
	driver.StmtExecContext
	driver.StmtQueryContext
} = (*stmt)(nil)

// ExecContext implements [driver.StmtExecContext].
func (s *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	return run(ctx, s.on, s.text, values(args), func(ctx context.Context) (driver.Result, error) {
		return s.Stmt.(driver.StmtExecContext).ExecContext(ctx, args)
	})
}

// QueryContext implements [driver.StmtQueryContext].
func (s *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return run(ctx, s.on, s.text, values(args), func(ctx context.Context) (driver.Rows, error) {
		return s.Stmt.(driver.StmtQueryContext).QueryContext(ctx, args)
	})
}

// autoStmt is one outside a session.
type autoStmt struct {
	driver.Stmt
	on   *auto
	text string
}

// ExecContext implements [driver.StmtExecContext].
func (s *autoStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	return runAlone(ctx, s.on, s.text, values(args), func(ctx context.Context) (driver.Result, error) {
		return s.Stmt.(driver.StmtExecContext).ExecContext(ctx, args)
	})
}

// QueryContext implements [driver.StmtQueryContext].
func (s *autoStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return runAlone(ctx, s.on, s.text, values(args), func(ctx context.Context) (driver.Rows, error) {
		return s.Stmt.(driver.StmtQueryContext).QueryContext(ctx, args)
	})
}

// insertText stands for the statement by which rows are inserted.
func insertText(rows engine.Rows) string {
	return "INSERT INTO " + sqltext.Quote(rows.Table...) + " (" + sqltext.QuoteList(rows.Columns) + ")"
}

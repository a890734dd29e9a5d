package postgres

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// Native is what pgx's own interfaces stand on: a session, and a connection
// outside one.
type Native interface {
	// QueryNative runs a statement up to its first row, as QueryContext does.
	QueryNative(ctx context.Context, query string, args []any) (*Rows, error)

	// ExecNative runs a statement to its end, as ExecContext does, and returns
	// what it says it was.
	ExecNative(ctx context.Context, query string, args []any) (pgconn.CommandTag, error)

	// Native gives the connection for what runs on nothing else, or says why that
	// must not run. query says what it is, for messages, and texts are the
	// statements that run there, as far as they are known. In a session its
	// transaction has begun.
	Native(ctx context.Context, query string, texts ...string) (*pgx.Conn, error)
}

var _, _ Native = (*session)(nil), (*auto)(nil)

// QueryNative implements [Native].
func (s *session) QueryNative(ctx context.Context, query string, args []any) (*Rows, error) {
	return on(ctx, s, query, func(c *conn) (*Rows, error) { return c.rows(ctx, query, args) })
}

// QueryNative implements [Native].
func (a *auto) QueryNative(ctx context.Context, query string, args []any) (*Rows, error) {
	return again(ctx, a, func() (*Rows, error) { return a.rows(ctx, query, args) })
}

// ExecNative implements [Native].
func (s *session) ExecNative(ctx context.Context, query string, args []any) (pgconn.CommandTag, error) {
	tag, err := on(ctx, s, query, func(c *conn) (Tag, error) { return c.exec(ctx, query, args) })
	return tag.CommandTag, err
}

// ExecNative implements [Native].
func (a *auto) ExecNative(ctx context.Context, query string, args []any) (pgconn.CommandTag, error) {
	if isScript(query, len(args)) {
		tag, err := a.execScript(ctx, query)
		return tag.CommandTag, err
	}
	tag, err := again(ctx, a, func() (Tag, error) { return a.exec(ctx, query, args) })
	return tag.CommandTag, err
}

// Native implements [Native].
func (s *session) Native(ctx context.Context, query string, texts ...string) (*pgx.Conn, error) {
	for _, text := range texts {
		if err := s.refuse(text); err != nil {
			return nil, err
		}
	}
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	return s.conn.lend(ctx, query, texts)
}

// Native implements [Native].
func (a *auto) Native(ctx context.Context, query string, texts ...string) (*pgx.Conn, error) {
	return a.lend(ctx, query, texts)
}

func (c *conn) lend(ctx context.Context, query string, texts []string) (*pgx.Conn, error) {
	if err := c.start(ctx, query); err != nil {
		return nil, err
	}
	if slices.ContainsFunc(texts, copiesOverConnection) {
		return nil, errCopy
	}
	if err := c.catchUp(ctx); err != nil {
		return nil, err
	}
	c.sent, c.used = true, true
	if slices.ContainsFunc(texts, mayReshape) {
		c.reshape()
	}
	return c.pgx, nil
}

func (c *conn) rows(ctx context.Context, query string, args []any) (*Rows, error) {
	r, err := c.run(ctx, query, args, true)
	if err != nil {
		return nil, err
	}
	return &Rows{result: r}, nil
}

// Rows are rows as pgx reads them.
type Rows struct {
	result *result
	err    error // of reading
}

var _ pgx.Rows = (*Rows)(nil)

// Told has f told what the statement says it was, once the rows are closed.
func (r *Rows) Told(f func(tag pgconn.CommandTag, err error)) {
	if r.result.closed {
		f(r.result.tag, r.result.err)
		return
	}
	before := r.result.traced
	r.result.traced = func(tag pgconn.CommandTag, err error) {
		before(tag, err)
		f(tag, err)
	}
}

// Close implements [pgx.Rows].
func (r *Rows) Close() { _ = r.result.close() } // Err tells

// Err implements [pgx.Rows].
func (r *Rows) Err() error {
	if r.err != nil {
		return r.err
	}
	return r.result.err
}

// CommandTag implements [pgx.Rows].
func (r *Rows) CommandTag() pgconn.CommandTag { return r.result.tag }

// FieldDescriptions implements [pgx.Rows].
func (r *Rows) FieldDescriptions() []pgconn.FieldDescription {
	if kept := r.result.kept; kept != nil {
		return kept.fields
	}
	return r.result.reader.FieldDescriptions()
}

// Next implements [pgx.Rows].
func (r *Rows) Next() bool { return r.result.advance() }

// RawValues implements [pgx.Rows].
func (r *Rows) RawValues() [][]byte {
	if kept := r.result.kept; kept != nil {
		return kept.rows[kept.next-1]
	}
	return r.result.reader.Values()
}

// Conn implements [pgx.Rows]. What ran there while the rows are open would fail.
func (*Rows) Conn() *pgx.Conn { return nil }

// TypeMap implements [pgx.Rows].
func (r *Rows) TypeMap() *pgtype.Map { return r.result.conn.types() }

// Scan implements [pgx.Rows].
func (r *Rows) Scan(dest ...any) error {
	if len(dest) == 1 {
		if row, ok := dest[0].(pgx.RowScanner); ok {
			return r.failed(row.ScanRow(r))
		}
	}
	return r.failed(pgx.ScanRow(r.TypeMap(), r.FieldDescriptions(), r.RawValues(), dest...))
}

// failed closes the rows where one could not be read.
func (r *Rows) failed(err error) error {
	if err != nil && r.err == nil {
		r.err = err
		r.Close()
	}
	return err
}

// Values implements [pgx.Rows].
func (r *Rows) Values() ([]any, error) {
	values := make([]any, len(r.FieldDescriptions()))
	for i, field := range r.FieldDescriptions() {
		value, err := r.value(field, r.RawValues()[i])
		if err != nil {
			return nil, r.failed(fmt.Errorf("read column %d: %w", i, err))
		}
		values[i] = value
	}
	return values, nil
}

func (r *Rows) value(field pgconn.FieldDescription, src []byte) (any, error) {
	if src == nil {
		return nil, nil
	}
	if known, ok := r.TypeMap().TypeForOID(field.DataTypeOID); ok {
		return known.Codec.DecodeValue(r.TypeMap(), field.DataTypeOID, field.Format, src)
	}
	if field.Format == pgtype.TextFormatCode {
		return string(src), nil
	}
	return append([]byte{}, src...), nil
}

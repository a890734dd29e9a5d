package sqlite

import (
	"context"
	"database/sql/driver"
	"strings"

	"github.com/tholedb/thole/internal/engine"
	"github.com/tholedb/thole/internal/sqltext"
)

// valuesAtOnce is about how many values a statement of InsertRows has. More make the text longer to read, and gain
// nothing any more.
const valuesAtOnce = 2000

// InsertRows implements [engine.Session]: a statement of many rows is prepared once, and one for the rest.
func (s *session) InsertRows(ctx context.Context, rows engine.Rows) error {
	atOnce := max(1, valuesAtOnce/len(rows.Columns))
	from := 0
	for _, size := range []int{atOnce, 1} {
		if rows.Len-from < size {
			continue
		}
		prepared, err := s.prepare(ctx, insertText(rows, size))
		if err != nil {
			return err
		}
		if from, err = insertBy(ctx, prepared, rows, from, size); err != nil {
			return err
		}
	}
	return nil
}

// insertBy inserts rows as long as the statement has enough of them, and returns which is the next.
func insertBy(ctx context.Context, prepared *stmt, rows engine.Rows, from, size int) (int, error) {
	defer func() { _ = prepared.Close() }() // what it says, the statement has said
	for ; rows.Len-from >= size; from += size {
		if err := insertSome(ctx, prepared, rows, from, size); err != nil {
			return from, err
		}
	}
	return from, nil
}

// insertText is the statement for so many rows.
func insertText(rows engine.Rows, size int) string {
	row := "(" + strings.Repeat(", ?", len(rows.Columns))[2:] + ")"
	return "INSERT INTO " + sqltext.Quote(rows.Table...) + " (" + sqltext.QuoteList(rows.Columns) + ") VALUES " +
		strings.Repeat(", "+row, size)[2:]
}

func insertSome(ctx context.Context, prepared *stmt, rows engine.Rows, from, size int) error {
	args := make([]driver.NamedValue, size*len(rows.Columns))
	for i := range args {
		args[i].Ordinal = i + 1
	}
	for i := range size {
		if err := rows.Row(from+i, args[i*len(rows.Columns):(i+1)*len(rows.Columns)]); err != nil {
			return err
		}
	}
	_, err := prepared.ExecContext(ctx, args)
	return err
}

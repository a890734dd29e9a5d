package thole

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tholedb/thole/internal/engine"
)

// logEnd tells of an outermost session that has ended what is to be told.
func (tx *Tx) logEnd(outcome Outcome, cause error) {
	took := time.Since(tx.session.info.Began)
	level, what := slog.LevelDebug, "thole: a session failed"
	switch {
	case outcome == Unknown:
		level, what = slog.LevelError, "thole: it is unknown whether a session was committed"
	case tx.db.slow > 0 && took >= tx.db.slow:
		level, what = slog.LevelWarn, "thole: a session was slow"
	case outcome == Committed:
		return
	}
	tx.db.logSession(tx.ctx, level, what, tx.session.info, cause,
		slog.Int("attempt", tx.session.attempt), slog.String("outcome", outcome.String()))
}

// logSession writes a line about a session, with what is known of it.
func (db *DB) logSession(ctx context.Context, level slog.Level, what string, info *engine.Info, cause error, more ...slog.Attr) {
	if !db.log.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{slog.String("caller", info.Caller.String()), slog.Duration("age", time.Since(info.Began))}
	if info.Label != "" {
		attrs = append(attrs, slog.String("label", info.Label))
	}
	attrs = append(attrs, more...)
	if cause != nil {
		attrs = append(attrs, slog.String("error", loggable(cause)))
	}
	if failed, ok := errors.AsType[*Error](cause); ok && failed.Query != "" {
		attrs = append(attrs, slog.String("query", shorten(failed.Query)))
	}
	db.log.LogAttrs(ctx, level, what, attrs...)
}

// loggable is what a log may have of an error: the engine's own text, which has
// no values, or a sentinel's. The text of the program's errors is its own.
func loggable(err error) string {
	if told, ok := errors.AsType[*engine.Error](err); ok {
		return told.Error()
	}
	for _, known := range []error{context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	if own, ok := errors.AsType[*Error](err); ok && own.kind != nil {
		return own.kind.Error()
	}
	return fmt.Sprintf("%T", err)
}

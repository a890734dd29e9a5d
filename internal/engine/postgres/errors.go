package postgres

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tholedb/thole/internal/engine"
)

// activeTransaction is the SQLSTATE of what can't run in a transaction, or only
// at its beginning.
const activeTransaction = "25001"

// readOnlyTransaction is the SQLSTATE of a write where nothing can be written. In
// a session that writes, the server was promoted away from, or demoted: nobody
// else shall get its connection.
const readOnlyTransaction = "25006"

// The SQLSTATEs of what isn't there, an OID among that, and of what should not
// happen.
const (
	undefinedFunction = "42883"
	undefinedObject   = "42704"
	internalError     = "XX000"
)

// protocolViolation is the SQLSTATE of, among others, a Bind that does not fit
// the statement. The connection goes on, and nothing was executed.
const protocolViolation = "08P01"

// queryCanceled is the SQLSTATE of statement_timeout, of a cancel that a context
// sent, and of pg_cancel_backend.
const queryCanceled = "57014"

// copyRoutine is where the server learns that the client breaks off a COPY. Its
// message is the client's own words then, with values in them.
const copyRoutine = "CopyGetData"

type meaning struct {
	kind  error
	retry engine.Retry
}

// meanings are the SQLSTATEs that tell a session something.
//
// https://www.postgresql.org/docs/current/errcodes-appendix.html
var meanings = map[string]meaning{
	"23502":             {engine.ErrNotNull, engine.RetryNever},
	"23503":             {engine.ErrForeignKey, engine.RetryNever},
	"23505":             {engine.ErrUnique, engine.RetryNever},
	"23514":             {engine.ErrCheck, engine.RetryNever},
	"23P01":             {engine.ErrExclusion, engine.RetryNever},
	activeTransaction:   {errors.ErrUnsupported, engine.RetryNever},
	readOnlyTransaction: {engine.ErrReadOnly, engine.RetryNever},
	"25P02":             {engine.ErrTxAborted, engine.RetryNever},
	"25P03":             {engine.ErrConnLost, engine.RetryAsked},
	"25P04":             {engine.ErrConnLost, engine.RetryAsked},
	"40001":             {engine.ErrSerialization, engine.RetryAsked},
	"40P01":             {engine.ErrDeadlock, engine.RetryAsked},
	"53200":             {nil, engine.RetryAsked},
	"53300":             {nil, engine.RetryAsked},
	"55P03":             {engine.ErrLocked, engine.RetryAsked},
	queryCanceled:       {engine.ErrTimeout, engine.RetryNever},
	"57P01":             {engine.ErrConnLost, engine.RetryAsked},
	"57P02":             {engine.ErrConnLost, engine.RetryAsked},
	"57P03":             {engine.ErrConnLost, engine.RetryAsked},
	"57P05":             {engine.ErrConnLost, engine.RetryAsked},
}

// explain says what an error of pgx means by itself. query is the text of the
// statement, from which the message may quote.
func explain(err error, query string) *engine.Error {
	if told, ok := errors.AsType[*engine.Error](err); ok {
		own := *told
		return &own
	}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return &engine.Error{Message: describe(err), Err: err}
	}
	if pg.Code == queryCanceled && pg.Routine == copyRoutine {
		return &engine.Error{Code: pg.Code, Message: "COPY was broken off: a row was not had, or a value of it did not encode", Err: err}
	}
	m := meaningOf(pg)
	message := withoutValues(pg, query)
	if pg.Code == activeTransaction {
		message += adviceOn(query)
	}
	return &engine.Error{
		Kind:       m.kind,
		Code:       pg.Code,
		Constraint: pg.ConstraintName,
		Table:      pg.TableName,
		Column:     pg.ColumnName,
		Message:    message,
		Retry:      m.retry,
		Err:        err,
	}
}

// adviceOn says what to do instead of a statement that a transaction can't have
// where it stands.
func adviceOn(query string) string {
	if equalFold(firstWord(query), "set") {
		return "; set it with the options of the session"
	}
	return "; run it on the DB, outside a session"
}

func meaningOf(pg *pgconn.PgError) meaning {
	class := pg.Code[:min(2, len(pg.Code))]
	switch {
	case isFatal(pg) && (class == "22" || class == "28" || class == "3D" || class == "42"):
		return meaning{} // the server refuses this client, today and tomorrow
	case isFatal(pg) || class == "08":
		return meaning{engine.ErrConnLost, engine.RetryAsked}
	default:
		return meanings[pg.Code]
	}
}

// isFatal reports whether the server ends the connection with the error.
// Severity may be translated; before PostgreSQL 9.6 there is nothing else.
func isFatal(pg *pgconn.PgError) bool {
	severity := pg.SeverityUnlocalized
	if severity == "" {
		severity = pg.Severity
	}
	return severity == "FATAL" || severity == "PANIC"
}

// describe words an error that isn't the server's by its type. Its text may
// hold values and passwords.
func describe(err error) string {
	var (
		argument *argumentError
		dns      *net.DNSError
		system   *os.SyscallError
		network  net.Error
	)
	switch {
	case errors.As(err, &argument):
		return argument.text
	case errors.Is(err, errBusy):
		return errBusy.Error()
	case errors.Is(err, context.Canceled):
		return "given up"
	case errors.As(err, &dns):
		return "the name of the host was not resolved"
	case errors.As(err, new(*tls.CertificateVerificationError)):
		return "the certificate of the server was not accepted"
	case errors.As(err, &system):
		return system.Err.Error()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return "closed by the other side"
	case errors.Is(err, pgconn.ErrConnClosed):
		return "closed"
	case errors.As(err, &network) && network.Timeout():
		return "no answer in time"
	default:
		return describeTarget(err)
	}
}

// describeTarget words the errors of target_session_attrs, and what is left.
func describeTarget(err error) string {
	for _, target := range []error{
		pgconn.ErrReadOnlyConnection, pgconn.ErrReadWriteConnection,
		pgconn.ErrPrimaryConnection, pgconn.ErrStandbyConnection,
	} {
		if errors.Is(err, target) {
			return target.Error()
		}
	}
	return "pgx failed; its error is not shown because it may hold values"
}

// unreachable explains why there is no connection to the database. Its message
// may quote names of the configuration.
func (e *Engine) unreachable(err error) *engine.Error {
	if attempt, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		err = attempt.Unwrap() // without the configuration, which holds the password
	}
	cfg := e.pool.Config().ConnConfig
	settings := slices.Collect(maps.Keys(cfg.RuntimeParams))
	failed := explain(err, strings.Join(append(settings, cfg.User, cfg.Database), " "))
	if failed.Code == "" {
		failed.Kind, failed.Retry = engine.ErrConnLost, engine.RetryAsked
	}
	failed.Message = "connect to " + e.name + ": " + failed.Message
	return failed
}

// lostBy says that the connection went with the failure.
func lostBy(failed *engine.Error) *engine.Error {
	failed.Kind = engine.ErrConnLost
	failed.Retry = engine.RetryAsked
	if isContext(failed.Err) {
		failed.Retry = engine.RetryNever
	}
	failed.Aborts = engine.AbortsSession
	failed.Message = "connection lost: " + failed.Message
	return failed
}

func isContext(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// byContext says that a done ctx is the reason for the failure.
func byContext(ctx context.Context, failed *engine.Error) *engine.Error {
	failed.Kind = nil
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		failed.Kind = engine.ErrTimeout
	}
	failed.Retry = engine.RetryNever
	failed.Message += ": " + ctx.Err().Error()
	failed.Err = withContext(ctx, failed.Err)
	return failed
}

// withContext joins the error and the cause of a done ctx to err.
func withContext(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); !errors.Is(cause, ctx.Err()) {
		return errors.Join(err, ctx.Err(), engine.Cause(ctx))
	}
	return errors.Join(err, ctx.Err())
}

package postgres

import (
	"database/sql/driver"
	"encoding/binary"
	"math"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// converter makes of a column, which is not null, what database/sql converts
// further. It is used by one goroutine at a time.
type converter func(src []byte) (driver.Value, error)

// formatOf is the format in which a column of a type is asked for. The types that
// database/sql has values of its own for come in binary; any other is text, in
// which every type can be read.
func formatOf(oid uint32) int16 {
	switch oid {
	case pgtype.BoolOID, pgtype.ByteaOID, pgtype.CIDOID, pgtype.DateOID, pgtype.Float4OID, pgtype.Float8OID,
		pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.OIDOID, pgtype.TimestampOID, pgtype.TimestamptzOID, pgtype.XIDOID:
		return pgtype.BinaryFormatCode
	}
	return pgtype.TextFormatCode
}

// columns are the names of fields and how their values are converted.
func columns(fields []pgconn.FieldDescription, types *pgtype.Map) ([]string, []converter) {
	names, values := make([]string, len(fields)), make([]converter, len(fields))
	for i, field := range fields {
		names[i] = field.Name
		values[i] = converterOf(types, field.DataTypeOID, field.Format)
	}
	return names, values
}

// converterOf converts values of a type to what pgx's database/sql driver makes
// of them, so that sqlx scans the same.
func converterOf(types *pgtype.Map, oid uint32, format int16) converter {
	switch oid {
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID:
		return toInt(types, oid, format)
	case pgtype.Float4OID:
		return scanned(types, oid, format, func(v *float32) (driver.Value, error) { return float64(*v), nil })
	case pgtype.Float8OID:
		return toFloat(types, format)
	case pgtype.BoolOID:
		return scanned(types, oid, format, func(v *bool) (driver.Value, error) { return *v, nil })
	case pgtype.ByteaOID, pgtype.JSONOID, pgtype.JSONBOID, pgtype.XMLOID:
		return func(src []byte) (driver.Value, error) {
			var v []byte // the caller keeps it
			err := types.Scan(oid, format, src, &v)
			return v, err
		}
	case pgtype.CIDOID, pgtype.OIDOID, pgtype.XIDOID:
		return scanned(types, oid, format, func(v *pgtype.Uint32) (driver.Value, error) { return v.Value() })
	case pgtype.DateOID:
		return scanned(types, oid, format, func(v *pgtype.Date) (driver.Value, error) { return v.Value() })
	case pgtype.TimestampOID:
		return scanned(types, oid, format, func(v *pgtype.Timestamp) (driver.Value, error) { return v.Value() })
	case pgtype.TimestamptzOID:
		return scanned(types, oid, format, func(v *pgtype.Timestamptz) (driver.Value, error) { return v.Value() })
	}
	if format == pgtype.TextFormatCode {
		return func(src []byte) (driver.Value, error) { return string(src), nil }
	}
	return scanned(types, oid, format, func(v *string) (driver.Value, error) { return *v, nil })
}

// scanned converts by pgx, into a variable of its own.
func scanned[T any](types *pgtype.Map, oid uint32, format int16, value func(*T) (driver.Value, error)) converter {
	v := new(T)
	plan := types.PlanScan(oid, format, v)
	return func(src []byte) (driver.Value, error) {
		if err := plan.Scan(src, v); err != nil {
			return nil, err
		}
		return value(v)
	}
}

// toInt reads what most columns are without pgx's detours.
func toInt(types *pgtype.Map, oid uint32, format int16) converter {
	byPgx := scanned(types, oid, format, func(v *int64) (driver.Value, error) { return *v, nil })
	if format != pgtype.BinaryFormatCode {
		return byPgx
	}
	return func(src []byte) (driver.Value, error) {
		switch len(src) {
		case 2:
			return int64(int16(binary.BigEndian.Uint16(src))), nil
		case 4:
			return int64(int32(binary.BigEndian.Uint32(src))), nil
		case 8:
			return int64(binary.BigEndian.Uint64(src)), nil
		}
		return byPgx(src)
	}
}

func toFloat(types *pgtype.Map, format int16) converter {
	byPgx := scanned(types, pgtype.Float8OID, format, func(v *float64) (driver.Value, error) { return *v, nil })
	if format != pgtype.BinaryFormatCode {
		return byPgx
	}
	return func(src []byte) (driver.Value, error) {
		if len(src) == 8 {
			return math.Float64frombits(binary.BigEndian.Uint64(src)), nil
		}
		return byPgx(src)
	}
}

package thole

import (
	"database/sql"
	"database/sql/driver"
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// upper is a scanner.
type upper struct{ seen []any }

func (u *upper) Scan(value any) error { u.seen = append(u.seen, value); return nil }

// Conversions of our own are those of database/sql, to the last pair of a value
// and a destination.
func TestAssignIsDatabaseSQLs(t *testing.T) {
	t.Parallel()
	db, err := Open(t.Context(), "sqlite://")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	type (
		id   int64
		tiny int8
		name string
		flag bool
		unit float64
		raw  []byte
		none struct{}
	)
	destinations := []any{
		new(int64), new(int), new(int32), new(int8), new(uint64), new(uint8), new(float64), new(float32), new(bool), new(string),
		new([]byte), new(any), new(time.Time), new(sql.RawBytes), new(id), new(tiny), new(name), new(flag), new(unit), new(raw),
		new(*int64), new(*string), new(*[]byte), new(*bool), new(*id), new(**int), new(*any), new(*time.Time), new(upper), new(*upper),
		new(sql.NullString), new(sql.Null[int64]), new(sql.Null[name]), new(none), new([]int), new(map[string]any), new(complex128),
	}
	values := []driver.Value{
		nil, int64(0), int64(1), int64(2), int64(-1), int64(127), int64(128), int64(300), int64(math.MaxInt64), int64(math.MinInt64),
		0.0, 1.0, -1.5, 1e300, math.Inf(1), math.Nextafter(1, 2), 16777217.0, true, false, "", "1", "-7", "1.5", "true", "x", "9223372036854775808",
		[]byte(nil),
		[]byte{},
		[]byte("1"), []byte("text"), time.Unix(1, 2).UTC(),
	}
	pairs := 0
	for _, dest := range destinations {
		for _, value := range values {
			pairs++
			d := &direct{conn: &conn{db: db}, columns: []string{"c"}, values: []driver.Value{value}}
			got, want := reflect.New(reflect.TypeOf(dest).Elem()), reflect.New(reflect.TypeOf(dest).Elem())
			gotErr, wantErr := d.Scan(got.Interface()), d.scanByView(want.Interface(), value)
			if (gotErr == nil) != (wantErr == nil) {
				t.Errorf("%T(%v) into %T: got error %v, want %v", value, value, dest, gotErr, wantErr)
			}
			if raw, ok := reflect.TypeAssert[*sql.RawBytes](want); ok && value == "" {
				*raw = sql.RawBytes{} // is nil or not, as the buffer happens to be
			}
			if wantErr == nil && !cmp.Equal(got.Interface(), want.Interface(), cmp.Exporter(func(reflect.Type) bool { return true })) {
				t.Errorf("%T(%v) into %T: got %v, want %v", value, value, dest, got.Elem(), want.Elem())
			}
			if d.convert != nil {
				if err := d.convert.Close(); err != nil {
					t.Error(err)
				}
			}
		}
	}
	t.Logf("%d pairs", pairs)
}

// Package fields finds the fields of a struct by the names that columns and
// parameters have. Tags mean what they mean to sqlx: db:"name", db:"-", and
// embedded structs and structs in fields as sqlx reads them.
package fields

import (
	"database/sql"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"unicode"

	"github.com/jmoiron/sqlx/reflectx"
)

// Field is a field of a struct, or of a struct within.
type Field struct {
	Name  string // by which a column finds it: "city", "home.city"
	Go    string // as Go names it: "City", "Home.City"
	Index []int  // as reflect finds it
	Type  reflect.Type
	Tag   reflect.StructTag
}

// Struct is the fields of a struct type. It doesn't change.
type Struct struct {
	Type reflect.Type
	// Fields are those of the struct itself and of structs embedded in it, in
	// the order of the source.
	Fields []*Field

	names map[string][]*Field // those that a name may mean
}

var (
	known  sync.Map // of *Struct by type
	snakes = reflectx.NewMapperFunc("db", Snake)
	lowers = reflectx.NewMapperFunc("db", strings.ToLower) // sqlx's own
)

// Of is the fields of a struct type.
func Of(t reflect.Type) *Struct {
	if s, ok := known.Load(t); ok {
		return s.(*Struct)
	}
	s, _ := known.LoadOrStore(t, read(t))
	return s.(*Struct)
}

func read(t reflect.Type) *Struct {
	s := &Struct{Type: t, names: map[string][]*Field{}}
	for _, info := range snakes.TypeMap(t).Index {
		if field := s.add(info); field != nil && isTop(info) {
			s.Fields = append(s.Fields, field)
		}
	}
	slices.SortStableFunc(s.Fields, func(a, b *Field) int { return slices.Compare(a.Index, b.Index) })
	snake := s.names
	s.names = map[string][]*Field{}
	for _, info := range lowers.TypeMap(t).Index {
		s.add(info)
	}
	maps.Copy(s.names, snake) // have the precedence
	return s
}

// add adds a field under its name, unless one that is less deep has it.
func (s *Struct) add(info *reflectx.FieldInfo) *Field {
	if info.Name == "" || isPassed(info) || isOutOfReach(info) {
		return nil
	}
	field := &Field{Name: info.Path, Go: path(info), Index: info.Index, Type: info.Field.Type, Tag: info.Field.Tag}
	same := s.names[info.Path]
	if len(same) > 0 && len(same[0].Index) < len(info.Index) {
		return nil
	}
	s.names[info.Path] = append(same, field)
	return field
}

// isTop reports whether only embedded structs are around the field.
func isTop(info *reflectx.FieldInfo) bool { return info.Path == info.Name }

// isPassed reports whether the field is embedded and stands for its own fields
// only, or can't be read.
func isPassed(info *reflectx.FieldInfo) bool {
	t := info.Field.Type
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return info.Embedded && (!info.Field.IsExported() || info.Field.Tag.Get("db") == "" && IsStruct(t))
}

// isOutOfReach reports whether an embedded pointer to an unexported struct is on
// the way, which reflect can't set.
func isOutOfReach(info *reflectx.FieldInfo) bool {
	for p := info.Parent; p != nil && p.Parent != nil; p = p.Parent {
		if !p.Field.IsExported() && p.Field.Type.Kind() == reflect.Pointer {
			return true
		}
	}
	return false
}

// path is the field as Go names it. What is embedded has no place in it.
func path(info *reflectx.FieldInfo) string {
	name := info.Field.Name
	for p := info.Parent; p != nil && p.Parent != nil; p = p.Parent {
		if !p.Embedded {
			name = p.Field.Name + "." + name
		}
	}
	return name
}

// Find returns the field of a name. The error is for a name that no field has,
// or more than one.
func (s *Struct) Find(name string) (*Field, error) {
	switch found := s.names[name]; len(found) {
	case 0:
		return nil, fmt.Errorf("%s has no field for %q", s.Type, name)
	case 1:
		return found[0], nil
	default:
		return nil, fmt.Errorf("%s has more than one field for %q", s.Type, name)
	}
}

// Set returns the field of a struct to be set. It makes the structs on the way
// that are nil.
func (f *Field) Set(v reflect.Value) reflect.Value {
	for i, at := range f.Index {
		if i > 0 && v.Kind() == reflect.Pointer {
			if v.IsNil() {
				v.Set(reflect.New(v.Type().Elem()))
			}
			v = v.Elem()
		}
		v = v.Field(at)
	}
	return v
}

// Get returns the value of the field of a struct, or nil where a struct on the
// way is nil.
func (f *Field) Get(v reflect.Value) any {
	for i, at := range f.Index {
		if i > 0 && v.Kind() == reflect.Pointer {
			if v.IsNil() {
				return nil
			}
			v = v.Elem()
		}
		v = v.Field(at)
	}
	return v.Interface()
}

var scanner = reflect.TypeFor[sql.Scanner]()

// IsStruct reports whether values of the type have fields of their own, and are
// not a column's value as a whole, as [time.Time] and what implements
// [sql.Scanner] are.
func IsStruct(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && !reflect.PointerTo(t).Implements(scanner) && len(lowers.TypeMap(t).Index) > 0
}

// Snake is a Go name as SQL spells it: UserID is user_id, HTTPServer is
// http_server.
func Snake(name string) string {
	var b strings.Builder
	runes := []rune(name)
	for i, r := range runes {
		if i > 0 && unicode.IsUpper(r) && runes[i-1] != '_' {
			behind := i+1 < len(runes) && unicode.IsLower(runes[i+1])
			if !unicode.IsUpper(runes[i-1]) || behind {
				b.WriteByte('_')
			}
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

package fields

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type place struct {
	City string
	Zip  string `db:"zip_code"`
}

type base struct {
	ID      int
	Comment string
}

type Other struct{ Comment string }

type unreachable struct{ Lost string }

type person struct {
	base
	*Other
	*unreachable
	CreatedAt time.Time
	Home      place
	Work      *place `db:"office"`
	Secret    string `db:"-"`
	hidden    string //nolint:unused // no field to us
	Parent    *person
}

func TestFind(t *testing.T) {
	t.Parallel()
	s := Of(reflect.TypeFor[person]())
	for name, want := range map[string]string{
		"id": "ID", "created_at": "CreatedAt", "createdat": "CreatedAt", "home.city": "Home.City", "home.zip_code": "Home.Zip",
		"office.city": "Work.City", "office": "Work", "home": "Home", "parent.id": "Parent.ID",
	} {
		field, err := s.Find(name)
		if err != nil || field.Go != want {
			t.Errorf("Find(%q): got %v and error %v, want %s", name, field, err, want)
		}
	}
	for name, want := range map[string]string{
		"comment": "more than one field", "secret": "no field", "hidden": "no field", "zip_code": "no field", "lost": "no field", "work": "no field", "": "no field",
	} {
		if field, err := s.Find(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Find(%q): got %v and error %v, want %q", name, field, err, want)
		}
	}
	var names []string
	for _, field := range s.Fields {
		names = append(names, field.Name)
	}
	if diff := cmp.Diff([]string{"id", "comment", "comment", "created_at", "home", "office", "parent"}, names); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
}

func TestGetAndSet(t *testing.T) {
	t.Parallel()
	s := Of(reflect.TypeFor[person]())
	field, err := s.Find("office.zip_code")
	if err != nil {
		t.Fatal(err)
	}
	var p person
	if got := field.Get(reflect.ValueOf(p)); got != nil {
		t.Errorf("got %v behind a nil pointer, want nil", got)
	}
	field.Set(reflect.ValueOf(&p).Elem()).SetString("1")
	if got := field.Get(reflect.ValueOf(p)); got != "1" || p.Work.Zip != "1" {
		t.Errorf("got %v, want what was set", got)
	}
}

func TestIsStruct(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		of   any
		want bool
	}{{person{}, true}, {time.Time{}, false}, {1, false}, {&person{}, false}, {struct{}{}, false}, {struct{ a int }{}, false}} {
		if got := IsStruct(reflect.TypeOf(test.of)); got != test.want {
			t.Errorf("IsStruct of %T: got %t, want %t", test.of, got, test.want)
		}
	}
}

func TestSnake(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"ID": "id", "UserID": "user_id", "HTTPServer": "http_server", "A": "a", "CreatedAt": "created_at", "Address2": "address2",
		"Snake_case": "snake_case", "GrößeÄ": "größe_ä", "MyURLs": "my_ur_ls",
	} {
		if got := Snake(name); got != want {
			t.Errorf("Snake(%q): got %q, want %q", name, got, want)
		}
	}
}

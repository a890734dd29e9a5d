package probe

import (
	"fmt"
	"reflect"
	"strconv"
	"time"
	"unicode/utf8"
)

// longest is how many bytes of an argument are kept.
const longest = 100

// printed are arguments as they are printed. They are read while their statement
// runs, for later they may have changed, and what they hold is not kept.
func printed(args []any) []string {
	if len(args) == 0 {
		return nil
	}
	texts := make([]string, len(args))
	for i, arg := range args {
		texts[i] = print1(arg)
	}
	return texts
}

func print1(arg any) string {
	switch arg := arg.(type) {
	case nil:
		return "NULL"
	case string:
		return shorten(arg, strconv.Quote)
	case []byte:
		return fmt.Sprintf("%d bytes", len(arg))
	case int64:
		return strconv.FormatInt(arg, 10)
	case time.Time:
		return arg.Format(time.RFC3339Nano)
	}
	v := reflect.ValueOf(arg)
	_, printsItself := arg.(fmt.Stringer)
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return "NULL"
		}
		if !printsItself {
			return print1(v.Elem().Interface())
		}
	case reflect.Slice, reflect.Map:
		if v.Len() > longest && !printsItself {
			return fmt.Sprintf("%T of %d", arg, v.Len())
		}
	}
	return shorten(fmt.Sprint(arg), func(text string) string { return text })
}

// shorten cuts a long text, and says how long it was.
func shorten(text string, quote func(string) string) string {
	if len(text) <= longest {
		return quote(text)
	}
	end := longest
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return fmt.Sprintf("%s… (%d bytes)", quote(text[:end]), len(text))
}

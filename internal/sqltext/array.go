package sqltext

import (
	"encoding/hex"
	"errors"
	"strings"
)

// AppendElement appends an element to an array as PostgreSQL writes it, {"a","b"}, so that nothing in the element has
// a meaning: https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO.
func AppendElement(array []byte, element string) []byte {
	array = append(array, '"')
	for i := range len(element) {
		if c := element[i]; c == '"' || c == '\\' {
			array = append(array, '\\')
		}
		array = append(array, element[i])
	}
	return append(array, '"')
}

// IsArray reports whether a text is an array as PostgreSQL writes it, and not JSON: {1,2} or, with other bounds,
// [0:1]={1,2}.
func IsArray(text string) bool {
	if text == "" {
		return false
	}
	bounds, _, _ := strings.Cut(text, "{")
	return text[0] == '{' || strings.HasSuffix(bounds, "]=") && strings.Trim(bounds, "[]:+-0123456789=") == ""
}

var errArray = errors.New("the text is no array of one dimension")

// Elements returns the elements of an array of one dimension as PostgreSQL writes it; nil is NULL.
func Elements(text string) ([]*string, error) {
	if text != "" && text[0] == '[' {
		_, text, _ = strings.Cut(text, "=")
	}
	if len(text) < 2 || text[0] != '{' || text[len(text)-1] != '}' {
		return nil, errArray
	}
	elements := []*string{}
	rest := text[1 : len(text)-1]
	for rest != "" {
		element, behind, err := cutElement(rest)
		if err != nil {
			return nil, err
		}
		elements = append(elements, element)
		if behind == "," {
			return nil, errArray
		}
		rest = strings.TrimPrefix(behind, ",")
	}
	return elements, nil
}

// Bytes returns the bytes that an element of a bytea[] is, which PostgreSQL writes in hexadecimal:
// https://www.postgresql.org/docs/current/datatype-binary.html.
func Bytes(element string) ([]byte, error) {
	return hex.DecodeString(strings.TrimPrefix(element, `\x`))
}

// cutElement reads the element that a text begins with. What is behind it begins with a comma, or is nothing.
func cutElement(text string) (element *string, behind string, err error) {
	if text[0] == '"' {
		return cutQuoted(text)
	}
	end := before(text, ",")
	word := text[:end]
	switch {
	case word == "" || strings.ContainsAny(word, `{}"\`):
		return nil, "", errArray
	case strings.EqualFold(word, "NULL"):
		return nil, text[end:], nil
	}
	return &word, text[end:], nil
}

func cutQuoted(text string) (element *string, behind string, err error) {
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch {
		case text[i] == '\\' && i+1 < len(text):
			i++
			b.WriteByte(text[i])
		case text[i] != '"':
			b.WriteByte(text[i])
		case i+1 < len(text) && text[i+1] != ',':
			return nil, "", errArray
		default:
			unquoted := b.String()
			return &unquoted, text[i+1:], nil
		}
	}
	return nil, "", errArray
}

// Package config reads a file of settings: TOML (toml.io) with one level of keys. It knows of each key's form and line,
// not of its meaning.
//
// It reads the syntax tree of go-toml and not a struct, because an error has to name the line, whatever is wrong with a
// value, and because the same keys are flags.
package config

import (
	"errors"
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// MaxSize is the largest file in octets that is read.
const MaxSize = 1 << 20

// Form is the form of a value.
type Form uint8

// The forms.
const (
	Boolean Form = iota // true
	Number              // 42
	Text                // "text"
	List                // ["text", 42]
)

var forms = []string{"true or false", "a number", "a text in quotes", "a list, as in [\"…\", \"…\"]"}

// Key is a key that may stand in a file.
type Key struct {
	Name string
	Form Form
}

// Entry is a key with its value, each part of it as text.
type Entry struct {
	Name   string
	Values []string
	Line   int
	Lines  []int // of each value of a list
}

// LineError is an error in a line.
type LineError struct {
	Line int
	Err  error
}

// Error returns "line 7: …".
func (e *LineError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }

// Unwrap returns the error without its line.
func (e *LineError) Unwrap() error { return e.Err }

// Parse reads a file whose keys are among known. The error is of the first line that is wrong, a [LineError].
func Parse(text []byte, known []Key) ([]Entry, error) {
	if len(text) > MaxSize {
		return nil, fmt.Errorf("%d octets are too much for a file of settings, at most %d", len(text), MaxSize)
	}
	r := reader{known: known, seen: make(map[string]int)}
	r.parser.Reset(text)
	for r.parser.NextExpression() {
		if err := r.expression(r.parser.Expression()); err != nil {
			return nil, err
		}
	}
	if err := r.parser.Error(); err != nil {
		var at *unstable.ParserError
		if errors.As(err, &at) {
			return nil, &LineError{r.parser.Shape(r.parser.Range(at.Highlight)).Start.Line, errors.New(at.Message)}
		}
		return nil, err
	}
	return r.entries, nil
}

type reader struct {
	parser  unstable.Parser
	known   []Key
	seen    map[string]int // lines by key
	entries []Entry
	line    int // of the last key
}

func (r *reader) wrong(format string, args ...any) error {
	return &LineError{r.line, fmt.Errorf(format, args...)}
}

func (r *reader) expression(e *unstable.Node) error {
	if e.Kind != unstable.KeyValue && e.Kind != unstable.Table && e.Kind != unstable.ArrayTable {
		return nil
	}
	var parts []string
	for it := e.Key(); it.Next(); {
		if len(parts) == 0 {
			r.line = r.parser.Shape(it.Node().Raw).Start.Line
		}
		parts = append(parts, string(it.Node().Data))
	}
	name := strings.Join(parts, ".")
	if e.Kind != unstable.KeyValue {
		return r.wrong("table [%s]: there are no tables here; write each key in a line of its own, as in exposure = \"lan\"", name)
	}
	key, ok := r.find(name)
	if !ok {
		if nearest := Nearest(name, r.known); nearest != "" {
			return r.wrong("unknown key %q; did you mean %q?", name, nearest)
		}
		return r.wrong("unknown key %q", name)
	}
	if before := r.seen[name]; before > 0 {
		return r.wrong("%s stands in line %d already", name, before)
	}
	r.seen[name] = r.line
	values, err := r.values(key, e.Value())
	if err != nil {
		return err
	}
	var lines []int
	if key.Form == List {
		for it := e.Value().Children(); it.Next(); {
			if n := it.Node(); n.Kind != unstable.Comment {
				lines = append(lines, r.parser.Shape(n.Raw).Start.Line)
			}
		}
	}
	r.entries = append(r.entries, Entry{name, values, r.line, lines})
	return nil
}

func (r *reader) find(name string) (Key, bool) {
	for _, k := range r.known {
		if k.Name == name {
			return k, true
		}
	}
	return Key{}, false
}

func (r *reader) values(k Key, v *unstable.Node) ([]string, error) {
	text := string(v.Data)
	switch {
	case k.Form == Boolean && v.Kind == unstable.Bool, k.Form == Text && v.Kind == unstable.String:
		return []string{text}, nil
	case k.Form == Number && v.Kind == unstable.Integer:
		return []string{strings.ReplaceAll(text, "_", "")}, nil
	case k.Form == List && v.Kind == unstable.Array:
		list := []string{}
		for it := v.Children(); it.Next(); {
			n := it.Node()
			switch n.Kind {
			case unstable.Comment:
			case unstable.String:
				list = append(list, string(n.Data))
			case unstable.Integer:
				list = append(list, strings.ReplaceAll(string(n.Data), "_", ""))
			default:
				return nil, r.wrong("%s: %s is neither a text in quotes nor a number", k.Name, strings.ToLower(n.Kind.String()))
			}
		}
		return list, nil
	}
	return nil, r.wrong("%s needs %s", k.Name, forms[k.Form])
}

// Nearest returns the known name that is most like one that isn't, "" if none is like it.
func Nearest(name string, known []Key) string {
	best, distance := "", len(name)/3+2
	for _, k := range known {
		if d := edits(name, k.Name); d < distance {
			best, distance = k.Name, d
		}
	}
	return best
}

// edits returns how many letters have to be put in, left out or replaced to make b of a (Levenshtein).
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			next := diagonal
			if a[i] != b[j] {
				next = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}

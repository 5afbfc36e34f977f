package config

import (
	"fmt"
	"strings"
	"testing"
)

var known = []Key{{"exposure", Text}, {"allow", List}, {"max-record", Number}, {"insecure", Boolean}, {"remote-calls", Boolean}, {"log-calls", Boolean}}

func TestParse(t *testing.T) {
	const text = `# a comment
exposure = "lan" # another
allow = [
  "from 192.0.2.0/24", # the cluster
  100003,
]
max-record = 9_000
insecure = false
`
	got, err := Parse([]byte(text), known)
	if err != nil {
		t.Fatal(err)
	}
	const want = "[{exposure [lan] 2 []} {allow [from 192.0.2.0/24 100003] 3 [4 5]} {max-record [9000] 7 []} {insecure [false] 8 []}]"
	if fmt.Sprint(got) != want {
		t.Errorf("%v, want %s", got, want)
	}
	if got, err := Parse([]byte("allow = []\n"), known); err != nil || len(got) != 1 || got[0].Values == nil {
		t.Errorf("an empty list: %v, %v", got, err)
	}
	if got, err := Parse(nil, known); err != nil || len(got) != 0 {
		t.Errorf("an empty file: %v, %v", got, err)
	}
}

func TestParseErrors(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"\n\nexpsure = \"lan\"\n", `line 3: unknown key "expsure"; did you mean "exposure"?`},
		{"log_calls = true\n", `line 1: unknown key "log_calls"; did you mean "log-calls"?`},
		{"colour = \"red\"\n", `line 1: unknown key "colour"`},
		{"allow = \"x\"\n", `line 1: allow needs a list`},
		{"insecure = \"yes\"\n", `line 1: insecure needs true or false`},
		{"max-record = \"1\"\n", `line 1: max-record needs a number`},
		{"exposure = lan\n", `line 1: `},
		{"exposure = \"lan\n", `line 1: `},
		{"insecure = true\nexposure = \"a\"\ninsecure = true\n", `line 3: insecure stands in line 1 already`},
		{"\n[limits]\nmax-record = 1\n", `line 2: table [limits]: there are no tables here`},
		{"[[allow]]\n", `line 1: table [allow]`},
		{"limits.max-record = 1\n", `line 1: unknown key "limits.max-record"`},
		{"allow = [true]\n", `line 1: allow: bool is neither`},
		{"allow = [[\"x\"]]\n", `line 1: allow: array is neither`},
		{"insecure\n", `line 1: `},
		{"insecure = true insecure\n", `line 1: `},
		{strings.Repeat("#", MaxSize+1), "too much"},
	} {
		if _, err := Parse([]byte(c.text), known); err == nil || !strings.HasPrefix(err.Error(), c.want) && !strings.Contains(err.Error(), "too much") {
			t.Errorf("%.30q: %v, want %s", c.text, err, c.want)
		}
	}
}

func TestNearest(t *testing.T) {
	for name, want := range map[string]string{
		"exposures": "exposure", "alow": "allow", "maxrecord": "max-record", "remote-call": "remote-calls", "x": "", "something-else": "",
	} {
		if got := Nearest(name, known); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("exposure = \"lan\"\nallow = [\"a\", 1]\n[x]\n"))
	f.Add([]byte("allow = [[[[{a = 1}]]]]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		entries, err := Parse(text, known)
		if err == nil {
			for _, e := range entries {
				if e.Line < 1 || e.Line > 1+strings.Count(string(text), "\n") {
					t.Errorf("%q: line %d", text, e.Line)
				}
			}
		}
	})
}

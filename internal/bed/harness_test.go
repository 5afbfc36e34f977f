package bed

import (
	"bytes"
	"regexp"
	"testing"
)

func TestSplitRecord(t *testing.T) {
	whole := AppendFragment(AppendFragment(AppendFragment(nil, []byte("ab"), false), nil, false), []byte("cde"), true)
	for octets := range whole {
		if message, used, ok := splitRecord(whole[:octets]); ok {
			t.Errorf("%d octets of %d: record %q of %d octets", octets, len(whole), message, used)
		}
	}
	message, used, ok := splitRecord(append(whole, "next"...))
	if !ok || used != len(whole) || !bytes.Equal(message, []byte("abcde")) {
		t.Errorf("got %q, %d, %v", message, used, ok)
	}
}

func TestProbeDiffersFromCall(t *testing.T) {
	first := probeFor(nil)
	for _, call := range [][]byte{nil, {1}, first, NullCall(7, 100000, 2)} {
		if probe := probeFor(call); sameXID(probe, call) {
			t.Errorf("probe %x for call %x has the same xid", probe, call)
		}
	}
}

func TestEscapePattern(t *testing.T) {
	for _, name := range []string{"TestX", "a.b*c(d)[e]{f}^g$h|i+j?k\\l", "10.9.9.1%veth0"} {
		pattern := "^" + escapePattern(name) + "$"
		if ok, err := regexp.MatchString(pattern, name); err != nil || !ok {
			t.Errorf("pattern %s does not match %s: %v", pattern, name, err)
		}
		if ok, _ := regexp.MatchString(pattern, name+"x"); ok {
			t.Errorf("pattern %s matches more than %s", pattern, name)
		}
	}
}

func TestQuote(t *testing.T) {
	if got, want := quote("--- FAIL: X\n\n    y\n"), "| --- FAIL: X\n| \n|     y"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

package bed

import (
	"bytes"
	"regexp"
	"testing"

	"golang.org/x/sys/unix"
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
	for xid := range uint32(1 << 16) { // each that a probe may have
		call := NullCall(probeXID|xid, 100000, 2)
		if probe := probeFor(call); sameXID(probe, call) {
			t.Fatalf("probe %x for call %x has the same xid", probe, call)
		}
	}
}

// TestLate has replies of an earlier caller from the same port, as they come on a busy machine.
func TestLate(t *testing.T) {
	call, probe, older := NullCall(7, 100000, 2), NullCall(probeXID|1, 1, 1), NullCall(probeXID|2, 1, 1)
	for _, c := range []struct {
		name        string
		reply, call []byte
		want        bool
	}{
		{"the call's", call, call, false},
		{"the probe's", probe, call, false},
		{"an earlier probe's", older, call, true},
		{"an earlier call's", NullCall(6, 100000, 2), call, true},
		{"something short", []byte{1}, call, false},
		{"anything after half an xid", NullCall(6, 100000, 2), call[:2], false},
		{"an earlier probe's after half an xid", older, call[:2], true},
		{"the call's, which looks like a probe's", older, older, false},
	} {
		if got := late(c.reply, c.call, probe); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// TestCallPassesLateRepliesBy answers as a subject on a busy machine does: late replies to an earlier probe and to an earlier
// call come before that to the call.
func TestCallPassesLateRepliesBy(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	c, subject := &Conn{fd: fds[0], transport: UDP, grace: grace}, &Conn{fd: fds[1], transport: UDP}
	defer c.Close()
	defer subject.Close()
	call := NullCall(7, 100000, 2)
	answer := append(NullCall(7, 1, 1), "the answer"...)
	for _, b := range [][]byte{probeFor(call), NullCall(6, 100000, 2), answer} {
		if err := subject.Send(b); err != nil {
			t.Fatal(err)
		}
	}
	if reply, err := c.Call(call); !bytes.Equal(reply, answer) {
		t.Errorf("%x, %v", reply, err)
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

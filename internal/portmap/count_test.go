package portmap

import (
	"testing"

	"github.com/gportmap/gportmap/pkg/oncrpc"
)

// TestCount holds what is told of calls whose header passed the checks, and of others.
func TestCount(t *testing.T) {
	type told struct {
		version, procedure uint32
		octets             int
	}
	var got []told
	p := newSubjectWith(t, Config{Count: func(from Caller, c oncrpc.Call, reply []byte) {
		if from.Transport != TCP {
			t.Errorf("transport %v", from.Transport)
		}
		got = append(got, told{c.Version, c.Procedure, len(reply)})
	}}, registered...)
	from := localCaller(TCP)
	before := []byte("before")
	for _, call := range [][]byte{
		callTo(2, 3, words(300001, 1, 6, 0)),
		callTo(4, 12),
		callTo(4, 13),                        // no such procedure
		header(2, 100003, 2, 0, 0, ""),       // another program
		header(2, 100000, 2, 0, 6, "secret"), // a credential that isn't taken
		{1, 2, 3},                            // no call
	} {
		p.AppendReply(before, call, from)
	}
	want := []told{{2, 3, 28}, {4, 12, 0}, {0, 0, 24}, {0, 0, 24}, {0, 0, 20}, {0, 0, 0}}
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i := range want {
		if i == 1 {
			want[i].octets = got[i].octets // of GETSTAT: many
		}
		if got[i] != want[i] {
			t.Errorf("call %d: told %+v, want %+v", i, got[i], want[i])
		}
	}
}

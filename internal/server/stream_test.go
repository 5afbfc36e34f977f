package server

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/pkg/oncrpc"
)

// feedAll feeds a stream with octets in pieces and returns what it sends, and its last verdict.
func feedAll(s *stream, pieces ...[]byte) (out []byte, last verdict) {
	for _, p := range pieces {
		p = slices.Clone(p)
		s.feed(p)
		for {
			var now shift
			_, last = s.answer(&now)
			out = append(out, slices.Concat(now.out.parts(nil)...)...)
			if last != wantFlush && last != wantEarly {
				break
			}
		}
		clear(p) // a stream may not use what it was fed once it wants more
		if last == wantClose {
			break
		}
	}
	return out, last
}

func newStream(p Portmapper) *stream {
	return &stream{portmapper: p, records: oncrpc.RecordReader{Limit: DefaultMaxRecord}}
}

func TestStream(t *testing.T) {
	full := strings.Repeat("x", DefaultMaxRecord)
	for _, test := range []struct {
		name string
		in   []byte
		out  []byte
		last verdict
	}{
		{"nothing", nil, nil, wantInput},
		{"one call", record("a"), record("re:a"), wantInput},
		{"pipelined calls keep their order", record("a", "bb", "ccc"), record("re:a", "re:bb", "re:ccc"), wantInput},
		{"fragments", slices.Concat(fragment(false, "ab"), fragment(false, "c"), fragment(true, "d"), record("e")),
			record("re:abcd", "re:e"), wantInput},
		{"empty last fragment", slices.Concat(fragment(false, "ab"), fragment(true, "")), record("re:ab"), wantInput},
		{"a record of the limit", record(full), record("re:" + full), wantInput},
		{"a longer one", slices.Concat(record("a"), fragment(true, full+"x")), record("re:a"), wantClose},
		{"a longer one in fragments", slices.Concat(record("a"), fragment(false, full), fragment(true, "x")),
			record("re:a"), wantClose},
		{"an announced length", slices.Concat(record("a"), []byte{0x7f, 0xff, 0xff, 0xff}), record("re:a"), wantClose},
		{"empty fragment", slices.Concat(record("a"), fragment(false, ""), record("b")), record("re:a"), wantClose},
		{"bad call after good ones", record("a", "b", "!bad", "c"), record("re:a", "re:b"), wantClose},
		{"bad call alone", record("!"), nil, wantClose},
		{"half a record", record("a", "bcd")[:10], record("re:a"), wantInput},
	} {
		t.Run(test.name, func(t *testing.T) {
			check := func(how string, pieces ...[]byte) {
				t.Helper()
				out, last := feedAll(newStream(&fake{}), pieces...)
				if !bytes.Equal(out, test.out) || last != test.last {
					t.Fatalf("%s: %.80q and verdict %d, want %.80q and %d", how, out, last, test.out, test.last)
				}
			}
			check("whole", test.in)
			check("octet by octet", slices.Collect(slices.Chunk(test.in, 1))...)
			for i := range test.in[:min(len(test.in), 100)] {
				check("in two", test.in[:i], test.in[i:])
			}
		})
	}
}

// However many calls one read brings, the replies that wait to be sent are bounded.
func TestStreamAsksToFlush(t *testing.T) {
	reply := strings.Repeat("r", 10<<10)
	s := newStream(portmapperFunc(func(dst, _ []byte, _ portmap.Caller) []byte { return append(dst, reply...) }))
	s.feed(record(slices.Repeat([]string{"call"}, 100)...))
	total, flushes := 0, 0
	for {
		var now shift
		taken, next := s.answer(&now)
		out := &now.out
		total += taken
		if out.size > flushSize+len(reply)+oncrpc.RecordMarkSize || out.size != len(out.own) {
			t.Fatalf("%d octets are held", out.size)
		}
		if next == wantInput {
			break
		}
		flushes++
	}
	if total != 100 || flushes < 10 {
		t.Errorf("%d calls answered with %d flushes", total, flushes)
	}
}

func TestStreamPending(t *testing.T) {
	s := newStream(&fake{})
	for i, test := range []struct {
		in   []byte
		want bool
	}{
		{record("a"), false},
		{[]byte{0x80}, true},
		{[]byte{0, 0, 1}, true},
		{[]byte("a"), false},
		{fragment(false, "ab"), true},
		{fragment(true, "c"), false},
		{append(record("a"), 0x80), true},
	} {
		feedAll(s, test.in)
		if got := s.pending(len(test.in)); got != test.want {
			t.Errorf("step %d: pending %v, want %v", i, got, test.want)
		}
	}
}

// The memory of a long record that came in pieces is given back when the connection is idle.
func TestStreamIdleGivesMemoryBack(t *testing.T) {
	s := newStream(&fake{})
	long := record(strings.Repeat("x", 8000))
	feedAll(s, long[:7000])
	if !s.pending(7000) {
		t.Fatal("nothing is pending")
	}
	s.idle()
	if out, _ := feedAll(s, long[7000:]); len(out) != len(long)+3 {
		t.Fatalf("a reply of %d octets: idle lost a part of the record", len(out))
	}
	s.pending(len(long) - 7000)
	s.idle()
	if s.held != 0 {
		t.Error("idle kept the memory of a long record")
	}
	if got := testing.AllocsPerRun(100, func() { s.idle() }); got != 0 {
		t.Errorf("idle allocates %v times", got)
	}
	if out, last := feedAll(s, record("a")); !bytes.Equal(out, record("re:a")) || last != wantInput {
		t.Errorf("after idle: %q", out)
	}
}

func FuzzStream(f *testing.F) {
	f.Add(record("a", "b"), uint8(3))
	f.Add(slices.Concat(fragment(false, "ab"), fragment(true, "c")), uint8(1))
	f.Add(record("a", "!"), uint8(0))
	f.Fuzz(func(t *testing.T, in []byte, piece uint8) {
		whole, last := feedAll(newStream(&fake{}), in)
		pieces := slices.Collect(slices.Chunk(in, int(piece)+1))
		out, lastOfPieces := feedAll(newStream(&fake{}), pieces...)
		if !bytes.Equal(out, whole) || last != lastOfPieces {
			t.Fatalf("in pieces of %d: %q and %d; at once: %q and %d", int(piece)+1, out, lastOfPieces, whole, last)
		}
	})
}

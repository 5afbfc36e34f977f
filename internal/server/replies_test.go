package server

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/internal/portmap"
)

// listing is a portmapper whose reply to "list" has a list in it that is its own, and which echoes what else comes.
type listing struct {
	fake
	list  []byte
	parts [][]byte
}

func (p *listing) AppendReplyAround(dst, call []byte, _ portmap.Caller) ([]byte, int, [][]byte) {
	if string(call) != "list" {
		return append(dst, call...), 0, nil
	}
	dst = append(dst, "<"...)
	if p.parts == nil {
		p.parts = [][]byte{p.list[:len(p.list)/3], p.list[len(p.list)/3:]}
	}
	return append(dst, ">"...), len(dst), p.parts
}

// TestReplies cuts replies with lists at every octet: what was sent and what is left are the whole.
func TestReplies(t *testing.T) {
	p := &listing{list: []byte("0123456789")}
	s := newStream(p)
	s.feed(record("list", "a", "list", "list", "bb"))
	var now shift
	r := &now.out
	if taken, next := s.answer(&now); taken != 5 || next != wantInput {
		t.Fatal(taken, next)
	}
	want := record("<0123456789>", "a", "<0123456789>", "<0123456789>", "bb")
	if got := slices.Concat(r.parts(nil)...); !bytes.Equal(got, want) || r.size != len(want) {
		t.Fatalf("%q of %d octets, want %q", got, r.size, want)
	}
	for n := range len(want) + 1 {
		r.sent = n
		if got := slices.Concat(r.parts(nil)...); !bytes.Equal(got, want[n:]) {
			t.Fatalf("after %d octets %q, want %q", n, got, want[n:])
		}
		rest := r.rest()
		if got := slices.Concat(rest.parts(nil)...); !bytes.Equal(got, want[n:]) || rest.size-rest.sent != len(want)-n {
			t.Fatalf("after %d octets the rest is %q, want %q", n, got, want[n:])
		}
	}
	r.clear()
	if r.size != 0 || r.sent != 0 || len(r.parts(nil)) != 0 {
		t.Errorf("%+v", r)
	}
}

// TestListsAreNotCopied has clients ask for a list of nearly a megabyte that don't read: all of them together hold it once, and get it
// when they do read.
func TestListsAreNotCopied(t *testing.T) {
	p := &listing{list: bytes.Repeat([]byte("0123456789abcdef"), 60_000)}
	r := newStreamRig(t, Config{Portmapper: p}, listenTCP(t))
	for range 5 {
		c := r.dial()
		c.send(record("list", "a"))
		for r.lists[foreign][blocked].last == nil || r.lists[foreign][blocked].last.stream.from.Remote.String() != c.LocalAddr().String() {
			r.step()
		}
		held := r.lists[foreign][blocked].last
		if own := len(held.unsent.own); own > 100 {
			t.Errorf("%d octets are held beside the list", own)
		}
		for _, i := range held.unsent.lists {
			if &i.list[0] != &p.list[0] && &i.list[len(i.list)-1] != &p.list[len(p.list)-1] {
				t.Errorf("a part of %d octets is a copy", len(i.list))
			}
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.expect("<"+string(p.list)+">", "a")
		}()
		for held.unsent != nil || held.list != &r.lists[foreign][idle] {
			r.step()
		}
		<-done
	}
}

// TestListsAllocateNothing as long as the client takes them.
func TestListsAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates: .ci/unit runs this without it as well")
	}
	p := &listing{list: []byte(strings.Repeat("x", 20_000))}
	r := newStreamRig(t, Config{Portmapper: p}, listenTCP(t))
	c := r.dial()
	call, buf := record("list"), make([]byte, 4+2+len(p.list))
	got := testing.AllocsPerRun(200, func() {
		if _, err := c.Write(call); err != nil {
			t.Fatal(err)
		}
		r.step()
		for n := 0; n < len(buf); {
			m, err := c.Read(buf[n:])
			if err != nil {
				t.Fatal(err)
			}
			n += m
		}
	})
	if got != 0 {
		t.Errorf("%v allocations a call, want 0", got)
	}
}

package sys

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// Both ways tell the same about interfaces that have an address.
func TestInterfacesWithoutNetlink(t *testing.T) {
	if !netns(t) {
		return
	}
	pair(t)
	ip(t, "addr add 192.0.2.11/25 dev gpa label gpa:1")
	ip(t, "addr add 10.0.0.1 peer 10.0.0.2/32 dev gpa")
	want, err := Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	got, err := InterfacesWithoutNetlink()
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range want {
		if len(w.Addrs) == 0 {
			continue
		}
		i := slices.IndexFunc(got, func(f Interface) bool { return f.Name == w.Name })
		if i < 0 {
			t.Errorf("%s is missing", w.Name)
			continue
		}
		g := got[i]
		for _, a := range w.Addrs {
			if !slices.ContainsFunc(g.Addrs, func(b netip.Prefix) bool { return b.Addr() == a.Addr() }) {
				t.Errorf("%s: %v is missing in %v", w.Name, a, g.Addrs)
			}
		}
		if len(g.Addrs) != len(w.Addrs) {
			t.Errorf("%s: %v, want %v", w.Name, g.Addrs, w.Addrs)
		}
		g.Addrs = w.Addrs
		if !g.equal(w) {
			t.Errorf("%+v, want %+v", g, w)
		}
	}
	if err := readIfInet6(strings.NewReader("junk\n\x00 1 2 3 4 5\nzz 01 80 10 80 lo\n"), func(string, netip.Prefix) { t.Error("junk was taken") }); err != nil {
		t.Error(err)
	}
}

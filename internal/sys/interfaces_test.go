package sys

import (
	"context"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"
)

func TestInterfaces(t *testing.T) {
	got, err := Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	// Go's own list is the oracle, except that it does not tell of duplicate address detection.
	want, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("%d interfaces, want %d: %+v", len(got), len(want), got)
	}
	for _, i := range got {
		w, err := net.InterfaceByIndex(int(i.Index))
		if err != nil {
			t.Fatal(err)
		}
		if i.Name != w.Name || i.Up != (w.Flags&net.FlagUp != 0) || i.Loopback != (w.Flags&net.FlagLoopback != 0) ||
			i.PointToPoint != (w.Flags&net.FlagPointToPoint != 0) || i.Multicast != (w.Flags&net.FlagMulticast != 0) {
			t.Errorf("%+v, want %+v", i, *w)
		}
		addrs, err := w.Addrs()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range i.Addrs {
			if !slices.ContainsFunc(addrs, func(a net.Addr) bool { return a.String() == p.String() }) {
				t.Errorf("%s: %v is not among %v", i.Name, p, addrs)
			}
		}
	}
}

func TestInterfacesInNamespace(t *testing.T) {
	if !netns(t) {
		return
	}
	_, ifindex := pair(t)
	ip(t, "link add gpd type veth peer name gpe")
	ip(t, "addr add 198.51.100.1 peer 198.51.100.2/32 dev gpd")
	ip(t, "addr add fd01::1 peer fd01::2/128 dev gpd")
	ip(t, "tuntap add gpt mode tun")
	got, err := Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	prefixes := func(list ...string) (p []netip.Prefix) {
		for _, s := range list {
			p = append(p, netip.MustParsePrefix(s))
		}
		return p
	}
	want := []Interface{
		{Index: 1, Name: "lo", Up: true, Loopback: true, Addrs: prefixes("127.0.0.1/8", "::1/128")},
		{Index: ifindex, Name: "gpa", Up: true, Multicast: true, Addrs: prefixes("192.0.2.1/24", "fd00::1/64", "fe80::1/64")},
		{Name: "gpd", Multicast: true, Addrs: prefixes("198.51.100.1/32")}, // its IPv6 address waits for the link
		{Name: "gpt", PointToPoint: true, Multicast: true},
	}
	for _, w := range want {
		i := slices.IndexFunc(got, func(i Interface) bool { return i.Name == w.Name })
		if i < 0 {
			t.Errorf("no interface %s in %+v", w.Name, got)
			continue
		}
		g := got[i]
		if w.Index == 0 {
			w.Index = g.Index
		}
		if w.Name == "gpd" && len(g.Addrs) == 2 {
			w.Addrs = append(w.Addrs, netip.MustParsePrefix("fd01::1/128"))
		}
		slices.SortFunc(g.Addrs, netip.Prefix.Compare)
		if !g.equal(w) {
			t.Errorf("%+v, want %+v", g, w)
		}
	}
}

func TestWatchInterfaces(t *testing.T) {
	if !netns(t) {
		return
	}
	ctx, cancel := context.WithCancel(t.Context())
	lists := make(chan []Interface)
	done := make(chan error, 1)
	before := runtime.NumGoroutine()
	go func() {
		done <- WatchInterfaces(ctx, func(list []Interface) {
			select {
			case lists <- list:
			case <-ctx.Done():
			}
		})
	}()
	// until waits for a list with the wanted property; a burst may come in more than one list.
	until := func(what string, ok func([]Interface) bool) {
		t.Helper()
		timeout := time.After(patience)
		for {
			select {
			case list := <-lists:
				if ok(list) {
					return
				}
			case err := <-done:
				t.Fatalf("%s: WatchInterfaces returned %v", what, err)
			case <-timeout:
				t.Fatalf("%s: no notification", what)
			}
		}
	}
	has := func(name, prefix string) func([]Interface) bool {
		return func(list []Interface) bool {
			return slices.ContainsFunc(list, func(i Interface) bool {
				return i.Name == name && (prefix == "" || slices.Contains(i.Addrs, netip.MustParsePrefix(prefix)))
			})
		}
	}
	until("start", has("lo", "127.0.0.1/8"))
	ip(t, "link add gpd type veth peer name gpe")
	until("new link", has("gpd", ""))
	ip(t, "addr add 192.0.2.1/24 dev gpd")
	until("IPv4 address", has("gpd", "192.0.2.1/24"))
	ip(t, "link set gpd up")
	ip(t, "addr add fd00::1/64 dev gpd nodad")
	until("IPv6 address", has("gpd", "fd00::1/64"))
	ip(t, "link del gpd")
	until("link gone", func(list []Interface) bool { return !has("gpd", "")(list) })
	cancel()
	if err := <-done; err != nil {
		t.Errorf("WatchInterfaces: %v, want nil after its context ended", err)
	}
	for deadline := time.Now().Add(patience); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}

func TestWatchInterfacesCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	err := WatchInterfaces(ctx, func([]Interface) { calls++; cancel() })
	if err != nil || calls != 1 {
		t.Errorf("WatchInterfaces: %v after %d calls, want nil after 1", err, calls)
	}
}

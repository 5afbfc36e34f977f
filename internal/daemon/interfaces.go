package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/internal/sys"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// watchPause is how long to wait before the kernel is asked again to tell of changes, if it refused.
const watchPause = 10 * time.Second

// interfaces keeps what is known of the host's interfaces, for those who ask at each call.
type interfaces struct {
	log        *slog.Logger
	portmapper *portmap.Portmapper
	groups     []*sys.PacketConn // sockets that are to hear multicasts
	now        atomic.Pointer[snapshot]
}

type snapshot struct {
	loopback map[uint32]bool     // by index
	own      map[netip.Addr]bool // addresses of interfaces that are up
	names    map[uint32]string
	networks map[uint32][]netip.Prefix // of interfaces that are up
}

// newInterfaces returns interfaces of which nothing is known yet.
func newInterfaces(log *slog.Logger, sockets []*sys.Socket) *interfaces {
	i := &interfaces{log: log}
	i.now.Store(&snapshot{})
	for _, s := range sockets {
		// A socket bound to one address gets no multicast.
		if s.Netid == string(rpcbind.UDP6) && s.Addr.Addr().IsUnspecified() {
			i.groups = append(i.groups, s.Packet)
		}
	}
	return i
}

// isLoopback tells whether the interface of that index is the loopback interface.
func (i *interfaces) isLoopback(ifindex uint32) bool { return i.now.Load().loopback[ifindex] }

// isOwn tells whether an address is one of this host's.
func (i *interfaces) isOwn(a netip.Addr) bool { return i.now.Load().own[a] }

// name returns the name of the interface of that index, "" if there is none.
func (i *interfaces) name(ifindex uint32) string { return i.now.Load().names[ifindex] }

// connected tells whether an address is in a network of the interface of that index, of any if the index is 0.
func (i *interfaces) connected(a netip.Addr, ifindex uint32) bool {
	s := i.now.Load()
	contains := func(p netip.Prefix) bool { return p.Contains(a) }
	if ifindex != 0 {
		return slices.ContainsFunc(s.networks[ifindex], contains)
	}
	for _, list := range s.networks {
		if slices.ContainsFunc(list, contains) {
			return true
		}
	}
	return false
}

// changed takes note of the interfaces as they are now.
func (i *interfaces) changed(list []sys.Interface) {
	s := &snapshot{
		loopback: make(map[uint32]bool), own: make(map[netip.Addr]bool),
		names: make(map[uint32]string), networks: make(map[uint32][]netip.Prefix),
	}
	known := make([]portmap.Interface, 0, len(list))
	for _, f := range list {
		known = append(known, portmap.Interface{
			Index: f.Index, Up: f.Up, Loopback: f.Loopback, PointToPoint: f.PointToPoint, Addrs: f.Addrs,
		})
		s.names[f.Index] = f.Name
		if f.Up {
			s.networks[f.Index] = f.Addrs
		}
		if f.Loopback {
			s.loopback[f.Index] = true
		}
		for _, a := range f.Addrs {
			if f.Up {
				s.own[a.Addr()] = true
			}
		}
		if f.Up && f.Multicast {
			i.join(f)
		}
	}
	i.now.Store(s)
	i.portmapper.SetInterfaces(portmap.NewInterfaces(known))
}

// join makes the sockets hear what is sent to all portmappers of an interface's link. It is repeated with each change,
// since only an interface that has IPv6 can be joined, and it may get that later.
func (i *interfaces) join(f sys.Interface) {
	group := netip.MustParseAddr(rpcbind.MulticastGroup)
	for _, c := range i.groups {
		if err := c.JoinGroup(group, f.Index); err != nil {
			i.log.Debug("the RPC multicast group can't be joined", "interface", f.Name, "err", err)
		}
	}
}

// watch calls changed with what there is now, before it returns, and then with each change until ctx ends; done is closed
// when that is over. If ctx ends before anything is known, the error is that of ctx. Where the kernel doesn't report changes, e.g. to
// a process that may not make netlink sockets, the interfaces are read every watchPause.
func (i *interfaces) watch(ctx context.Context) (done <-chan struct{}, _ error) {
	first := make(chan error, 1)
	over := make(chan struct{})
	go func() {
		defer close(over)
		defer close(first) // also where ctx ended before there was anything to report
		known, told := false, false
		report := func(err error) {
			if !known {
				known = true
				first <- err
			}
		}
		for ctx.Err() == nil {
			err := sys.WatchInterfaces(ctx, func(list []sys.Interface) {
				i.changed(list)
				report(nil)
			})
			if err == nil || ctx.Err() != nil {
				return
			}
			list, otherErr := sys.InterfacesWithoutNetlink()
			switch {
			case otherErr == nil:
				i.changed(list)
			case !known:
				report(fmt.Errorf("%w; %w", err, otherErr))
				return
			}
			if !told {
				told = true
				i.log.Warn("the kernel doesn't report changed interfaces: they are read again and again; allow AF_NETLINK "+
					"(RestrictAddressFamilies=, the container's seccomp profile)", "err", err, "every", watchPause)
			}
			report(nil)
			sleep(ctx, watchPause)
		}
	}()
	err, told := <-first
	switch {
	case !told:
		return over, ctx.Err()
	case err != nil:
		return over, fmt.Errorf("%w; where address families are restricted, AF_NETLINK or AF_INET has to be allowed", err)
	}
	return over, nil
}

// currentInterfaces returns the interfaces as they are now. The second result is why netlink didn't tell them.
func currentInterfaces() (list []sys.Interface, netlink, err error) {
	list, netlink = sys.Interfaces()
	if netlink == nil {
		return list, nil, nil
	}
	list, err = sys.InterfacesWithoutNetlink()
	if err != nil {
		return nil, netlink, fmt.Errorf("%w; %w", netlink, err)
	}
	return list, netlink, nil
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

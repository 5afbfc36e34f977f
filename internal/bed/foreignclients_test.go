package bed_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// A foreignLookup looks a program up as another system's library does: which call, over what, and what it does after each
// reply. The steps are those of rpcb_clnt.c of illumos' libnsl, and of FreeBSD's and NetBSD's libc.
type foreignLookup struct {
	t                *testing.T
	namespace, from  string
	to               netip.Addr
	transport        rpcbind.Transport // that of the service
	program, version uint32
	calls            []string // that were made, with what came of each

	getPortOverService bool // FreeBSD asks for a port over the transport of the service, NetBSD over UDP
}

// call makes a call over UDP or TCP and returns the reply; ok is false if there was none.
func (l *foreignLookup) call(name string, tcp bool, call []byte) (reply oncrpc.Reply, ok bool) {
	l.t.Helper()
	var message []byte
	if tcp {
		message = l.askOverTCP(withXID(call, 1))
	} else {
		message = askFrom(l.t, l.namespace, l.from, l.to, call)
	}
	r, err := oncrpc.ParseReply(message)
	l.calls = append(l.calls, fmt.Sprintf("%s: %s", name, describe(message)))
	return r, err == nil
}

// askOverTCP makes a call over a connection of its own.
func (l *foreignLookup) askOverTCP(call []byte) (reply []byte) {
	l.t.Helper()
	inNamespaceOf(l.t, l.namespace, func() {
		d := net.Dialer{Timeout: patience, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(l.from), 0))}
		c, err := d.Dial("tcp", netip.AddrPortFrom(l.to, 111).String())
		if err != nil {
			l.t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		var mark [4]byte
		binary.BigEndian.PutUint32(mark[:], 1<<31|uint32(len(call)))
		if _, err = c.Write(append(mark[:], call...)); err == nil {
			_, err = io.ReadFull(c, mark[:])
		}
		if err == nil {
			reply = make([]byte, binary.BigEndian.Uint32(mark[:])&^(1<<31))
			_, err = io.ReadFull(c, reply)
		}
		if err != nil {
			l.t.Fatal(err)
		}
	})
	return reply
}

func (l *foreignLookup) stream() bool { return l.transport.Proto == "tcp" }

// arguments are those of GETADDR and GETADDRLIST: with the address at which the client reaches the portmapper.
func (l *foreignLookup) arguments() []byte {
	return rpcbind.AppendRPCB(nil, rpcbind.RPCB{Program: l.program, Version: l.version, Netid: l.transport.Netid,
		Addr: rpcbind.UAddr(netip.AddrPortFrom(l.to, 111))})
}

// entry finds the transport in the results of GETADDRLIST.
func (l *foreignLookup) entry(results []byte) string {
	d := xdr.NewDecoder(results)
	for d.Bool() {
		addr := string(d.Opaque(1000))
		d.Opaque(1000)
		semantics, family, proto := d.Uint32(), string(d.Opaque(1000)), string(d.Opaque(1000))
		if d.Err() == nil && proto == l.transport.Proto && family == l.transport.Family && semantics == uint32(l.transport.Semantics) {
			return addr
		}
	}
	return ""
}

func text(results []byte) string {
	d := xdr.NewDecoder(results)
	return string(d.Opaque(1000))
}

// illumos is libnsl's: version 4 by GETADDRLIST over UDP, version 3 by GETADDR over the service's transport, version 2 over
// UDP. Silence and three errors lead on, any other ends it.
func (l *foreignLookup) illumos() string {
	l.t.Helper()
	goOn := func(r oncrpc.Reply, answered bool, version uint32) bool {
		return !answered || !r.Denied && (r.Accept == oncrpc.ProcUnavail || r.Accept == oncrpc.ProgUnavail ||
			r.Accept == oncrpc.ProgMismatch && r.Low <= version)
	}
	r, ok := l.call("GETADDRLIST", false, message(4, rpcbind.ProcGetAddrList, l.arguments()))
	if ok && !r.Denied && r.Accept == oncrpc.Success {
		if addr := l.entry(r.Results); addr != "" {
			return addr
		}
	} else if !goOn(r, ok, 4) {
		return ""
	}
	r, ok = l.call("GETADDR of version 3", l.stream(), message(3, rpcbind.ProcGetAddr, l.arguments()))
	if ok && !r.Denied && r.Accept == oncrpc.Success {
		return text(r.Results)
	} else if !goOn(r, ok, 3) || l.to.Is6() {
		return ""
	}
	return l.getPort(false)
}

// bsd is libc's of FreeBSD and NetBSD: over IPv4 version 2 first. Then GETADDRLIST over UDP for a service on TCP, after which
// two errors lead on, and GETADDR over the service's transport.
func (l *foreignLookup) bsd() string {
	l.t.Helper()
	if l.to.Is4() {
		return l.getPort(l.getPortOverService && l.stream())
	}
	goOn := func(r oncrpc.Reply) bool {
		return !r.Denied && (r.Accept == oncrpc.ProgUnavail || r.Accept == oncrpc.ProgMismatch && r.Low <= 4)
	}
	from := uint32(4)
	if l.stream() {
		r, ok := l.call("GETADDRLIST", false, message(4, rpcbind.ProcGetAddrList, l.arguments()))
		switch {
		case ok && !r.Denied && r.Accept == oncrpc.Success:
			if addr := l.entry(r.Results); addr != "" {
				return addr
			}
		case ok && goOn(r):
			from = 3
		default:
			return ""
		}
	}
	for version := from; version >= 3; version-- {
		r, ok := l.call(fmt.Sprint("GETADDR of version ", version), l.stream(), message(version, rpcbind.ProcGetAddr, l.arguments()))
		switch {
		case ok && !r.Denied && r.Accept == oncrpc.Success:
			return text(r.Results)
		case !ok || !goOn(r):
			return ""
		}
	}
	return ""
}

// getPort is GETPORT of version 2, which is the last step or the first one.
func (l *foreignLookup) getPort(tcp bool) string {
	l.t.Helper()
	prot := uint32(rpcbind.ProtUDP)
	if l.stream() {
		prot = rpcbind.ProtTCP
	}
	r, ok := l.call("GETPORT", tcp, getPort(l.program, l.version, prot))
	d := xdr.NewDecoder(r.Results)
	if port := d.Uint32(); ok && !r.Denied && r.Accept == oncrpc.Success && port != 0 {
		return rpcbind.UAddr(netip.AddrPortFrom(l.to, uint16(port)))
	}
	return ""
}

// TestForeignClients lets the libraries of other systems find mountd, nlockmgr and statd, over IPv4 and IPv6, on UDP and TCP,
// from the own network and from beyond a router.
func TestForeignClients(t *testing.T) {
	eachSubject(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS, subject bed.Subject) {
		ns.Start(t, subject)
		serveNFS(t, ns)
		beyondARouter(t)
		clients := map[string]func(*foreignLookup) string{
			"illumos": (*foreignLookup).illumos,
			"NetBSD":  (*foreignLookup).bsd,
			"FreeBSD": func(l *foreignLookup) string { l.getPortOverService = true; return l.bsd() },
		}
		for name, look := range clients {
			for _, from := range [][2]string{{"peer", bed.PeerIPv4}, {"peer", bed.PeerIPv6}, {"far", farIPv4}, {"far", farPrivate}, {"far", farIPv6}} {
				for _, service := range [][2]uint32{{100005, 3}, {100021, 4}, {100024, 1}} {
					for _, netid := range []rpcbind.Netid{rpcbind.UDP, rpcbind.TCP} {
						to := bed.Addr(bed.HostIPv4)
						if strings.Contains(from[1], ":") {
							to, netid = bed.Addr(bed.HostIPv6), netid+"6"
						}
						transport, _ := netid.Transport()
						l := &foreignLookup{t: t, namespace: from[0], from: from[1], to: to, transport: transport, program: service[0], version: service[1]}
						want := rpcbind.UAddr(netip.AddrPortFrom(to, 2049))
						if got := look(l); got != want {
							t.Errorf("%s at %s: program %d on %s: %q, want %q; %s", name, from[1], service[0], netid, got, want, strings.Join(l.calls, "; "))
						}
					}
				}
			}
		}
	})
}

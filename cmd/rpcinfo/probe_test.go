package main

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// program serves these versions of program 100003 on 127.0.0.1, and a portmapper that knows it.
func program(t *testing.T, w *world, versions ...uint32) (uaddr string) {
	t.Helper()
	var s oncrpc.Server
	t.Cleanup(func() { _ = s.Close() })
	for _, v := range versions {
		if err := s.Register(100003, v, nil); err != nil {
			t.Fatal(err)
		}
	}
	uaddr = rpcbind.UAddr(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), serve(t, &s)))
	portmapper(t, w, map[uint32]oncrpc.Procedures{4: {rpcbind.ProcGetAddr: answering(xdr.AppendString(nil, uaddr))}})
	return uaddr
}

func ready(version any) string {
	return fmt.Sprintf("program 100003 version %v ready and waiting\n", version)
}

func notAvailable(version any) string {
	return fmt.Sprintf("program 100003 version %v is not available\n", version)
}

const mismatch3to4 = "rpcinfo: RPC: Program/version mismatch; low version = 3, high version = 4\n"

func TestProbe(t *testing.T) {
	w := testWorld(t)
	uaddr := program(t, &w, 3, 4)
	at, _ := rpcbind.ParseUAddr(uaddr)
	for _, way := range []string{
		"-u 127.0.0.1 100003", "-t 127.0.0.1 nfs", "-T udp 127.0.0.1 nfs", "-T tcp 127.0.0.1 100003",
		"-a " + uaddr + " -T udp nfs", "-a " + uaddr + " -T tcp nfs",
		fmt.Sprintf("-n %d -u 127.0.0.1 nfs", at.Port()), fmt.Sprintf("-n %d -t 127.0.0.1 nfs", at.Port()),
	} {
		expect(t, w, way, said{stdout: ready(3) + ready(4)})
		expect(t, w, way+" 3", said{stdout: ready(3)})
		expect(t, w, way+" 2", said{stdout: notAvailable(2), stderr: mismatch3to4, code: 1})
	}
	expect(t, w, "-T udp 127.0.0.1 nfs 4294967295", said{stdout: notAvailable("4294967295"), stderr: mismatch3to4, code: 1})
	// The number as rpcinfo(8) prints it.
	expect(t, w, "-u 127.0.0.1 nfs 4294967295", said{stdout: notAvailable("18446744073709551615"), stderr: mismatch3to4, code: 1})
	expect(t, w, "-u 127.0.0.1 5 1", said{stdout: "program 5 version 1 is not available\n", stderr: "rpcinfo: RPC: Program unavailable\n", code: 1})
}

// A version between two that are served is told of, and makes the exit code 1.
func TestProbeGap(t *testing.T) {
	w := testWorld(t)
	program(t, &w, 2, 4)
	expect(t, w, "-t 127.0.0.1 nfs", said{stdout: ready(2) + notAvailable(3) + ready(4),
		stderr: "rpcinfo: RPC: Program/version mismatch; low version = 2, high version = 4\n", code: 1})
}

// A server that has version 0 is asked for the highest.
func TestProbeVersion0(t *testing.T) {
	w := testWorld(t)
	program(t, &w, 0, 1)
	expect(t, w, "-t 127.0.0.1 nfs", said{stdout: ready(0) + ready(1)})
	wise := testWorld(t)
	program(t, &wise, 0, 1<<32-1)
	expect(t, wise, "-t 127.0.0.1 nfs", said{code: 1,
		stderr: "rpcinfo: program 100003: the server has, or says it has, all versions from 0 to 4294967295; name one\n"})
}

func TestNotRegistered(t *testing.T) {
	w := testWorld(t)
	portmapper(t, &w, map[uint32]oncrpc.Procedures{4: {rpcbind.ProcGetAddr: answering(xdr.AppendString(nil, ""))}})
	expect(t, w, "-u 127.0.0.1 nfs", said{stderr: "127.0.0.1: RPC: Program not registered\n", code: 1})
	expect(t, w, "-T tcp 127.0.0.1 nfs", said{stderr: "rpcinfo: RPC: Program not registered\n", code: 1})
	expect(t, w, "-p 127.0.0.1", said{stderr: "127.0.0.1: RPC: Program not registered\n", code: 1})
}

// A portmapper of version 2 alone is asked by GETPORT over UDP.
func TestFindByGetPort(t *testing.T) {
	for port, want := range map[uint32]said{
		0:     {stderr: "rpcinfo: RPC: Program not registered\n", code: 1},
		70000: {stderr: "rpcinfo: RPC: Port mapper failure - Can't decode result\n", code: 1},
		1:     {stderr: "rpcinfo: RPC: Remote system error - Connection refused\n", code: 1},
	} {
		w := testWorld(t)
		asked := make(chan rpcbind.Mapping, 10)
		portmapper(t, &w, map[uint32]oncrpc.Procedures{2: {rpcbind.ProcGetPort: func(_ context.Context, r *oncrpc.Request, dst []byte) ([]byte, error) {
			d := r.Decoder()
			asked <- rpcbind.ReadMapping(&d)
			return xdr.AppendUint32(dst, port), nil
		}}})
		expect(t, w, "-T tcp 127.0.0.1 nfs 3", want)
		if want := (rpcbind.Mapping{Program: 100003, Version: 3, Prot: rpcbind.ProtTCP}); <-asked != want {
			t.Errorf("didn't ask for %+v", want)
		}
	}
}

func TestPortMapperFailure(t *testing.T) {
	w := testWorld(t)
	portmapper(t, &w, map[uint32]oncrpc.Procedures{2: {}})
	expect(t, w, "-T udp 127.0.0.1 nfs 3", said{stderr: "rpcinfo: RPC: Port mapper failure - Procedure unavailable\n", code: 1})
}

// A wildcard address, which a portmapper should not answer, means its host.
func TestParseService(t *testing.T) {
	udp, udp6, local := transport{netid: "udp"}, transport{netid: "udp6"}, transport{netid: "local"}
	host, host6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fe80::1%eth0")
	for _, c := range []struct {
		t     transport
		uaddr string
		host  netip.Addr
		want  string
	}{
		{udp, "0.0.0.0.8.1", host, "192.0.2.1:2049"}, {udp, "198.51.100.7.8.1", host, "198.51.100.7:2049"},
		{udp6, "::.8.1", host6, "[fe80::1%eth0]:2049"}, {udp6, "fe80::2.8.1", host6, "[fe80::2%eth0]:2049"},
		{udp6, "2001:db8::2.8.1", host6, "[2001:db8::2]:2049"},
	} {
		s, failed := parseService(c.t, c.uaddr, c.host)
		if failed != nil || s.at.String() != c.want {
			t.Errorf("%s of %v: %v, %+v, want %s", c.uaddr, c.host, s.at, failed, c.want)
		}
	}
	if s, failed := parseService(local, "/run/x.sock", netip.Addr{}); failed != nil || s.path != "/run/x.sock" {
		t.Errorf("a local socket: %+v, %+v", s, failed)
	}
	for _, uaddr := range []string{"rubbish", "::1.8.1", "1.2.3.4.5", "1.2.3.4.256.1"} {
		if s, failed := parseService(udp, uaddr, host); failed == nil || failed.status != unknownError {
			t.Errorf("%s: %+v, %+v", uaddr, s, failed)
		}
	}
}

func TestShortIPv4(t *testing.T) {
	for s, want := range map[string]string{
		"0": "0.0.0.0", "127.1": "127.0.0.1", "10.9.300": "10.9.1.44", "0x7f.1": "127.0.0.1", "010.0.0.1": "8.0.0.1", "4294967295": "255.255.255.255",
	} {
		if a, ok := parseShortIPv4(s); !ok || a.String() != want {
			t.Errorf("%s: %v, %v, want %s", s, a, ok, want)
		}
	}
	for _, s := range []string{"", "host", "1.2.3.4.5", "256.1", "4294967296", "1.", "-1", "1_0.1", "127.0x1000000"} {
		if a, ok := parseShortIPv4(s); ok {
			t.Errorf("%q: %v", s, a)
		}
	}
}

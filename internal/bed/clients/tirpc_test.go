package clients_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/internal/bed"
)

// tirpcCase is one use of libtirpc's portmapper interface and what it returns.
type tirpcCase struct {
	uid       uint32
	arguments string // of tirpc; see testdata/tirpc.c
	want      string // tirpc's lines
	// What rpcbind makes it return instead, and the row of section 8 that
	// says why. Zero: the same.
	rpcbind string
	row     int
	or      string // what gportmap may make it return as well, where two answers race
	netpath string // see command
}

// tirpcService is registered while the cases run: program 0x20000001, versions 1
// and 3, port 20101 on every IP transport and a path.
const tirpcService = "serve 536870913 1,3 udp=0.0.0.0.78.133 tcp=0.0.0.0.78.133 udp6=::.78.133 tcp6=::.78.133 local=/run/service.sock"

// ownMaps is what every dump begins with: the portmapper itself.
const ownMaps = `100000 4 tcp6 ::.0.111 superuser
100000 3 tcp6 ::.0.111 superuser
100000 4 udp6 ::.0.111 superuser
100000 3 udp6 ::.0.111 superuser
100000 4 tcp 0.0.0.0.0.111 superuser
100000 3 tcp 0.0.0.0.0.111 superuser
100000 2 tcp 0.0.0.0.0.111 superuser
100000 4 udp 0.0.0.0.0.111 superuser
100000 3 udp 0.0.0.0.0.111 superuser
100000 2 udp 0.0.0.0.0.111 superuser
100000 4 local /run/rpcbind.sock superuser
100000 3 local /run/rpcbind.sock superuser
`

const serviceMaps = `536870913 1 udp 0.0.0.0.78.133 superuser
536870913 3 udp 0.0.0.0.78.133 superuser
536870913 1 tcp 0.0.0.0.78.133 superuser
536870913 3 tcp 0.0.0.0.78.133 superuser
536870913 1 udp6 ::.78.133 superuser
536870913 3 udp6 ::.78.133 superuser
536870913 1 tcp6 ::.78.133 superuser
536870913 3 tcp6 ::.78.133 superuser
536870913 1 local /run/service.sock superuser
536870913 3 local /run/service.sock superuser
`

const notRegistered = "RPC: Program not registered\n"

// registration: rpcb_set and rpcb_unset, and who may.
var registration = []tirpcCase{
	{arguments: "rpcb_set 536870920 1 tcp 0.0.0.0.78.134", want: "TRUE\n"},
	{arguments: "rpcb_set 536870920 1 tcp 0.0.0.0.78.134", want: "TRUE\n"}, // the same again
	{arguments: "rpcb_set 536870920 1 tcp 0.0.0.0.78.135", want: "FALSE\n"},
	{arguments: "rpcb_set 536870920 1 udp 0.0.0.0.78.135", want: "TRUE\n"},
	{arguments: "rpcb_set 536870920 2 tcp6 ::.78.136", want: "TRUE\n"},
	{arguments: "rpcb_set 536870920 2 local /run/other.sock", want: "TRUE\n"},
	{arguments: "rpcb_getaddr 536870920 1 tcp 127.0.0.1", want: "127.0.0.1.78.134\n"},
	{arguments: "rpcb_getaddr 536870920 1 udp 10.9.9.1", want: "10.9.9.1.78.135\n"},
	{arguments: "rpcb_getaddr 536870920 7 tcp 10.9.9.1", want: "10.9.9.1.78.134\n"}, // another version
	{arguments: "rpcb_getaddr 536870920 2 tcp6 fd09::1", want: "fd09::1.78.136\n"},
	{arguments: "rpcb_getaddr 536870920 2 tcp6 ::1", want: "::1.78.136\n"},
	{arguments: "rpcb_getaddr 536870920 2 local localhost", want: "/run/other.sock\n"},
	{arguments: "rpcb_getaddr 536870920 2 udp6 ::1", want: notRegistered},
	{arguments: "rpcb_unset 536870920 1 udp", want: "TRUE\n"},
	{arguments: "rpcb_getaddr 536870920 1 udp 127.0.0.1", want: notRegistered},
	{arguments: "rpcb_getaddr 536870920 1 tcp 127.0.0.1", want: "127.0.0.1.78.134\n"},
	{arguments: "rpcb_unset 536870920 1 - , rpcb_unset 536870920 2 - , rpcb_unset 536870920 2 -", want: "TRUE\nTRUE\nTRUE\n"},
	{arguments: "rpcb_getaddr 536870920 1 tcp 127.0.0.1", want: notRegistered},

	// An ordinary user's.
	{uid: owner, arguments: "rpcb_set 536870925 1 tcp 0.0.0.0.78.150 , rpcb_set 536870925 1 tcp6 ::.78.150", want: "TRUE\nTRUE\n"},
	{arguments: "rpcb_getmaps local localhost", want: ownMaps + serviceMaps +
		"536870925 1 tcp 0.0.0.0.78.150 4242\n536870925 1 tcp6 ::.78.150 4242\n"},
	{uid: stranger, arguments: "rpcb_unset 536870925 1 -", want: "FALSE\n"},
	{uid: stranger, arguments: "rpcb_unset 536870925 1 tcp", want: "FALSE\n"},
	{uid: owner, arguments: "rpcb_unset 536870925 1 tcp", want: "TRUE\n"},
	{arguments: "rpcb_unset 536870925 1 -", want: "TRUE\n"}, // the superuser may
	{uid: owner, arguments: "rpcb_unset 536870913 1 -", want: "FALSE\n"},
	// pmap_unset is TRUE when either protocol's is, and there both must be refused.
	{uid: owner, arguments: "pmap_set 536870926 1 udp 20151 , pmap_set 536870926 1 tcp 20151", want: "TRUE\nTRUE\n"},
	{uid: stranger, arguments: "pmap_unset 536870926 1", want: "FALSE\n"},
	{uid: owner, arguments: "pmap_unset 536870926 1", want: "TRUE\n"},
}

// version2: the pmap functions.
var version2 = []tirpcCase{
	{arguments: "pmap_set 536870921 2 tcp 20102 , pmap_set 536870921 2 udp 20103", want: "TRUE\nTRUE\n"},
	{arguments: "pmap_set 536870921 2 tcp 20104", want: "FALSE\n"},
	{arguments: "pmap_set 536870921 2 5 20104", want: "FALSE\n"}, // neither TCP nor UDP
	{arguments: "pmap_getport 127.0.0.1 536870921 2 tcp", want: "20102\n"},
	{arguments: "pmap_getport 10.9.9.1 536870921 2 udp", want: "20103\n"},
	{arguments: "pmap_getport 127.0.0.1 536870921 1 udp", want: "20103\n"}, // another version
	{arguments: "pmap_getport 127.0.0.1 536870922 1 udp", want: notRegistered},
	{arguments: "pmap_getmaps 127.0.0.1", want: `100000 4 6 111
100000 3 6 111
100000 2 6 111
100000 4 17 111
100000 3 17 111
100000 2 17 111
536870913 1 17 20101
536870913 3 17 20101
536870913 1 6 20101
536870913 3 6 20101
536870921 2 6 20102
536870921 2 17 20103
`},
	{arguments: "pmap_unset 536870921 2", want: "TRUE\n"},
	{arguments: "pmap_unset 536870921 2", want: "TRUE\n"},
	{arguments: "pmap_getport 127.0.0.1 536870921 2 tcp", want: notRegistered},
}

// inquiry: dumps, the time, and addresses in their two forms. libtirpc asks for
// the latter over the local socket, whose own transport rpcbind then takes
// both forms to be: a path of up to 108 octets behind the family.
var inquiry = []tirpcCase{
	{arguments: "rpcb_getmaps tcp 127.0.0.1", want: ownMaps + serviceMaps},
	{arguments: "rpcb_getmaps udp 127.0.0.1", want: ownMaps + serviceMaps},
	{arguments: "rpcb_getmaps tcp6 ::1", want: ownMaps + serviceMaps},
	{arguments: "rpcb_getmaps udp6 ::1", want: ownMaps + serviceMaps},
	{arguments: "rpcb_getmaps local localhost", want: ownMaps + serviceMaps},
	{arguments: "rpcb_gettime 127.0.0.1", want: "the time\n"},
	{arguments: "rpcb_gettime ::1", want: "the time\n"},
	{arguments: "rpcb_gettime localhost", want: "the time\n"},
	{arguments: "rpcb_uaddr2taddr local /run/x", want: "01002f72756e2f78 of 110\n"},
	{arguments: "rpcb_uaddr2taddr tcp 10.9.8.7.4.1", want: "010031302e392e382e37 of 110\n"},
	{arguments: "rpcb_uaddr2taddr tcp6 fd09::7.4.1", want: "0100666430393a3a37 of 110\n"},
	{arguments: "rpcb_uaddr2taddr tcp rubbish", want: " of 0\n"},
	{arguments: "rpcb_taddr2uaddr local 01002f72756e2f78", want: "/run/x\n"},
	{arguments: "rpcb_taddr2uaddr tcp 020004010a0908070000000000000000", want: `\x04\x01\x0a\x09\x08\x07` + "\n"},
	{arguments: "rpcb_taddr2uaddr tcp 0102", want: "\n"},
}

// clients: a service found through the portmapper, and used.
var clients = []tirpcCase{
	{arguments: "clnt_create 127.0.0.1 536870913 3 udp hello", want: "3: hello (flavor 0)\n"},
	{arguments: "clnt_create 127.0.0.1 536870913 1 tcp hello", want: "1: hello (flavor 0)\n"},
	{arguments: "clnt_create 10.9.9.1 536870913 3 tcp hello", want: "3: hello (flavor 0)\n"},
	{arguments: "clnt_create localhost 536870913 3 netpath hello", want: "3: hello (flavor 0)\n"},
	{arguments: "clnt_create localhost 536870913 3 datagram_n hello", want: "3: hello (flavor 0)\n"},
	{arguments: "clnt_create ::1 536870913 3 circuit_n hello", want: "3: hello (flavor 0)\n"},
	{arguments: "clnt_create localhost 536870913 9 tcp hello",
		want: "call: RPC: Program/version mismatch; low version = 1, high version = 3\n"},
	{arguments: "clnt_create localhost 536870924 1 tcp hello", want: notRegistered},
	{arguments: "clnt_create localhost 536870924 1 udp hello", want: notRegistered},
	{arguments: "clnt_create_vers 127.0.0.1 536870913 1 9 tcp", want: "version 3\n"},
	{arguments: "clnt_create_vers 127.0.0.1 536870913 1 2 udp", want: "version 1\n"},
	{arguments: "clnt_create_vers 127.0.0.1 536870913 4 9 udp", want: "RPC: Program/version mismatch\n"},
	{arguments: "clnt_tp_create 127.0.0.1 536870913 3 udp hello", want: "3: hello (flavor 0)\n"},
	{arguments: "clnt_tp_create 127.0.0.1 536870913 3 tcp hello", want: "3: hello (flavor 0)\n"},
	{arguments: "clnt_tp_create ::1 536870913 3 udp6 hello", want: "3: hello (flavor 0)\n"},
	{arguments: "clnt_tp_create ::1 536870913 3 tcp6 hello", want: "3: hello (flavor 0)\n"},
	{arguments: "clnt_tp_create fd09::1 536870913 3 tcp6 hello", want: "3: hello (flavor 0)\n"},
	{arguments: "clnt_tp_create localhost 536870913 3 local hello", want: "3: hello (flavor 0)\n"},
	{uid: owner, arguments: "clnt_create 127.0.0.1 536870913 3 udp hello , clnt_create 127.0.0.1 536870913 1 udp again",
		want: "3: hello (flavor 0)\n1: again (flavor 0)\n"},
}

// relayOn: remote calls through the portmapper with -r.
var relayOn = []tirpcCase{
	{arguments: "pmap_rmtcall 127.0.0.1 536870913 1 hello 10", want: "port 20101 says 1: hello (flavor 0)\n"},
	{arguments: "pmap_rmtcall 10.9.9.1 536870913 3 hello 10", want: "port 20101 says 3: hello (flavor 0)\n"},
	{arguments: "pmap_rmtcall 127.0.0.1 536870913 2 hello 1", want: "RPC: Timed out\n"}, // no such version: silence
	{arguments: "pmap_rmtcall 127.0.0.1 536870924 1 hello 1", want: "RPC: Timed out\n"},
	{arguments: "rpcb_rmtcall udp 127.0.0.1 536870913 3 hello 10", want: "127.0.0.1.78.133 says 3: hello (flavor 0)\n"},
	{arguments: "rpcb_rmtcall udp6 ::1 536870913 1 hello 10", want: "::1.78.133 says 1: hello (flavor 0)\n"},
	{arguments: "rpcb_rmtcall tcp 127.0.0.1 536870913 1 hello 1", want: "RPC: Procedure unavailable\n",
		rpcbind: "RPC: Timed out\n", row: 13},
	{netpath: "udp", arguments: "rpc_broadcast 536870913 3 netpath hello", want: "udp 10.9.9.1.78.133 says 3: hello (flavor 0)\nRPC: Success\n",
		rpcbind: "udp 10.9.9.1.78.133 says 3: hello (flavor 1)\nRPC: Success\n", row: 12},
	// This asks over udp6 as well, where the multicast gets an answer too: whichever comes first.
	{arguments: "rpc_broadcast 536870913 3 udp hello", want: "udp 10.9.9.1.78.133 says 3: hello (flavor 0)\nRPC: Success\n",
		or:      "udp6 " + bed.HostLinkLocal + ".78.133 says 3: hello (flavor 0)\nRPC: Success\n",
		rpcbind: "udp 10.9.9.1.78.133 says 3: hello (flavor 1)\nRPC: Success\n", row: 12},
	// The multicast to ff02::202, answered with the link-local address.
	{netpath: "udp6", arguments: "rpc_broadcast_exp 536870913 1 netpath hello 1000",
		want:    "udp6 " + bed.HostLinkLocal + ".78.133 says 1: hello (flavor 0)\nRPC: Success\n",
		rpcbind: "RPC: Timed out\n", row: 26},
	{arguments: "rpc_broadcast_exp 536870924 1 udp hello 500", want: "RPC: Timed out\n"},
}

// relayOff: the same calls without -r get no answer.
var relayOff = []tirpcCase{
	{arguments: "pmap_rmtcall 127.0.0.1 536870913 1 hello 1", want: "RPC: Timed out\n"},
	{arguments: "rpcb_rmtcall udp 127.0.0.1 536870913 3 hello 1", want: "RPC: Timed out\n"},
	{arguments: "rpcb_rmtcall tcp 127.0.0.1 536870913 3 hello 1", want: "RPC: Procedure unavailable\n",
		rpcbind: "RPC: Timed out\n", row: 13},
	{arguments: "rpc_broadcast_exp 536870913 3 udp hello 500", want: "RPC: Timed out\n"},
}

// TestTirpc uses the whole portmapper interface of libtirpc. Its clients find,
// call and register the same with either subject.
func TestTirpc(t *testing.T) {
	requires(t)
	buildTirpc(t)
	each(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS, s bed.Subject, record *transcript) {
		setBroadcast(t, ns)
		ns.Start(t, s, "-r")
		// The server of what is registered on tcp in registration and version2, where the library is to be told of a refusal,
		// is alive (section 8, row 8).
		ns.Hold(t, "tcp4", ":20102")
		serve(t, 0, tirpcService)
		for _, group := range [][]tirpcCase{inquiry, registration, version2, clients, relayOn} {
			runTirpc(t, ns, record, group)
		}
		svcCreate(t, ns, record)
	})
}

// TestTirpcWithoutRelay holds libtirpc's remote calls against a portmapper that
// does not forward them.
func TestTirpcWithoutRelay(t *testing.T) {
	requires(t)
	buildTirpc(t)
	each(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS, s bed.Subject, record *transcript) {
		setBroadcast(t, ns)
		ns.Start(t, s)
		serve(t, 0, tirpcService)
		runTirpc(t, ns, record, relayOff)
	})
}

func runTirpc(t *testing.T, ns *bed.NS, record *transcript, cases []tirpcCase) {
	t.Helper()
	for _, c := range cases {
		what := tirpc(t, c.uid, c.arguments)
		what.netpath = c.netpath
		got := run(t, ns, what)
		want := c.want
		if c.row != 0 && record.subject == bed.Rpcbind {
			want = c.rpcbind
		}
		if c.or != "" && got.stdout == c.or && record.subject == bed.Gportmap {
			want = c.or
		}
		if got.stdout != want || got.code != 0 {
			t.Errorf("tirpc %s (as uid %d):\n%swant:\n%s", c.arguments, c.uid, indent(got.String())+"\n", indent(want))
		}
		if c.row == 0 {
			record.add(what.String(), got.String())
		}
	}
}

// ephemeral matches the last two components of a universal address.
var ephemeral = regexp.MustCompile(`(?m)^(536870930 .*)\.\d+\.\d+ `)

// svcCreate lets the library choose transports and ports, calls the service on
// each and ends it: nothing of it may stay registered.
func svcCreate(t *testing.T, ns *bed.NS, record *transcript) {
	t.Helper()
	service := serve(t, owner, "svc_create 536870930 3 visible")
	service.await(t, "4 transports\n")
	maps := run(t, ns, tirpc(t, 0, "rpcb_getmaps tcp 127.0.0.1")).stdout
	maps = ephemeral.ReplaceAllString(maps, "$1.PORT ")
	want := "536870930 3 udp 0.0.0.0.PORT 4242\n536870930 3 tcp 0.0.0.0.PORT 4242\n536870930 3 udp6 ::.PORT 4242\n536870930 3 tcp6 ::.PORT 4242\n"
	if !strings.HasSuffix(maps, want) {
		t.Errorf("after svc_create the maps are\n%swant at the end\n%s", indent(maps)+"\n", indent(want))
	}
	record.add("maps after svc_create", maps)
	runTirpc(t, ns, record, []tirpcCase{
		{arguments: "clnt_tp_create 127.0.0.1 536870930 3 udp hello", want: "3: hello (flavor 0)\n"},
		{arguments: "clnt_tp_create 127.0.0.1 536870930 3 tcp hello", want: "3: hello (flavor 0)\n"},
		{arguments: "clnt_tp_create ::1 536870930 3 udp6 hello", want: "3: hello (flavor 0)\n"},
		{arguments: "clnt_tp_create ::1 536870930 3 tcp6 hello", want: "3: hello (flavor 0)\n"},
	})
	service.terminate(t)
	runTirpc(t, ns, record, []tirpcCase{
		{arguments: "rpcb_getmaps tcp 127.0.0.1", want: ownMaps + serviceMaps},
	})
}

// setBroadcast gives the link to the remote host a broadcast address, at both
// ends: libtirpc broadcasts to the address that the interface names, and to the
// interface's own where it names none.
func setBroadcast(t *testing.T, ns *bed.NS) {
	t.Helper()
	for _, end := range []struct {
		address, device string
		remote          bool
	}{
		{bed.HostIPv4, bed.HostInterface, false},
		{bed.PeerIPv4, bed.PeerInterface, true},
	} {
		for _, words := range []string{"ip address del %s/24 dev %s", "ip address add %s/24 broadcast + dev %s"} {
			c := line(fmt.Sprintf(words, end.address, end.device))
			c.remote = end.remote
			if o := run(t, ns, c); o.code != 0 {
				t.Fatalf("%s: %s", c, o)
			}
		}
	}
}

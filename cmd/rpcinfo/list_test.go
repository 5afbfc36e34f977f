package main

import (
	"context"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

var registered = []rpcbind.RPCB{
	{Program: 100000, Version: 4, Netid: "tcp6", Addr: "::.0.111", Owner: "superuser"},
	{Program: 100000, Version: 3, Netid: "local", Addr: "/run/rpcbind.sock", Owner: "superuser"},
	{Program: 536870913, Version: 1, Netid: "udp", Addr: "0.0.0.0.78.133", Owner: "4242"},
}

// The lists as rpcinfo(8) of rpcbind 1.2.6 prints them.
const (
	dumpOfRegistered = `   program version netid     address                service    owner
    100000    4    tcp6      ::.0.111               portmapper superuser
    100000    3    local     /run/rpcbind.sock      portmapper superuser
 536870913    1    udp       0.0.0.0.78.133         -          4242
`
	shortOfRegistered = `   program version(s) netid(s)                         service     owner
    100000  3,4       local,tcp6                       portmapper  superuser
 536870913  1         udp                              -           4242
`
)

func TestLists(t *testing.T) {
	w := testWorld(t)
	portmapper(t, &w, map[uint32]oncrpc.Procedures{3: dumped(registered...)})
	for _, host := range []string{"", " 127.0.0.1", " -T udp 127.0.0.1", " 127.1", " 0x7f000001"} {
		expect(t, w, host, said{stdout: dumpOfRegistered})
		expect(t, w, "-s"+host, said{stdout: shortOfRegistered})
	}
	expect(t, w, "-T tcp6 127.0.0.1", said{stderr: "rpcinfo: can't contact rpcbind: RPC: Unknown host\n", code: 1})
}

func TestEmptyLists(t *testing.T) {
	w := testWorld(t)
	empty := answering(xdr.AppendBool(nil, false))
	portmapper(t, &w, map[uint32]oncrpc.Procedures{
		2: {rpcbind.ProcDump: empty}, 3: {rpcbind.ProcDump: empty}, 4: {rpcbind.ProcGetAddrList: empty},
	})
	for _, arguments := range []string{"", "-s", "-p", "-l 127.0.0.1 1 2"} {
		expect(t, w, arguments, said{stdout: noPrograms})
	}
}

// A portmapper that has version 4 alone, or version 2 alone, is asked in that one.
func TestDumpInAnotherVersion(t *testing.T) {
	w := testWorld(t)
	portmapper(t, &w, map[uint32]oncrpc.Procedures{4: dumped(registered...)})
	expect(t, w, "", said{stdout: dumpOfRegistered})

	old := testWorld(t)
	var mappings []byte
	for _, m := range []rpcbind.Mapping{{Program: 100003, Version: 3, Prot: 6, Port: 2049}, {Program: 7, Version: 1, Prot: 132, Port: 9}} {
		mappings = rpcbind.AppendMappingElement(mappings, m)
	}
	portmapper(t, &old, map[uint32]oncrpc.Procedures{2: {rpcbind.ProcDump: answering(xdr.AppendBool(mappings, false))}})
	expect(t, old, "127.0.0.1", said{stdout: `   program version netid     address                service    owner
    100003    3    tcp       0.0.0.0.8.1            nfs        unknown
         7    1    132       0.0.0.0.0.9            -          unknown
`})
	expect(t, old, "-p", said{stdout: `   program vers proto   port  service
    100003    3   tcp   2049  nfs
         7    1   132      9
`})
}

func TestNoVersion2(t *testing.T) {
	w := testWorld(t)
	portmapper(t, &w, map[uint32]oncrpc.Procedures{3: dumped(), 4: dumped()})
	expect(t, w, "-p", said{stderr: "localhost does not support portmapper.  Try rpcinfo localhost instead\n", code: 1})
}

// What a portmapper refuses, with libtirpc's words.
func TestRefusals(t *testing.T) {
	for want, refusal := range map[string]error{
		"RPC: Procedure unavailable":                                           oncrpc.ErrProcUnavail,
		"RPC: Server can't decode arguments":                                   oncrpc.ErrGarbageArgs,
		"RPC: Remote system error":                                             oncrpc.ErrSystemErr,
		"RPC: Program unavailable":                                             oncrpc.ErrProgUnavail,
		"RPC: Program/version mismatch; low version = 7, high version = 9":     &oncrpc.AcceptError{Stat: oncrpc.ProgMismatch, Low: 7, High: 9},
		"RPC: Authentication error; why = Client credential too weak":          &oncrpc.DeniedError{Stat: oncrpc.AuthError, Auth: oncrpc.AuthTooWeak},
		"RPC: Authentication error; why = (unknown authentication error - 99)": &oncrpc.DeniedError{Stat: oncrpc.AuthError, Auth: 99},
	} {
		w := testWorld(t)
		refuse := oncrpc.Procedures{rpcbind.ProcDump: func(context.Context, *oncrpc.Request, []byte) ([]byte, error) { return nil, refusal }}
		portmapper(t, &w, map[uint32]oncrpc.Procedures{2: refuse, 3: refuse})
		expect(t, w, "", said{stderr: "rpcinfo: can't contact rpcbind: : " + want + "\n", code: 1})
		if !strings.Contains(want, "mismatch") {
			expect(t, w, "-p", said{stderr: "rpcinfo: can't contact portmapper: " + want + "\n", code: 1})
		}
	}
}

func TestAddresses(t *testing.T) {
	w := testWorld(t)
	questions := make(chan rpcbind.RPCB, 1)
	list := func(_ context.Context, r *oncrpc.Request, dst []byte) ([]byte, error) {
		d := r.Decoder()
		questions <- rpcbind.ReadRPCB(&d, maxString)
		for i, netid := range []rpcbind.Netid{"udp", "tcp"} {
			tr, _ := netid.Transport()
			tr.Semantics = uint32(i + 1)
			dst = rpcbind.AppendEntryElement(dst, rpcbind.Entry{Addr: "127.0.0.1.8.1", Transport: tr})
		}
		return xdr.AppendBool(dst, false), nil
	}
	portmapper(t, &w, map[uint32]oncrpc.Procedures{4: {rpcbind.ProcGetAddrList: list}})
	expect(t, w, "-l 127.0.0.1 nfs 3", said{stdout: "   program vers  tp_family/name/class    address\t\t  service\n" +
		"    100003  3    inet/udp/clts           127.0.0.1.8.1            nfs          \n" +
		"    100003  3    inet/tcp/cots           127.0.0.1.8.1            nfs          \n"})
	if asked := <-questions; asked.Program != 100003 || asked.Version != 3 || asked.Netid != "tcp" || !strings.HasPrefix(asked.Addr, "127.0.0.1.") {
		t.Errorf("asked for %+v", asked)
	}
}

func TestStatistics(t *testing.T) {
	w := testWorld(t)
	s := &rpcbind.Stats{}
	for i := range s {
		for proc := range s[i].Calls {
			s[i].Calls[proc] = uint32(100*i + proc)
		}
		s[i].Sets, s[i].Unsets = 1234567, 2
		s[i].Lookups = []rpcbind.LookupStats{{Program: 100003, Version: 3, Success: 11, Failure: 2, Netid: "tcp"}}
		s[i].Remote = []rpcbind.RemoteStats{{Program: 5, Version: 1, Procedure: 2, Success: 3, Failure: 4, Indirect: 5, Netid: "udp"}}
	}
	portmapper(t, &w, map[uint32]oncrpc.Procedures{4: {rpcbind.ProcGetStat: answering(rpcbind.AppendStats(nil, s))}})
	expect(t, w, "-m", said{stdout: statisticsText})
	expect(t, w, "-m -T nosuch 127.0.0.1", said{stdout: statisticsText})
}

const statisticsText = "PORTMAP (version 2) statistics\n" +
	"NULL    SET             UNSET   GETPORT DUMP    CALLIT  \n" +
	"0       1234567/1       2/2     11/3    4       3/5     \n\n" +
	"PMAP_RMTCALL call statistics\nprog\t\tvers\tproc\tnetid\tsuccess\tfailure\n5               1\t2\tudp\t3\t4\n\n" +
	"PMAP_GETPORT call statistics\nprog\t\tvers\tnetid\t  success\tfailure\nnfs             3\ttcp\t  11          \t2\n\n" +
	"RPCBIND (version 3) statistics\n" +
	"NULL    SET             UNSET   GETADDR DUMP    CALLIT  TIME    U2T     T2U     \n" +
	"100     1234567/101     2/102   11/103  104     3/105   106     107     108     \n\n" +
	"RPCB_RMTCALL (version 3) call statistics\nprog\t\tvers\tproc\tnetid\tsuccess\tfailure\n5               1\t2\tudp\t3\t4\n\n" +
	"RPCB_GETADDR (version 3) call statistics\nprog\t\tvers\tnetid\t  success\tfailure\nnfs             3\ttcp\t  11          \t2\n\n" +
	"RPCBIND (version 4) statistics\n" +
	"NULL    SET             UNSET   GETADDR DUMP    CALLIT  TIME    U2T     T2U     \n" +
	"200     1234567/201     2/202   11/414  204     3/205   206     207     208     \n" +
	"VERADDR INDRECT GETLIST GETSTAT \n209     210     211     212     \n\n" +
	"RPCB_RMTCALL (version 4) call statistics\nprog\t\tvers\tproc\tnetid\tindirect success failure\n5               1\t2\tudp\t5\t 3\t4\n\n" +
	"RPCB_GETADDR (version 4) call statistics\nprog\t\tvers\tnetid\t  success\tfailure\nnfs             3\ttcp\t  11          \t2\n"

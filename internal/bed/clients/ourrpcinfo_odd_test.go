package clients_test

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// odd is a portmapper, or something in its place, that neither rpcbind nor
// gportmap is.
type odd struct {
	name     string
	versions map[uint32]oncrpc.Procedures // of program 100000
	commands []string
}

// everything asks whatever a portmapper may be asked.
var everything = []string{
	"", "127.0.0.1", "-s", "-s 127.0.0.1", "-p", "-p 127.0.0.1", "-m", "-m 127.0.0.1", "-l 127.0.0.1 100003 3", "-T udp 127.0.0.1",
	"-u 127.0.0.1 100003 3", "-t 127.0.0.1 100003 3", "-T udp 127.0.0.1 100003 3", "-T tcp 127.0.0.1 100003", "-d 100003 3",
	"-a 127.0.0.1.0.111 -T tcp 100000", "-a 127.0.0.1.0.111 -T udp 100000 9", "-a 127.0.0.1.0.111 -T tcp 5",
}

// answers makes a procedure that answers these octets, refuses one that
// answers with this error.
func answers(results []byte) oncrpc.Handler {
	return func(_ context.Context, _ *oncrpc.Request, dst []byte) ([]byte, error) {
		return append(dst, results...), nil
	}
}

func refuses(err error) oncrpc.Handler {
	return func(context.Context, *oncrpc.Request, []byte) ([]byte, error) { return nil, err }
}

// all makes every procedure the same.
func all(h oncrpc.Handler) oncrpc.Procedures {
	p := make(oncrpc.Procedures)
	for proc := uint32(1); proc < rpcbind.StatProcs; proc++ {
		p[proc] = h
	}
	return p
}

// always makes procedures those of all versions.
func always(p oncrpc.Procedures) map[uint32]oncrpc.Procedures {
	return map[uint32]oncrpc.Procedures{2: p, 3: p, 4: p}
}

// in makes procedures those of one version.
func in(version uint32, p oncrpc.Procedures) map[uint32]oncrpc.Procedures {
	return map[uint32]oncrpc.Procedures{version: p}
}

func oddPortmappers() []odd {
	end := xdr.AppendBool(nil, false)
	located := func(uaddr string) oncrpc.Procedures {
		return oncrpc.Procedures{rpcbind.ProcGetAddr: answers(xdr.AppendString(nil, uaddr)), rpcbind.ProcDump: answers(oddList())}
	}
	port := func(v uint32) oncrpc.Procedures {
		return oncrpc.Procedures{rpcbind.ProcGetPort: answers(xdr.AppendUint32(nil, v)), rpcbind.ProcDump: answers(oddMappings())}
	}
	denied := func(s oncrpc.AuthStat) map[uint32]oncrpc.Procedures {
		return always(all(refuses(&oncrpc.DeniedError{Stat: oncrpc.AuthError, Auth: s})))
	}
	lookups := []string{
		"-u 127.0.0.1 100003 3", "-t 127.0.0.1 100003 3", "-T udp 127.0.0.1 100003 3", "-T tcp 127.0.0.1 100003", "-p 127.0.0.1",
	}
	lists := []string{"", "-s", "-s 127.0.0.1", "-p", "-l 127.0.0.1 5 4294967295"}
	return []odd{
		{"version 2 alone", in(2, port(0)), slices.Concat(lookups, []string{"-p", "-m", "-m 127.0.0.1", "-l 127.0.0.1 5 1", "-d 5 1"})},
		{"version 2, a port that is closed", in(2, port(9)), lookups},
		{"version 2, no GETPORT", in(2, oncrpc.Procedures{}), lookups},
		{"version 3 alone", in(3, located("127.0.0.1.0.9")), slices.Concat(lookups, lists, []string{"-m"})},
		{"version 4 alone", in(4, oncrpc.Procedures{
			rpcbind.ProcDump: answers(oddList()), rpcbind.ProcGetAddrList: answers(oddEntries()),
		}), slices.Concat(lists, []string{"-m"})},
		{"empty lists", always(all(answers(end))), slices.Concat(lists, []string{"-m", "-d 1 2"})},
		{"not registered", in(4, located("")), lookups},
		{"no address", in(4, located("rubbish")), lookups},
		{"an address of IPv6", in(4, located("::1.0.9")), lookups},
		{"results cut off", always(all(answers(nil))), everything},
		{"results that are none", always(all(answers([]byte("\x00\x00\x00\x01\x7f\xff\xff\xff")))), everything},
		{"GARBAGE_ARGS", always(all(refuses(oncrpc.ErrGarbageArgs))), everything},
		{"SYSTEM_ERR", always(all(refuses(oncrpc.ErrSystemErr))), everything},
		{"PROC_UNAVAIL", always(oncrpc.Procedures{}), everything},
		{"PROG_UNAVAIL", always(all(refuses(oncrpc.ErrProgUnavail))), everything},
		{"AUTH_TOOWEAK", denied(oncrpc.AuthTooWeak), everything},
		{"AUTH_FAILED", denied(oncrpc.AuthFailed), everything},
		{"auth_stat 99", denied(99), everything},
		{"versions 7 to 9", always(all(refuses(&oncrpc.AcceptError{Stat: oncrpc.ProgMismatch, Low: 7, High: 9}))), everything},
	}
}

// oddList, oddMappings and oddEntries have numbers, and texts longer than their
// columns, that no portmapper has.
func oddList() []byte {
	list := xdr.AppendBool(nil, false)
	for _, b := range []rpcbind.RPCB{
		{Program: 1 << 31, Version: 1<<31 - 1, Netid: "a-long-netid", Addr: "an address that is longer than its column"},
		{Program: 100003, Version: 123456, Owner: "an owner"}, {Program: 100003, Version: 1234567, Netid: "x"},
	} {
		list = append(rpcbind.AppendRPCBElement(nil, b), list...)
	}
	return list
}

func oddMappings() []byte {
	list := xdr.AppendBool(nil, false)
	for _, m := range []rpcbind.Mapping{
		{Program: 100003, Version: 3, Prot: 6, Port: 2049}, {Program: 1 << 31, Version: 1 << 31, Prot: 17, Port: 1 << 31},
		{Program: 7, Version: 12345678, Port: 99999999},
	} {
		list = append(rpcbind.AppendMappingElement(nil, m), list...)
	}
	return list
}

func oddEntries() []byte {
	udp, _ := rpcbind.UDP.Transport()
	udp.Semantics = rpcbind.SemanticsCOTS
	e := rpcbind.Entry{Addr: "an address that is longer than its column", Transport: udp}
	return xdr.AppendBool(rpcbind.AppendEntryElement(nil, e), false)
}

// TestOurRpcinfoOddPortmappers compares Debian's rpcinfo and ours with servers
// that answer in every way the protocol has.
func TestOurRpcinfoOddPortmappers(t *testing.T) {
	requires(t, program{"rpcinfo", "rpcbind"})
	buildRpcinfo(t)
	t.Parallel()
	bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
		for _, o := range oddPortmappers() {
			t.Run(o.name, func(t *testing.T) {
				var s oncrpc.Server
				defer s.Close()
				for version, procedures := range o.versions {
					if err := s.Register(rpcbind.Program, version, procedures); err != nil {
						t.Fatal(err)
					}
				}
				for _, at := range [][2]string{{"tcp", "127.0.0.1:111"}, {"unix", "/run/rpcbind.sock"}} {
					l, err := net.Listen(at[0], at[1])
					if err != nil {
						t.Fatal(err)
					}
					go s.Serve(l)
				}
				p, err := net.ListenPacket("udp", "127.0.0.1:111")
				if err != nil {
					t.Fatal(err)
				}
				go s.ServePacket(p)
				for _, words := range o.commands {
					c := line("rpcinfo " + words)
					want, got := sensible(run(t, ns, c), o), run(t, ns, ours(t, c))
					if strings.HasPrefix(o.name, "version 2") && words == "-p 127.0.0.1" && got.code == 0 {
						// Debian's asks by versions 4 and 3 where the list is, and gives up. Ours asks for it directly then.
						want = run(t, ns, line("rpcinfo -p"))
					}
					same(t, c, want, got)
				}
			})
		}
	})
}

// sensible makes of what Debian's rpcinfo says what ours says on purpose: a
// portmapper that has none of the versions that are known isn't an empty one, and
// no failure is a success, or silent.
func sensible(debian outcome, o odd) outcome {
	debian.stderr = strings.ReplaceAll(debian.stderr, "(null)", "localhost")
	why := map[string]string{
		"PROG_UNAVAIL":    "RPC: Program unavailable\n",
		"versions 7 to 9": "RPC: Program/version mismatch; low version = 7, high version = 9\n",
	}[o.name]
	switch {
	case why == "":
	case debian.stdout == "No remote programs registered.\n":
		return outcome{stderr: "rpcinfo: can't contact rpcbind: : " + why, code: 1}
	case debian.stdout == "" && debian.stderr == "":
		return outcome{stderr: "rpcinfo: can't contact portmapper: " + why, code: 1}
	}
	debian.stderr = strings.Replace(debian.stderr, "RPC: Success\n", "RPC: Program/version mismatch\n", 1)
	return debian
}

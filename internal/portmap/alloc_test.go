package portmap

import (
	"bytes"
	"testing"
)

// hotCalls are the calls that the portmapper gets all day. Each takes no memory, once that it was counted for the
// first time.
var hotCalls = []struct {
	name string
	call []byte
	from func(Transport) Caller
	on   []Transport
	want []byte // beginning of the reply
}{
	{"NULL v2", callTo(2, 0), remoteCaller, ipTransports, success()},
	{"NULL v4", callTo(4, 0), remoteCaller, ipTransports, success()},
	{"GETPORT hit", callTo(2, 3, words(300001, 1, 6, 0)), remoteCaller, ipTransports, success(words(2049))},
	{"GETPORT miss", callTo(2, 3, words(300009, 1, 6, 0)), remoteCaller, ipTransports, success(words(0))},
	{"GETADDR hit", callTo(4, 3, rpcbOf(300001, 1, "tcp", "", "nobody")), remoteCaller, ip4Transports, success(words(13), []byte("192.0.2.1.8."))},
	{"GETADDR hit IPv6", callTo(4, 3, rpcbOf(300001, 1, "tcp6", "", "")), remoteCaller, ip6Transports, success(words(15), []byte("2001:db8::1.8."))},
	{"GETADDR hint", callTo(3, 3, rpcbOf(300001, 1, "tcp", "198.51.100.1.0.111", "")), remoteCaller, ip4Transports,
		success(words(16), []byte("198.51.100.1.8."))},
	{"GETADDR hint IPv6", callTo(4, 3, rpcbOf(300001, 1, "udp6", "2001:db8:b::1.0.111", "")), remoteCaller, ip6Transports,
		success(words(17), []byte("2001:db8:b::1.8."))},
	{"GETADDR miss", callTo(4, 3, rpcbOf(300009, 1, "tcp", "192.0.2.1.0.111", "")), remoteCaller, ipTransports, success(str(""))},
	{"GETADDR loopback", callTo(4, 3, rpcbOf(300001, 1, "", "", "")), localCaller, ip4Transports, success(words(13), []byte("127.0.0.1.8."))},
	{"GETADDR local", callTo(4, 3, rpcbOf(300001, 1, "", "", "")), localCaller, []Transport{Local}, success(str("/run/x.sock"))},
	{"GETVERSADDR hit", callTo(4, 9, rpcbOf(300001, 1, "tcp", "", "")), remoteCaller, ip4Transports, success(words(13), []byte("192.0.2.1.8."))},
	{"GETVERSADDR miss", callTo(4, 9, rpcbOf(300001, 77, "tcp", "", "")), remoteCaller, ipTransports, success(str(""))},
}

var (
	ip4Transports = []Transport{UDP, TCP}
	ip6Transports = []Transport{UDP6, TCP6}
	ipTransports  = []Transport{UDP, TCP, UDP6, TCP6}
)

// eachHotCall gives the body that the benchmark times and the test counts the allocations of.
func eachHotCall(tb testing.TB, do func(name string, body func())) {
	tb.Helper()
	p := newSubject(tb, registered...)
	for _, hot := range hotCalls {
		for _, transport := range hot.on {
			from := hot.from(transport)
			reply := make([]byte, 0, 512)
			if got := p.AppendReply(reply, hot.call, from); !bytes.HasPrefix(got, hot.want) {
				tb.Fatalf("%s over %s answers %x, want %x", hot.name, transport.Netid(), got, hot.want)
			}
			do(hot.name+" "+string(transport.Netid()), func() {
				if got := p.AppendReply(reply, hot.call, from); len(got) == 0 {
					tb.Fatalf("%s over %s gets no answer", hot.name, transport.Netid())
				}
			})
		}
	}
}

func TestHotCallsAllocateNothing(t *testing.T) {
	eachHotCall(t, func(name string, body func()) {
		if n := testing.AllocsPerRun(100, body); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	})
}

func BenchmarkAppendReply(b *testing.B) {
	eachHotCall(b, func(name string, body func()) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				body()
			}
		})
	})
}

// BenchmarkDump times DUMP for a stranger over UDP, whom it is refused, and over TCP.
func BenchmarkDump(b *testing.B) {
	p := newSubject(b, registered...)
	for prog := range uint32(10_000) {
		ask(p, localCaller(Local), callTo(2, 1, words(400000+prog, 1, 6, 1)))
	}
	reply := make([]byte, 0, 1<<20)
	call := callTo(4, 4)
	for _, transport := range ip4Transports {
		b.Run(string(transport.Netid()), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if len(p.AppendReply(reply, call, remoteCaller(transport))) == 0 {
					b.Fatal("no answer")
				}
			}
		})
	}
}

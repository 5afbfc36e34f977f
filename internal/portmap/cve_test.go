package portmap

import (
	"runtime"
	"testing"

	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// The tests of this file, of internal/bed/cve_test.go and of pkg/rpcbind/cve_test.go are named after the vulnerabilities of
// other portmappers and their libraries. SECURITY.md lists them.

// allocated returns how many octets f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestCVE_2026_94640 looks a million made-up programs up by every lookup and remote call: rpcbind kept an element of its
// statistics for each.
func TestCVE_2026_94640(t *testing.T) {
	p := newSubjectWith(t, Config{Relay: new(fakeRelay)}, registered...)
	from := remoteCaller(UDP)
	reply := make([]byte, 0, 512)
	getPort, getAddr := callTo(2, 3, words(0, 1, 17, 0)), callTo(4, 3, rpcbOf(0, 1, "", "", ""))
	indirect := callTo(4, 10, remoteArgs(0, 1, 0, ""))
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for i := range uint32(madeUpPrograms) {
		for j, call := range [][]byte{getPort, getAddr, indirect} {
			if j > 0 && i%16 != 0 {
				continue // one in sixteen is as good a flood, and sooner over
			}
			copy(call[40:], words(0x20000000+i))
			if len(p.AppendReply(reply, call, from)) == 0 {
				t.Fatal("no answer")
			}
		}
	}
	if after := heap(); after > before+1<<20 {
		t.Errorf("the heap grew from %d to %d octets", before, after)
	}
	if got := len(ask(p, localCaller(TCP), callTo(4, 12))); got > 8000 {
		t.Errorf("GETSTAT answers %d octets", got)
	}
}

// hostileLengths are what CVEs about lengths and counts have in their fields.
var hostileLengths = []uint32{0x7fffffff, 0x80000000, 0xffffffff, 0xfffffffd, 0x40000000, 0x3fffffff, 9001, 401}

// lengthFields are calls in which every word that may be a length or a count is one of those, in turn.
func lengthFields(length uint32) [][]byte {
	var calls [][]byte
	for vers := uint32(2); vers <= 4; vers++ {
		for proc := range lastProc[vers-2] + 1 {
			for _, args := range [][]byte{rpcbOf(300001, 1, "udp", "", ""), words(300001, 1, 17, 0), remoteArgs(300001, 1, 0, "args"), str("0.0.0.0.8.1"), netbuf(16, make([]byte, 16))} {
				call := callTo(vers, proc, args)
				// The credential's and the verifier's length, and each word of the arguments.
				for at := 28; at < len(call); at += 4 {
					c := append([]byte{}, call...)
					copy(c[at:], words(length))
					calls = append(calls, c)
				}
			}
		}
	}
	// AUTH_SYS: the length of the machine name and the number of gids.
	cred := []byte(authSys("h", 0, 0))
	for at := 0; at < len(cred); at += 4 {
		c := append([]byte{}, cred...)
		copy(c[at:], words(length))
		calls = append(calls, join(words(testXID, 0, 2, rpcbind.Program, 4, 3, 1), str(string(c)), words(0, 0), rpcbOf(300001, 1, "udp", "", "")))
	}
	return calls
}

// TestCVE_2017_8779 announces what isn't there, in every field that tells a length: libtirpc allocated it.
// CVE-2017-8804 is the same in glibc.
func TestCVE_2017_8779(t *testing.T) { lengthsAllocateNothing(t, hostileLengths[:1]) }

// TestCVE_2003_0028 has counts that overflow when they are multiplied or rounded up. CVE-2002-0391 is the same in other
// decoders of XDR.
func TestCVE_2003_0028(t *testing.T) { lengthsAllocateNothing(t, hostileLengths) }

func lengthsAllocateNothing(t *testing.T, lengths []uint32) {
	p := newSubjectWith(t, Config{Relay: new(fakeRelay)}, registered...)
	reply := make([]byte, 0, 64<<10)
	for _, length := range lengths {
		calls := lengthFields(length)
		for _, call := range calls {
			ask(p, remoteCaller(TCP), call) // counts it for the first time
		}
		for _, call := range calls {
			// What a call takes at most: its strings, copied for the table or a relay.
			if got := allocated(func() { p.AppendReply(reply, call, remoteCaller(TCP)) }); got > 64<<10 {
				t.Fatalf("length %#x: %d octets were allocated for the call %x", length, got, call)
			}
		}
	}
}

// TestCVE_2026_85231 sends RPCSEC_GSS credentials, of which libtirpc decoded lengths before it looked at the call: here they
// are refused before their bodies are looked at.
func TestCVE_2026_85231(t *testing.T) {
	p := newSubject(t)
	reply := make([]byte, 0, 512)
	for _, body := range []string{"", "x", string(words(1, 0, 0, 1, 0x7fffffff)), string(make([]byte, 400))} {
		call := join(words(testXID, 0, 2, rpcbind.Program, 4, 3, 6), str(body), words(0, 0))
		if got := p.AppendReply(reply, call, remoteCaller(UDP)); string(got) != string(denied(2)) {
			t.Errorf("body of %d octets: %x", len(body), got)
		}
		if n := testing.AllocsPerRun(10, func() { p.AppendReply(reply, call, remoteCaller(UDP)) }); n != 0 {
			t.Errorf("body of %d octets: %v allocations", len(body), n)
		}
	}
}

package clients_test

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/gportmap/gportmap/internal/bed"
)

// Procedures of program 100000 (RFC 1833); the numbers up to 5 are the same in
// every version.
const (
	procSet     = 1
	procUnset   = 2
	procGetport = 3
	procDump    = 4
	procCallit  = 5
)

const (
	protTCP = 6  // IPPROTO_TCP
	protUDP = 17 // IPPROTO_UDP
)

// portmapperCall encodes a call of program 100000 with AUTH_NONE and arguments
// that are words, by hand: these clients owe nothing to the code under test.
func portmapperCall(version, procedure uint32, arguments ...uint32) []byte {
	header := []uint32{
		0x70000000 | version<<8 | procedure, // xid
		0,                                   // CALL
		2,                                   // RPC version
		100000, version, procedure,
		0, 0, // credential: AUTH_NONE, no octets
		0, 0, // verifier
	}
	var call []byte
	for _, word := range append(header, arguments...) {
		call = binary.BigEndian.AppendUint32(call, word)
	}
	return call
}

// result returns the words behind the header of an accepted, successful reply.
func result(reply []byte) ([]uint32, error) {
	var words []uint32
	for ; len(reply) >= 4; reply = reply[4:] {
		words = append(words, binary.BigEndian.Uint32(reply))
	}
	// xid, REPLY, MSG_ACCEPTED, verifier of no octets, SUCCESS
	if len(words) < 6 || words[1] != 1 || words[2] != 0 || words[4] != 0 || words[5] != 0 {
		return nil, fmt.Errorf("not a successful reply: %x", words)
	}
	return words[6:], nil
}

// TestGlibcStyleV2 registers as glibc's old sunrpc, macOS and gluster do: version
// 2 SET over loopback UDP or TCP, by an ordinary user, from an unprivileged port.
// The same user can take the registration back; another one can with rpcbind, and over UDP,
// which does not know the owner, and cannot with gportmap (section 8, rows 4 and
// 6).
func TestGlibcStyleV2(t *testing.T) {
	requires(t)
	each(t, bed.Options{}, func(t *testing.T, ns *bed.NS, s bed.Subject, record *transcript) {
		ns.Start(t, s)
		// The owner's server is alive: what is registered is not replaced (section 8, row 8).
		ns.Hold(t, "udp4", ":20140")
		ns.Hold(t, "tcp4", ":20140")
		const program, version = 536870940, 1
		for _, tr := range []bed.Transport{bed.UDP, bed.TCP} {
			for _, prot := range []uint32{protUDP, protTCP} {
				v := v2{t, ns, tr, record}
				v.want(owner, "SET", procSet, []uint32{program, version, prot, 20140}, 1)
				v.want(owner, "SET again", procSet, []uint32{program, version, prot, 20140}, 1)
				v.want(owner, "SET of another port", procSet, []uint32{program, version, prot, 20141}, 0)
				v.want(0, "GETPORT", procGetport, []uint32{program, version, prot, 0}, 20140)
				v.want(stranger, "GETPORT", procGetport, []uint32{program, version, prot, 0}, 20140)
				v.want(0, "GETPORT of the other protocol", procGetport, []uint32{program, version, protUDP + protTCP - prot, 0}, 0)
				v.strangerUnsets(s, program, version, prot)
				v.want(owner, "UNSET", procUnset, []uint32{program, version, 0, 0}, 1)
				v.want(0, "GETPORT after UNSET", procGetport, []uint32{program, version, prot, 0}, 0)
				v.want(owner, "UNSET of nothing", procUnset, []uint32{program, version, 0, 0}, 1)
			}
		}
		root := v2{t, ns, bed.UDP, record}
		root.want(0, "SET by root", procSet, []uint32{program, version, protUDP, 20140}, 1)
		root.want(0, "UNSET by root", procUnset, []uint32{program, version, 0, 0}, 1)
	})
}

// v2 makes calls of version 2 over one transport.
type v2 struct {
	t      *testing.T
	ns     *bed.NS
	tr     bed.Transport
	record *transcript
}

// call returns the one word that the procedure answers with.
func (v v2) call(uid uint32, what string, procedure uint32, arguments []uint32) uint32 {
	v.t.Helper()
	reply, err := v.ns.Call(v.t, v.tr, bed.From{UID: uid}, portmapperCall(2, procedure, arguments...))
	if err != nil {
		v.t.Fatalf("%s over %s as uid %d: %v", what, v.tr, uid, err)
	}
	words, err := result(reply)
	if err != nil || len(words) != 1 {
		v.t.Fatalf("%s over %s as uid %d: %x, %v", what, v.tr, uid, reply, err)
	}
	return words[0]
}

// want makes a call whose answer is known and the same for both subjects.
func (v v2) want(uid uint32, what string, procedure uint32, arguments []uint32, want uint32) {
	v.t.Helper()
	got := v.call(uid, what, procedure, arguments)
	if got != want {
		v.t.Errorf("%s %d over %s as uid %d: %d, want %d", what, arguments, v.tr, uid, got, want)
	}
	v.record.add(fmt.Sprintf("%s %d over %s as uid %d", what, arguments, v.tr, uid), fmt.Sprint(got))
}

// strangerUnsets has another user UNSET the owner's registration.
func (v v2) strangerUnsets(s bed.Subject, program, version, prot uint32) {
	v.t.Helper()
	answer := v.call(stranger, "UNSET", procUnset, []uint32{program, version, 0, 0})
	port := v.call(0, "GETPORT", procGetport, []uint32{program, version, prot, 0})
	// Nobody can tell who sent a datagram: what "unknown" registered, everybody on this host may unregister.
	if s == bed.Rpcbind || v.tr == bed.UDP {
		if answer != 1 || port != 0 {
			v.t.Errorf("%v answers a stranger's UNSET over %s %d and keeps port %d: rows 4 and 6 of section 8 say otherwise", s, v.tr, answer, port)
		}
		return
	}
	if answer != 0 || port != 20140 {
		v.t.Errorf("a stranger's UNSET over %s: %d, then port %d; want FALSE and port 20140 (section 8, rows 4 and 6)", v.tr, answer, port)
	}
}

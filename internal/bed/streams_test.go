package bed_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// recordLimit is the size in octets of the largest record that is read.
const recordLimit = 9000

// streams are the transports with record marks.
func streams(subject bed.Subject) []bed.Transport {
	all := []bed.Transport{bed.TCP, bed.TCP6, bed.Unix}
	if subject == bed.Gportmap {
		all = append(all, bed.Abstract)
	}
	return all
}

// lookupCall is a call with a reply that tells it from others: the port of
// program 100000 when known, else 0.
func lookupCall(xid, program uint32) []byte {
	return withXID(getPort(program, 2, rpcbind.ProtTCP), xid)
}

func lookupReply(xid, port uint32) []byte { return accepted(xid, oncrpc.Success, words(port)) }

// TestStreams sends calls over streams in every shape that a peer may give them,
// and in some that it may not.
func TestStreams(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		test func(t *testing.T, ns *bed.NS, tr bed.Transport)
		// rpcbind does the same; where it doesn't, that is section 8 of the
		// contract, or one slow client stalls it.
		rpcbind bool
	}{
		{"segments", segments, true},
		{"fragments", fragments, false},
		{"pipelined", pipelined, true},
		{"half-close", halfClose, true},
		{"bad call after good ones", badAfterGood, true},
		{"largest record", largestRecord, true},
		{"record too long", recordTooLong, true},
		{"fragments too long together", fragmentsTooLong, false},
		{"empty fragment", emptyFragment, true},
		{"empty record", emptyRecord, true},
		{"truncated header", truncatedHeader, true},
		{"huge announcement", hugeAnnouncement, true},
		{"half-sent records", halfSent, true},
		{"client that never reads", neverReads, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			run := eachSubject
			if !c.rpcbind {
				run = gportmapOnly
			}
			run(t, bed.Options{}, func(t *testing.T, ns *bed.NS, subject bed.Subject) {
				d := ns.Start(t, subject)
				for _, tr := range streams(subject) {
					c.test(t, ns, tr)
				}
				if peak := peakMemory(t, d.PID()); peak > 256<<20 {
					t.Errorf("the daemon's memory reached %d octets", peak)
				}
			})
		})
	}
}

// segments sends one call in pieces of every size.
func segments(t *testing.T, ns *bed.NS, tr bed.Transport) {
	record := bed.Record(lookupCall(5, rpcbind.Program))
	for size := 1; size < len(record); size++ {
		c := ns.Dial(t, tr, bed.From{})
		for rest := record; len(rest) > 0; {
			n := min(size, len(rest))
			send(t, c, rest[:n])
			rest = rest[n:]
		}
		expect(t, c, lookupReply(5, rpcbind.Port))
		c.Close()
	}
}

// fragments cuts records into random fragments and those into random segments.
func fragments(t *testing.T, ns *bed.NS, tr bed.Transport) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		c := ns.Dial(t, tr, bed.From{})
		var stream []byte
		for xid := uint32(1); xid <= 3; xid++ {
			// Octets after the arguments are ignored.
			call := append(lookupCall(xid, rpcbind.Program), make([]byte, random.IntN(200))...)
			for len(call) > 0 {
				n := 1 + random.IntN(min(len(call), 60))
				stream = bed.AppendFragment(stream, call[:n], n == len(call))
				call = call[n:]
			}
		}
		for len(stream) > 0 {
			n := 1 + random.IntN(min(len(stream), 100))
			send(t, c, stream[:n])
			stream = stream[n:]
		}
		for xid := uint32(1); xid <= 3; xid++ {
			expect(t, c, lookupReply(xid, rpcbind.Port))
		}
		c.Close()
	}
}

// pipelined sends many calls in one segment and wants the replies in order.
func pipelined(t *testing.T, ns *bed.NS, tr bed.Transport) {
	c := ns.Dial(t, tr, bed.From{})
	var stream []byte
	for xid := uint32(1); xid <= 40; xid++ {
		stream = append(stream, bed.Record(lookupCall(xid, rpcbind.Program+xid%2))...)
	}
	send(t, c, stream)
	for xid := uint32(1); xid <= 40; xid++ {
		expect(t, c, lookupReply(xid, map[uint32]uint32{0: rpcbind.Port}[xid%2]))
	}
}

// halfClose ends the sending half after some calls.
func halfClose(t *testing.T, ns *bed.NS, tr bed.Transport) {
	c := ns.Dial(t, tr, bed.From{})
	send(t, c, append(bed.Record(lookupCall(1, 7)), bed.Record(lookupCall(2, rpcbind.Program))...))
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	expect(t, c, lookupReply(1, 0))
	expect(t, c, lookupReply(2, rpcbind.Port))
	expectClosed(t, c, tr)
}

// badAfterGood sends a message that is no call behind calls, in one segment.
func badAfterGood(t *testing.T, ns *bed.NS, tr bed.Transport) {
	notACall := lookupCall(3, 7)
	notACall[7] = 1 // REPLY
	for _, bad := range [][]byte{bed.Record(notACall), bed.Record([]byte("junk")), {0xff, 0xff, 0xff, 0xff}, {0, 0, 0, 0}} {
		c := ns.Dial(t, tr, bed.From{})
		stream := append(bed.Record(lookupCall(1, rpcbind.Program)), bed.Record(lookupCall(2, 7))...)
		send(t, c, append(stream, bad...))
		expect(t, c, lookupReply(1, rpcbind.Port))
		expect(t, c, lookupReply(2, 0))
		expectClosed(t, c, fmt.Sprintf("%s after %x", tr, bad))
	}
}

// largestRecord sends a record of as many octets as may be.
func largestRecord(t *testing.T, ns *bed.NS, tr bed.Transport) {
	c := ns.Dial(t, tr, bed.From{})
	call := lookupCall(1, rpcbind.Program)
	send(t, c, bed.Record(append(call, make([]byte, recordLimit-len(call))...)))
	expect(t, c, lookupReply(1, rpcbind.Port))
}

func recordTooLong(t *testing.T, ns *bed.NS, tr bed.Transport) {
	c := ns.Dial(t, tr, bed.From{})
	call := lookupCall(1, rpcbind.Program)
	sendUnlessClosed(t, c, bed.Record(append(call, make([]byte, recordLimit+1-len(call))...)))
	expectClosed(t, c, tr)
}

func fragmentsTooLong(t *testing.T, ns *bed.NS, tr bed.Transport) {
	c := ns.Dial(t, tr, bed.From{})
	stream := bed.AppendFragment(nil, lookupCall(1, rpcbind.Program), false)
	for range 10 {
		stream = bed.AppendFragment(stream, make([]byte, recordLimit/10), false)
	}
	sendUnlessClosed(t, c, stream)
	expectClosed(t, c, tr)
}

func emptyFragment(t *testing.T, ns *bed.NS, tr bed.Transport) {
	c := ns.Dial(t, tr, bed.From{})
	sendUnlessClosed(t, c, append([]byte{0, 0, 0, 0}, bed.Record(lookupCall(1, rpcbind.Program))...))
	expectClosed(t, c, tr)
}

func emptyRecord(t *testing.T, ns *bed.NS, tr bed.Transport) {
	c := ns.Dial(t, tr, bed.From{})
	send(t, c, bed.Record(nil))
	expectClosed(t, c, tr)
}

// truncatedHeader ends a call header after each unit.
func truncatedHeader(t *testing.T, ns *bed.NS, tr bed.Transport) {
	call := withXID(message(2, rpcbind.ProcNull, nil), 1)
	for octets := 4; octets < oncrpc.CallHeaderSize; octets += 4 {
		c := ns.Dial(t, tr, bed.From{})
		send(t, c, bed.Record(call[:octets]))
		expectClosed(t, c, fmt.Sprintf("%s, %d octets of a header", tr, octets))
	}
}

// hugeAnnouncement announces records that never come.
func hugeAnnouncement(t *testing.T, ns *bed.NS, tr bed.Transport) {
	for _, mark := range [][]byte{{0xff, 0xff, 0xff, 0xff}, {0x7f, 0xff, 0xff, 0xff}, {0x80, 0x01, 0, 0}} {
		for range 20 {
			c := ns.Dial(t, tr, bed.From{})
			sendUnlessClosed(t, c, append(mark[:4:4], lookupCall(1, 7)...))
			expectClosed(t, c, fmt.Sprintf("%s, record mark %x", tr, mark))
			c.Close()
		}
	}
}

// halfSent leaves half a record on fifty connections and calls on others.
func halfSent(t *testing.T, ns *bed.NS, tr bed.Transport) {
	record := bed.Record(lookupCall(9, rpcbind.Program))
	var waiting []*bed.Conn
	for i := range 50 {
		c := ns.Dial(t, tr, bed.From{})
		send(t, c, record[:1+i%(len(record)-1)])
		waiting = append(waiting, c)
	}
	for _, other := range []bed.Transport{bed.UDP, bed.TCP, bed.UDP6, bed.TCP6, bed.Unix} {
		must(t, ns, other, root, getPort(rpcbind.Program, 2, rpcbind.ProtTCP))
	}
	for i, c := range waiting {
		send(t, c, record[1+i%(len(record)-1):])
		expect(t, c, lookupReply(9, rpcbind.Port))
		c.Close()
	}
}

// neverReads calls and calls and does not read until the daemon takes no more, and
// others are served all the while.
func neverReads(t *testing.T, ns *bed.NS, tr bed.Transport) {
	c := ns.Dial(t, tr, bed.From{})
	if err := c.SetReceiveBuffer(4096); err != nil {
		t.Fatal(err)
	}
	calls := bytes.Repeat(bed.Record(withXID(dump(4), 1)), 1000)
	full := false
	for range 1000 {
		if n := c.SendSome(calls); n < len(calls) {
			full = true
			break
		}
	}
	if !full {
		t.Errorf("%s: 1,000,000 calls were taken from a client that reads no reply", tr)
	}
	for _, other := range []bed.Transport{bed.UDP, bed.TCP, bed.UDP6, bed.TCP6, bed.Unix} {
		must(t, ns, other, root, getPort(rpcbind.Program, 2, rpcbind.ProtTCP))
	}
}

func send(t *testing.T, c *bed.Conn, octets []byte) {
	t.Helper()
	if err := c.Send(octets); err != nil {
		t.Fatal(err)
	}
}

// sendUnlessClosed sends to a peer that may close before it has read all.
func sendUnlessClosed(t *testing.T, c *bed.Conn, octets []byte) {
	t.Helper()
	if err := c.Send(octets); err != nil && !errors.Is(err, bed.ErrClosed) {
		t.Fatal(err)
	}
}

func expect(t *testing.T, c *bed.Conn, want []byte) {
	t.Helper()
	got, err := c.Receive(patience)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%s: reply %x, %v, want %x", c.Transport(), got, err, want)
	}
}

func expectClosed(t *testing.T, c *bed.Conn, what any) {
	t.Helper()
	if err := c.WaitClosed(patience); err != nil {
		t.Errorf("%v: %v, want the connection closed", what, err)
	}
}

// peakMemory returns the most memory that a process had, in octets.
func peakMemory(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kilobytes int
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kilobytes); n == 1 {
			return kilobytes << 10
		}
	}
	t.Fatalf("no VmHWM for process %d", pid)
	return 0
}

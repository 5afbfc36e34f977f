package server

import (
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/portmap"
)

// slowDatagrams is slowly for datagrams.
type slowDatagrams struct{ *slowly }

func (p slowDatagrams) AppendReply(dst, call []byte, from portmap.Caller) []byte {
	if string(call) == "slow" {
		p.begun <- struct{}{}
		<-p.let
	}
	return p.slowly.AppendReply(dst, call, from)
}

// TestSlowDatagramsSilenceNobody: a call by datagram that waits, as for a disk, and those behind it keep no other from being
// answered. They are answered once they can be, also when Serve ends meanwhile.
func TestSlowDatagramsSilenceNobody(t *testing.T) {
	p := slowDatagrams{newSlowly()}
	udp, tcp := listenUDP(t, loopback4), listenTCP(t)
	running := start(t, Config{Portmapper: p}, udp, tcp)
	slow, quick := dial(t, udp), dial(t, udp)
	slow.send([]byte("slow"))
	<-p.begun
	quick.send([]byte("quick")) // would be answered at once if it were its turn
	for range 3 * workerQueue {
		slow.send([]byte("slow"))
	}
	other, stream := dial(t, udp), dial(t, tcp)
	for range 10 {
		other.send([]byte("a"))
		other.expectDatagram("re:a")
		stream.send(record("a"))
		stream.expect("re:a")
	}
	if n := len(p.begun); n > 0 {
		t.Errorf("%d calls that wait are made beside the first", n)
	}
	running.cancel()
	running.waitStopping(t)
	time.Sleep(10 * time.Millisecond)
	close(p.let)
	slow.expectDatagram("re:slow")
	quick.expectDatagram("re:quick")
	running.stop(t)
}

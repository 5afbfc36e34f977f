package server

import (
	"sync"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/portmap"
)

// TestAnswered holds what is told of calls that were answered: each datagram, and all calls of one read of a connection.
func TestAnswered(t *testing.T) {
	began := time.Now()
	type told struct {
		transport portmap.Transport
		calls     int
	}
	var mu sync.Mutex
	var got []told
	all := make(chan struct{}, 10)
	udp, tcp := listenUDP(t, loopback4), listenTCP(t)
	r := start(t, Config{Portmapper: &fake{}, Answered: func(from *portmap.Caller, calls int, at time.Time, took time.Duration) {
		if at.Before(began) || at.After(time.Now()) || took < 0 || took > time.Since(began) {
			t.Errorf("read at %v, %v long", at, took)
		}
		mu.Lock()
		got = append(got, told{from.Transport, calls})
		mu.Unlock()
		all <- struct{}{}
	}}, udp, tcp)
	conn := dial(t, tcp)
	conn.send(record("one"))
	conn.expect("re:one")
	<-all
	packet := dial(t, udp)
	packet.send([]byte("two"))
	packet.expectDatagram("re:two")
	<-all
	mu.Lock()
	if len(got) != 2 || got[0] != (told{portmap.TCP, 1}) || got[1] != (told{portmap.UDP, 1}) {
		t.Errorf("%+v", got)
	}
	mu.Unlock()
	if tcp, local, opened := r.Connections(); tcp != 1 || local != 0 || opened != 1 {
		t.Errorf("%d TCP and %d local connections, %d ever", tcp, local, opened)
	}
}

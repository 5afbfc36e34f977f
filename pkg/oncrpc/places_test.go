package oncrpc

import (
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// Connections on which nobody calls, or that began a call and stopped, keep nobody out: those that have waited longest
// make room. Those that call keep their places.
func TestServerMakesRoom(t *testing.T) {
	for _, perConnection := range []int{1, 2} {
		synctest.Test(t, func(t *testing.T) {
			s, g := slowServer(t, &Server{MaxConnections: 4, CallsPerConnection: perConnection})
			r := newRig(t, s)
			busy := r.client(t, ClientConfig{})
			slow := callLater(t.Context(), busy, testCall(50, "slow"))
			<-g.entered
			loyal := r.client(t, ClientConfig{}) // calls between all the others
			var silent []net.Conn
			for i := range 20 {
				conn, ok := r.listener.dial()
				if !ok {
					t.Fatal("the server doesn't listen any more")
				}
				if i%2 == 1 {
					conn.Write([]byte{0x80, 0}) // half a record mark
				}
				silent = append(silent, conn)
				time.Sleep(time.Second)
				if _, err := loyal.Call(t.Context(), testCall(procEcho, "")); err != nil {
					t.Fatalf("after %d silent connections: %v", i+1, err)
				}
			}
			for i, conn := range silent {
				conn.SetReadDeadline(time.Now().Add(time.Second)) // of the bubble
				_, err := conn.Read(make([]byte, 1))
				timeout, ok := err.(net.Error)
				if open := ok && timeout.Timeout(); open != (i >= len(silent)-2) {
					t.Errorf("silent connection %d of %d: %v", i+1, len(silent), err)
				}
			}
			close(g.open)
			if a := <-slow; a.err != nil || a.results != "slow" {
				t.Errorf("the call that was carried out meanwhile: %+v", a)
			}
			s.Shutdown(t.Context())
			r.over(t)
			for _, conn := range silent {
				conn.Close()
			}
			busy.Close()
			loyal.Close()
		})
	}
}

// A client that doesn't take its reply makes room as well.
func TestServerMakesRoomOfTheDeaf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := slowServer(t, &Server{MaxConnections: 1, WriteTimeout: time.Hour})
		r := newRig(t, s)
		deaf, _ := r.listener.dial()
		record := fragment(nil, AppendCall(nil, testCall(procEcho, "x")), true)
		if _, err := deaf.Write(record); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the server writes, and nobody reads
		c := r.client(t, ClientConfig{})
		began := time.Now()
		if _, err := c.Call(t.Context(), testCall(procEcho, "")); err != nil {
			t.Error(err)
		}
		if waited := time.Since(began); waited >= time.Second { // of the bubble's time
			t.Errorf("it took %v", waited)
		}
		s.Shutdown(t.Context())
		r.over(t)
		deaf.Close()
		c.Close()
	})
}

// Where a call is carried out on every connection, one more waits until one has ended, and is served then.
func TestServerWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, g := slowServer(t, &Server{MaxConnections: 2})
		r := newRig(t, s)
		var clients []*Client
		var slow []chan answered
		for range 2 {
			c := r.client(t, ClientConfig{})
			clients = append(clients, c)
			slow = append(slow, callLater(t.Context(), c, testCall(50, "slow")))
			<-g.entered
		}
		late := r.client(t, ClientConfig{})
		result := callLater(t.Context(), late, testCall(procEcho, "late"))
		time.Sleep(time.Hour)
		if len(result) > 0 {
			t.Errorf("a third connection was served: %+v", <-result)
		}
		close(g.open)
		for _, result := range slow {
			if a := <-result; a.err != nil {
				t.Error(a.err)
			}
		}
		if a := <-result; a.err != nil || a.results != "late" {
			t.Errorf("%+v", a)
		}
		s.Shutdown(t.Context())
		r.over(t)
		late.Close()
		for _, c := range clients {
			c.Close()
		}
	})
}

package admin

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestSilentConnectionsDelayNobody opens many more connections than there is room for, on both sockets, and then asks: 200 used to
// delay an answer by a minute.
func TestSilentConnectionsDelayNobody(t *testing.T) {
	_, path, addr := serve(t)
	for _, at := range [][2]string{{"unix", path}, {"tcp", addr}} {
		t.Run(at[0], func(t *testing.T) {
			for i := range 200 {
				c, err := net.Dial(at[0], at[1])
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if i%2 == 0 {
					fmt.Fprint(c, "GET /met") // and no more
				}
			}
			for range 20 {
				began := time.Now()
				c, err := net.Dial(at[0], at[1])
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(limit))
				fmt.Fprint(c, "GET /metrics HTTP/1.1\r\n\r\n")
				b, err := io.ReadAll(c)
				if err != nil || !strings.HasSuffix(string(b), "a 1\n") {
					t.Fatalf("%q, %v", b, err)
				}
				if took := time.Since(began); took > askLimit/2 {
					t.Fatalf("an answer took %v", took)
				}
			}
		})
	}
}

// Of several hosts the one with the most silent connections loses one, and nobody who has asked.
func TestWhoIsClosedForANewcomer(t *testing.T) {
	var q queue
	var all []*asker
	closed := func(a *asker) bool {
		_ = a.SetReadDeadline(time.Now().Add(time.Millisecond))
		_, err := a.Read(make([]byte, 1))
		return err == io.ErrClosedPipe
	}
	add := func(host string, asked bool) *asker {
		c, far := net.Pipe()
		t.Cleanup(func() { far.Close() })
		a := &asker{Conn: c, host: netip.MustParseAddr(host)}
		q.enter(a)
		if asked {
			q.asked(a)
		}
		all = append(all, a)
		return a
	}
	reader := add("192.0.2.1", false) // slow, and older than all
	asking := add("192.0.2.3", true)
	for range 5 * maxAsking {
		add("192.0.2.2", false)
	}
	if closed(reader) || closed(asking) || len(q.conns) != maxAsking {
		t.Errorf("the reader's connection was closed: %v, the one that had asked: %v; %d are open", closed(reader), closed(asking), len(q.conns))
	}
	for _, a := range all[len(all)-maxAsking+2:] {
		if closed(a) {
			t.Error("a newer one was closed before an older one")
		}
	}
	for range 3 * maxAsking { // all have asked: then the oldest goes
		add("192.0.2.2", true)
	}
	if len(q.conns) != maxAsking || !closed(asking) {
		t.Errorf("%d are open, the oldest closed: %v", len(q.conns), closed(asking))
	}
	for _, a := range all {
		q.leave(a)
	}
	if len(q.conns) != 0 {
		t.Errorf("%d are left", len(q.conns))
	}
}

func TestAbsoluteForm(t *testing.T) {
	_, _, addr := serve(t)
	for target, want := range map[string]int{
		"/metrics": 200, "http://" + addr + "/metrics": 200, "HTTP://host:1/metrics?x=http://y": 200, "https://host/metrics": 200,
		"http://host": 404, "http://host/": 404, "ftp://host/metrics": 404, "http:///metrics": 200, "/x://y/metrics": 404, "*": 404,
	} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(limit))
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: host\r\n\r\n", target)
		r, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || r.StatusCode != want {
			t.Errorf("%s: %v, %v, want %d", target, r, err, want)
		}
		c.Close()
	}
}

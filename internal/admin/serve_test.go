package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// limit bounds what should come at once; only a failing test waits so long.
const limit = 20 * time.Second

type source struct{}

func (source) Status() Status {
	return Status{Version: "v1", Registrations: Registered{Alive: 2, Dead: 1}}
}
func (source) Registrations() []Registration { return []Registration{{Program: 100003, Netid: "tcp"}} }
func (source) Reload() Reload                { return Reload{Begun: 2, Ended: 1, Error: "x"} }
func (source) Metrics() []byte               { return []byte("a 1\n") }

// serve returns the path of a local socket and the address of a TCP socket for metrics.
func serve(t *testing.T) (s *Server, path, addr string) {
	t.Helper()
	s = NewServer(source{})
	path = filepath.Join(t.TempDir(), "s")
	local, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	for _, l := range []net.Listener{local, tcp} {
		served.Go(func() {
			if err := s.Serve(l, l == tcp); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() {
		s.Close()
		served.Wait()
	})
	return s, path, tcp.Addr().String()
}

func TestAsk(t *testing.T) {
	_, path, _ := serve(t)
	var st Status
	if err := Ask(t.Context(), path, "/v1/status", &st); err != nil || st.Version != "v1" || st.Registrations.Total() != 3 {
		t.Errorf("%+v, %v", st, err)
	}
	var all []Registration
	if err := Ask(t.Context(), path, "/v1/registrations", &all); err != nil || len(all) != 1 || all[0].Program != 100003 {
		t.Errorf("%+v, %v", all, err)
	}
	if err := Ask(t.Context(), path, "/v1/other", &all); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("a path that isn't there: %v", err)
	}
	if err := Ask(t.Context(), path+"x", "/v1/status", &st); err == nil {
		t.Error("no error without a daemon")
	}
}

// TestGoClient has net/http ask, which is strict, as Prometheus does.
func TestGoClient(t *testing.T) {
	_, path, addr := serve(t)
	local := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	for _, c := range []struct {
		client      *http.Client
		method, url string
		status      int
		body        string
	}{
		{local, "GET", "http://gportmap/metrics", 200, "a 1\n"},
		{local, "GET", "http://gportmap/v1/status?x=1", 200, `"version":"v1"`},
		{local, "GET", "http://gportmap/", 404, "/v1/registrations\n"},
		{local, "HEAD", "http://gportmap/metrics", 200, ""},
		{local, "POST", "http://gportmap/metrics", 405, "GET"},
		{http.DefaultClient, "GET", "http://" + addr + "/metrics", 200, "a 1\n"},
		{http.DefaultClient, "GET", "http://" + addr + "/v1/status", 404, "/metrics"},
		{http.DefaultClient, "GET", "http://" + addr + "/v1/registrations", 404, "/metrics"},
	} {
		request, err := http.NewRequestWithContext(t.Context(), c.method, c.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		r, err := c.client.Do(request)
		if err != nil {
			t.Errorf("%s %s: %v", c.method, c.url, err)
			continue
		}
		b, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || r.StatusCode != c.status || !strings.Contains(string(b), c.body) || c.method == "HEAD" && len(b) > 0 {
			t.Errorf("%s %s: %d %q %v", c.method, c.url, r.StatusCode, b, err)
		}
	}
}

// TestHostileRequests are answered with an error or not at all, and leave the server as it was.
func TestHostileRequests(t *testing.T) {
	_, path, addr := serve(t)
	for _, request := range []string{
		"", "\n", "GET\n\n", "GET /metrics\n\n", "GET /metrics SSH-2.0\n\n", "\x00\x00\x00\x28", "GET /metrics HTTP/1.1\r\nno field\r\n\r\n",
		"GET /" + strings.Repeat("a", 2*maxRequest) + " HTTP/1.1\r\n\r\n",
		"GET /metrics HTTP/1.1\r\n" + strings.Repeat("A: b\r\n", 1e5) + "\r\n",
	} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(limit))
		io.WriteString(conn, request) // fails when the server has seen enough
		conn.(*net.TCPConn).CloseWrite()
		b, err := io.ReadAll(conn)
		conn.Close()
		if strings.Contains(string(b), "200 OK") || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%.30q: %q %v", request, b, err)
		}
	}
	var st Status
	if err := Ask(t.Context(), path, "/v1/status", &st); err != nil {
		t.Error(err)
	}
}

// TestSilentClients fill every place over TCP; the local socket still answers, and Close waits for nobody.
func TestSilentClients(t *testing.T) {
	s, path, addr := serve(t)
	for range maxAsking + 5 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	var st Status
	if err := Ask(t.Context(), path, "/v1/status", &st); err != nil {
		t.Error(err)
	}
	closed := make(chan struct{})
	go func() {
		s.Close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(limit):
		t.Fatal("Close waits for clients that are silent")
	}
	if err := Ask(t.Context(), path, "/v1/status", &st); err == nil {
		t.Error("an answer after Close")
	}
}

// TestAskBadServers asks what isn't a daemon of ours.
func TestAskBadServers(t *testing.T) {
	for _, answer := range []string{"", "HTTP/1.1 200 OK", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n{", "rubbish\r\n\r\n{}", "HTTP/1.1 500 no\r\n\r\n{}"} {
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(conn, answer)
			conn.Close()
		}()
		var st Status
		if err := Ask(t.Context(), path, "/v1/status", &st); err == nil {
			t.Errorf("%q is taken for an answer", answer)
		}
		l.Close()
	}
}

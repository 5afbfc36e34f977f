package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strings"
	"sync"
	"time"

	"github.com/gportmap/gportmap/internal/metrics"
)

// Bounds on who asks.
const (
	maxRequest = 8 << 10         // octets of a request's line and fields
	maxAsking  = 16              // connections of a listener at once, see queue
	askLimit   = 5 * time.Second // for the whole request to come
	tellLimit  = 10 * time.Second
	// metricsShare bounds the time spent on metrics, however often they are asked for: after they took so long they are the
	// same for metricsShare times as long.
	metricsShare = 10
)

// A Source is what there is to tell.
type Source interface {
	Status() Status
	Registrations() []Registration
	Reload() Reload
	Metrics() []byte // in the format of metrics.ContentType
}

// Server answers those who ask. Make one with [NewServer].
type Server struct {
	source Source
	asking sync.WaitGroup

	mu    sync.Mutex
	ended bool
	open  map[io.Closer]struct{} // listeners and connections

	metricsMu sync.Mutex
	metrics   []byte
	until     time.Time // when they have to be made anew
}

// NewServer returns a Server that tells of s.
func NewServer(s Source) *Server {
	return &Server{source: s, open: make(map[io.Closer]struct{})}
}

// Serve answers who connects to l until [Server.Close], and closes it. With metricsOnly it tells nothing else.
func (s *Server) Serve(l net.Listener, metricsOnly bool) error {
	if !s.hold(l) {
		return nil
	}
	defer s.drop(l)
	var q queue
	for {
		conn, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			var temporary interface{ Temporary() bool }
			if errors.As(err, &temporary) && temporary.Temporary() {
				time.Sleep(100 * time.Millisecond) // out of descriptors, say
				continue
			}
			return err
		}
		if !s.hold(conn) {
			return nil
		}
		a := newAsker(conn)
		q.enter(a)
		s.asking.Go(func() {
			defer s.drop(conn)
			defer q.leave(a)
			s.answer(a, metricsOnly, func() { q.asked(a) })
		})
	}
}

// Close ends every Serve and returns when nobody is being answered any more.
func (s *Server) Close() {
	s.mu.Lock()
	s.ended = true
	for c := range s.open {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.asking.Wait()
}

// hold notes what Close has to close; false after Close, c is closed then.
func (s *Server) hold(c io.Closer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		_ = c.Close()
		return false
	}
	s.open[c] = struct{}{}
	return true
}

func (s *Server) drop(c io.Closer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
	_ = c.Close()
}

// answer reads one request and answers it; the connection is closed then, so that there is never more than one.
func (s *Server) answer(conn net.Conn, metricsOnly bool, asked func()) {
	_ = conn.SetReadDeadline(time.Now().Add(askLimit))
	limited := &io.LimitedReader{R: conn, N: maxRequest}
	r := textproto.NewReader(bufio.NewReader(limited))
	line, err := r.ReadLine()
	if err != nil {
		return
	}
	// A request that ends without the empty line, as people type it, is taken; one that was cut is not.
	if _, err := r.ReadMIMEHeader(); limited.N == 0 || err != nil && !errors.Is(err, io.EOF) {
		respond(conn, "400 Bad Request", "text/plain", []byte("malformed or over 8 KiB\n"), true)
		return
	}
	asked()
	method, rest, _ := strings.Cut(line, " ")
	target, protocol, _ := strings.Cut(rest, " ")
	path := pathOf(target)
	switch {
	case !strings.HasPrefix(protocol, "HTTP/1."):
		respond(conn, "400 Bad Request", "text/plain", []byte("this is HTTP/1.1: GET /metrics HTTP/1.1\n"), true)
	case method != "GET" && method != "HEAD":
		respond(conn, "405 Method Not Allowed", "text/plain", []byte("only GET and HEAD\n"), true)
	default:
		s.tell(conn, path, metricsOnly, method == "GET")
	}
}

// pathOf returns the path of a request's target, which proxies write with scheme and host (RFC 9112 section 3.2.2).
func pathOf(target string) string {
	path, _, _ := strings.Cut(target, "?")
	if scheme, rest, ok := strings.Cut(path, "://"); ok && (strings.EqualFold(scheme, "http") || strings.EqualFold(scheme, "https")) {
		_, path, _ = strings.Cut(rest, "/")
		path = "/" + path
	}
	return path
}

// currentMetrics returns the metrics.
func (s *Server) currentMetrics() []byte {
	s.metricsMu.Lock()
	defer s.metricsMu.Unlock()
	if now := time.Now(); !now.Before(s.until) {
		s.metrics = s.source.Metrics()
		s.until = time.Now().Add(metricsShare * time.Since(now))
	}
	return s.metrics
}

func (s *Server) tell(conn net.Conn, path string, metricsOnly, body bool) {
	var document any
	switch {
	case path == "/metrics":
		respond(conn, "200 OK", metrics.ContentType, s.currentMetrics(), body)
		return
	case metricsOnly:
	case path == "/v1/status":
		document = s.source.Status()
	case path == "/v1/registrations":
		document = s.source.Registrations()
	case path == "/v1/reload":
		document = s.source.Reload()
	}
	if document == nil {
		paths := "/metrics\n"
		if !metricsOnly {
			paths += "/v1/status\n/v1/registrations\n/v1/reload\n"
		}
		respond(conn, "404 Not Found", "text/plain", []byte("what there is:\n"+paths), body)
		return
	}
	b, err := json.Marshal(document)
	if err != nil {
		respond(conn, "500 Internal Server Error", "text/plain", []byte(err.Error()+"\n"), body)
		return
	}
	respond(conn, "200 OK", "application/json", append(b, '\n'), body)
}

func respond(conn net.Conn, status, kind string, content []byte, body bool) {
	_ = conn.SetWriteDeadline(time.Now().Add(tellLimit))
	b := fmt.Appendf(nil, "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n", status, kind, len(content))
	if body {
		b = append(b, content...)
	}
	_, _ = conn.Write(b) // who asked has gone, or waits for too long
}

// maxDocument bounds what [Ask] reads, octets: some 200,000 registrations.
const maxDocument = 64 << 20

// Ask asks the daemon behind a socket, a path as /v1/status, and decodes the answer into document.
func Ask(ctx context.Context, socket, path string, document any) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path); err != nil {
		return err
	}
	b := bufio.NewReader(io.LimitReader(conn, maxDocument))
	r := textproto.NewReader(b)
	line, err := r.ReadLine()
	if err == nil {
		_, err = r.ReadMIMEHeader()
	}
	if err != nil {
		return fmt.Errorf("%s: no answer in HTTP: %w", socket, err)
	}
	if _, status, _ := strings.Cut(line, " "); !strings.HasPrefix(status, "200") {
		return fmt.Errorf("%s: %s: %q", socket, path, status)
	}
	if err := json.NewDecoder(b).Decode(document); err != nil {
		return fmt.Errorf("%s: %s: %w", socket, path, err)
	}
	return nil
}

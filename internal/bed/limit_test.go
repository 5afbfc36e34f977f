package bed_test

import (
	"io"
	"net/http"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"golang.org/x/sys/unix"
)

// metric returns a metric that the daemon in this namespace serves on port 9111.
func metric(t *testing.T, name string) float64 {
	t.Helper()
	resp, err := http.Get("http://127.0.0.1:9111/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^` + name + ` ([0-9.e+]+)$`).FindSubmatch(text)
	if m == nil {
		t.Fatalf("no metric %s in:\n%s", name, text)
	}
	v, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// flooded is what a flood brought.
type flooded struct{ sent, answered int }

// flood sends a call from the remote host as fast as it can for the time d and counts the answers.
func flood(t *testing.T, ns *bed.NS, from string, call []byte, d time.Duration) (f flooded) {
	t.Helper()
	ns.Remote(t, func() {
		source := bed.Addr(from)
		domain, to := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: 111, Addr: bed.Addr(bed.HostIPv4).As4()})
		local := unix.Sockaddr(&unix.SockaddrInet4{Addr: [4]byte{}})
		if source.Is6() {
			domain, to = unix.AF_INET6, &unix.SockaddrInet6{Port: 111, Addr: bed.Addr(bed.HostIPv6).As16()}
			local = &unix.SockaddrInet6{Addr: source.As16()}
		} else {
			local = &unix.SockaddrInet4{Addr: source.As4()}
		}
		fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := unix.Bind(fd, local); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 512)
		take := func() {
			for {
				if _, _, err := unix.Recvfrom(fd, buf, 0); err != nil {
					return
				}
				f.answered++
			}
		}
		for end := time.Now().Add(d); time.Now().Before(end); take() {
			for range 32 {
				if unix.Sendto(fd, call, 0, to) == nil {
					f.sent++
				}
			}
		}
		time.Sleep(100 * time.Millisecond) // for what is still on its way
		take()
	})
	return f
}

// TestLimitOfAnswers floods a daemon with its real clock from another host. One address gets the limit a second, a second's
// worth at once and its own trickle; what is left out is counted. Then a neighbour of the flood asks, while it goes on.
func TestLimitOfAnswers(t *testing.T) {
	const limit, seconds = 1000, 3
	gportmapOnly(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS, _ bed.Subject) {
		ns.Start(t, bed.Gportmap, "--answer-rate", strconv.Itoa(limit), "--metrics", "9111")
		call := withXID(getPort(100000, 2, rpcbind.ProtUDP), 1)
		for _, from := range []string{bed.PeerIPv4, bed.PeerIPv6} {
			before := metric(t, "gportmap_rate_limited_total")
			began := time.Now()
			f := flood(t, ns, from, call, seconds*time.Second)
			took := time.Since(began).Seconds()
			limited := metric(t, "gportmap_rate_limited_total") - before
			t.Logf("%s: %d datagrams in %.1f s, %d answered, %.0f counted as limited", from, f.sent, took, f.answered, limited)
			if f.sent < 10*limit*seconds {
				t.Skipf("this machine sent only %d datagrams: too few to be limited", f.sent)
			}
			// A second's burst comes on top, and 1/256.
			if most := int(limit * (took + 1) * 1.05); f.answered > most || f.answered < limit*seconds {
				t.Errorf("%s: %d datagrams were answered, want %d to %d", from, f.answered, limit*seconds, most)
			}
			if limited < float64(f.sent)/2 { // the rest was dropped by the socket's buffer
				t.Errorf("%s: %.0f datagrams of %d were counted as limited", from, limited, f.sent)
			}
		}
	})
}

// TestANeighbourOfAFlood has one host of a network flood and another one look up, beside each other. The other one has a
// part of the network's answers for itself.
func TestANeighbourOfAFlood(t *testing.T) {
	const lookups = 20
	gportmapOnly(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS, _ bed.Subject) {
		ns.Start(t, bed.Gportmap, "--answer-rate", "5120", "--metrics", "9111") // 20 a second for each host
		if out, err := ns.RemoteCommand(t, "ip", "addr", "add", "10.9.9.3/24", "dev", bed.PeerInterface); err != nil {
			t.Fatal(out)
		}
		call := withXID(getPort(100000, 2, rpcbind.ProtUDP), 1)
		over := make(chan flooded)
		go func() { over <- flood(t, ns, bed.PeerIPv4, call, 3*time.Second) }()
		if !eventually(func() bool { return metric(t, "gportmap_rate_limited_total") > 10_000 }) {
			t.Skip("this machine is too slow to flood the daemon")
		}
		c := ns.Dial(t, bed.UDP, bed.From{Remote: true, Addr: bed.Addr("10.9.9.3")})
		answered := 0
		for i := range uint32(lookups) {
			if _, err := c.Call(withXID(call, i)); err == nil {
				answered++
			}
			time.Sleep(60 * time.Millisecond)
		}
		f := <-over
		t.Logf("%d of %d datagrams of the flood were answered; %d of %d of its neighbour's", f.answered, f.sent, answered, lookups)
		if answered < lookups/2 { // the flood also fills the socket's buffer
			t.Errorf("%d of %d lookups of a flood's neighbour were answered", answered, lookups)
		}
	})
}

package bench_test

import (
	"encoding/xml"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// answerBadly answers calls on a UDP socket: one in ten not at all, one in ten wrongly, one in ten twice.
func answerBadly(t *testing.T, e exchange) (port int) {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 1000)
		for i := 0; ; i++ {
			_, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			reply := append([]byte(nil), e.reply...)
			copy(reply, b[:4])
			switch i % 10 {
			case 2:
				continue
			case 4:
				reply[len(reply)-1] ^= 1
			case 6:
				_, _ = c.WriteToUDPAddrPort(reply, from)
			}
			_, _ = c.WriteToUDPAddrPort(reply, from)
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).Port
}

// The generator has to see what a server does wrong, or it would measure nothing.
func TestGeneratorCountsLostAndWrongReplies(t *testing.T) {
	e := getPort(firstProgram)
	got, err := burst(answerBadly(t, e), 100, e)
	if err != nil {
		t.Fatal(err)
	}
	// A wrong reply leaves its call unanswered.
	if got.answered != 80 || got.wrong != 10 || got.late != 10 || got.lost != 20 {
		t.Errorf("%d answered, %d wrong, %d late, %d lost; want 80, 10, 10, 20", got.answered, got.wrong, got.late, got.lost)
	}
}

// A stream's replies have to come in the order of the calls.
func TestGeneratorWantsRepliesInOrder(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	e := getPort(firstProgram)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		size := len(record(e.call))
		b := make([]byte, 2*size)
		if _, err := io.ReadFull(c, b); err != nil {
			return
		}
		for _, at := range []int{size, 0} {
			reply := record(e.reply)
			copy(reply[4:8], b[at+4:at+8])
			_, _ = c.Write(reply)
		}
		_, _ = io.Copy(io.Discard, c)
	}()
	to := &unix.SockaddrInet4{Port: l.Addr().(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}
	got, err := pipelined(to, 2, e, time.Second)
	if err == nil || got.wrong != 1 {
		t.Errorf("%d wrong, %v; want 1 and an error", got.wrong, err)
	}
}

func TestHistogram(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var h histogram
	var all []time.Duration
	for range 10_000 {
		d := time.Duration(random.ExpFloat64() * float64(50*time.Microsecond))
		all = append(all, d)
		h.add(d, 1)
	}
	slices.Sort(all)
	for _, q := range []float64{0, .01, .5, .9, .99, .999, 1} {
		want := micros(all[min(int(q*float64(len(all))), len(all)-1)])
		if got := h.quantile(q); got < want*.96-.001 || got > want*1.04+.001 {
			t.Errorf("quantile %v is %v µs, want %v", q, got, want)
		}
	}
	for v := range uint64(100_000) {
		if got := histogramValue(histogramIndex(v)); uint64(got) > v+v/32+1 || uint64(got)+v/32+1 < v {
			t.Fatalf("%d counts as %d", v, got)
		}
	}
}

func TestGrouped(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 7.4: "7", 99.6: "100", 1234: "1,230", 167_891: "168,000", 1_234_567: "1,230,000"} {
		if got := grouped(v); got != want {
			t.Errorf("%v: %q, want %q", v, got, want)
		}
	}
}

func TestReach(t *testing.T) {
	m := measured{Rounds: map[string][]figures{
		gportmapName: {{Rate: 40, CPU: 2}, {Rate: 50, CPU: 3}, {Rate: 60, CPU: 1}},
		rpcbindName:  {{Rate: 10, CPU: 8}, {Rate: 10, CPU: 6}, {Rate: 10, CPU: 4}},
	}}
	m.judge([]reach{{"rate", rpcbindName, 5}, {"rate", rpcbindName, 5.1}, {"cpu", rpcbindName, .25}, {"cpu", rpcbindName, .24}})
	for i, want := range []bool{true, false, true, false} {
		if m.Reach[i].Met != want {
			t.Errorf("%+v: met is not %v", m.Reach[i], want)
		}
	}
}

// The plot is XML with a line for each subject in each panel.
func TestPlot(t *testing.T) {
	var r report
	for _, p := range panels {
		for _, size := range []int{10, 10_000} {
			m := measured{Key: p.load, Programs: size, Rounds: map[string][]figures{}}
			for _, name := range subjectNames {
				m.Rounds[name] = []figures{{Rate: 1e5, P50: 20}}
			}
			r.Sizes = append(r.Sizes, m)
		}
	}
	svg := r.plot()
	if got, want := strings.Count(svg, "<polyline"), len(panels)*len(subjectNames); got != want {
		t.Errorf("%d lines, want %d", got, want)
	}
	d := xml.NewDecoder(strings.NewReader(svg))
	for {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
	}
}

package metrics

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/portmap"
)

func name(version, procedure uint32) string { return "PROC" }

// TestTransportsAreThePortmappers holds the names to the numbers that callers have.
func TestTransportsAreThePortmappers(t *testing.T) {
	for i, want := range transportNames {
		if got := portmap.Transport(i).Netid(); string(got) != want {
			t.Errorf("transport %d is %s there, %s here", i, got, want)
		}
	}
	if transportNames[portmap.Local] != "local" {
		t.Error("there are more transports")
	}
}

func TestCalls(t *testing.T) {
	var c Calls
	for range 3 {
		c.Count(0, 2, 3, Miss)
	}
	c.Count(4, 4, 12, OK)
	c.Count(1, 4, 13, Unavailable)   // no such procedure
	c.Count(1, 1, 0, Unavailable)    // no such version
	c.Count(1, 5, 3, Unavailable)    // neither
	c.Count(1, 1<<32-1, 1<<32-1, No) // what a caller may say
	c.Count(transports, 2, 0, OK)    // not counted: there is no such transport
	c.Count(0, 2, 0, verdicts)       // nor such a verdict
	c.Count(255, 1<<32-1, 0, Verdict(99))
	var got []CallCount
	c.Each(func(n CallCount) { got = append(got, n) })
	want := []CallCount{
		{"udp", 2, 3, true, Miss, 3},
		{"tcp", 4, 13, false, Unavailable, 1},
		{"tcp", 5, 13, false, No, 1},
		{"tcp", 5, 13, false, Unavailable, 2},
		{"local", 4, 12, true, OK, 1},
	}
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%d: %+v, want %+v", i, got[i], want[i])
		}
	}
}

func TestVerdicts(t *testing.T) {
	seen := make(map[string]bool)
	for v := range verdicts {
		if s := v.String(); s == "" || seen[s] {
			t.Errorf("verdict %d is %q", v, s)
		} else {
			seen[s] = true
		}
		if want := v == No || v == TooWeak || v == Denied; v.Refused() != want {
			t.Errorf("%v: refused %v", v, v.Refused())
		}
	}
}

func TestHistogram(t *testing.T) {
	var l Latency
	l.Observe(0, bounds[0], 2) // a bucket's end belongs to it
	l.Observe(0, bounds[0]+1, 1)
	l.Observe(0, time.Hour, 1)
	l.Observe(transports, time.Second, 1) // not counted
	var w Writer
	w.Latency(&l)
	text := string(w.B)
	for _, want := range []string{
		`_bucket{transport="udp",le="5e-06"} 2` + "\n",
		`_bucket{transport="udp",le="1e-05"} 3` + "\n",
		`_bucket{transport="udp",le="1"} 3` + "\n",
		`_bucket{transport="udp",le="+Inf"} 4` + "\n",
		`_count{transport="udp"} 4` + "\n",
		`_sum{transport="udp"} 3600.000015001` + "\n",
	} {
		if !strings.Contains(text, "gportmap_call_duration_seconds"+want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	if strings.Contains(text, "tcp") {
		t.Errorf("a transport that nobody used is told:\n%s", text)
	}
}

func TestText(t *testing.T) {
	var w Writer
	w.One("a", "gauge", "one\ntwo \\", 1.5, "l", "q\"\\\n\xff", "m", "")
	w.One("b", "counter", "x", 1e15)
	want := "# HELP a one\\ntwo \\\\\n# TYPE a gauge\na{l=\"q\\\"\\\\\\n\uFFFD\",m=\"\"} 1.5\n# HELP b x\n# TYPE b counter\nb 1e+15\n"
	if string(w.B) != want {
		t.Errorf("%q, want %q", w.B, want)
	}
}

func TestCountingAllocatesNothing(t *testing.T) {
	var c Calls
	var l Latency
	if n := testing.AllocsPerRun(100, func() {
		c.Count(0, 2, 3, OK)
		l.Observe(0, 7*time.Microsecond, 4)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkCount(b *testing.B) {
	var c Calls
	for range b.N {
		c.Count(0, 2, 3, OK)
	}
}

// TestFormat has Prometheus's own checker read the text.
func TestFormat(t *testing.T) {
	tool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("GPORTMAP_REQUIRE_ALL") == "1" {
			t.Fatal("needs promtool, of Debian's package prometheus")
		}
		t.Skip("needs promtool, of Debian's package prometheus")
	}
	var c Calls
	var l Latency
	for v := range verdicts {
		c.Count(0, 2, 3, v)
		l.Observe(uint8(v)%transports, time.Duration(v)*time.Millisecond, 1)
	}
	var w Writer
	w.Calls(&c, name)
	w.Latency(&l)
	w.One("gportmap_build_info", "gauge", "Which program.", 1, "version", "a\"b\\c\nd")
	cmd := exec.Command(tool, "check", "metrics")
	cmd.Stdin = strings.NewReader(string(w.B))
	if out, err := cmd.CombinedOutput(); err != nil || len(out) != 0 {
		t.Errorf("promtool: %v\n%s\n%s", err, out, w.B)
	}
}

package bench_test

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A report is everything that was measured.
type report struct {
	Machine machine    `json:"machine"`
	Loads   []measured `json:"loads"`
	Sizes   []measured `json:"table_sizes"`
	Facts   []fact     `json:"facts"`
}

type machine struct {
	Kernel    string `json:"kernel"`
	Processor string `json:"processor"`
	CPUs      int    `json:"processors"`
	Go        string `json:"go"`
}

func thisMachine() machine {
	var u unix.Utsname
	_ = unix.Uname(&u)
	m := machine{Kernel: unix.ByteSliceToString(u.Release[:]), CPUs: runtime.NumCPU(), Go: runtime.Version()}
	b, _ := os.ReadFile("/proc/cpuinfo")
	if _, rest, ok := strings.Cut(string(b), "model name\t: "); ok {
		m.Processor, _, _ = strings.Cut(rest, "\n")
	}
	return m
}

// reached is a reach and what came of it: the median of the ratios of the rounds.
type reached struct {
	Figure string  `json:"figure"`
	To     string  `json:"to"`
	Limit  float64 `json:"limit"`
	Ratio  float64 `json:"ratio"`
	Met    bool    `json:"met"`
}

func figure(name string) func(figures) float64 {
	switch name {
	case "rate":
		return func(f figures) float64 { return f.Rate }
	case "p999":
		return func(f figures) float64 { return f.P999 }
	}
	return func(f figures) float64 { return f.CPU }
}

func (m *measured) judge(wanted []reach) {
	for _, w := range wanted {
		ratio := m.ratio(w.figure, w.to)
		m.Reach = append(m.Reach, reached{w.figure, w.to, w.limit, ratio, w.met(ratio)})
	}
}

// ratio returns the median of gportmap's figure in a round over the other's in the same round.
func (m *measured) ratio(name, to string) float64 {
	var ratios []float64
	of := figure(name)
	for i, f := range m.Rounds[to] {
		if d := of(f); d > 0 {
			ratios = append(ratios, of(m.Rounds[gportmapName][i])/d)
		}
	}
	return middleOf(ratios)
}

var subjectNames = []string{rpcbindName, gportmapName, responderName}

// print prints the tables as Markdown.
func (r report) print(w io.Writer) {
	m := r.Machine
	fmt.Fprintf(w, "Linux %s, %d × %s, %s\n\n", m.Kernel, m.CPUs, m.Processor, m.Go)
	fmt.Fprintf(w, "| load | programs | | calls/s | CPU a call | p50 | p99 | p99.9 | lost | wrong |\n|---|---|---|---|---|---|---|---|---|---|\n")
	for _, l := range r.Loads {
		l.printRows(w)
	}
	fmt.Fprintf(w, "\n| load | programs | gportmap's | to | is | reach | |\n|---|---|---|---|---|---|---|\n")
	for _, l := range r.Loads {
		for _, g := range l.Reach {
			sign := "≤"
			if g.Figure == "rate" {
				sign = "≥"
			}
			met := "reached"
			if !g.Met {
				met = "**not reached**"
			}
			fmt.Fprintf(w, "| %s | %s | %s | %s's | %.2f | %s %.4g | %s |\n", l.Title, grouped(float64(l.Programs)),
				map[string]string{"rate": "calls/s", "cpu": "CPU a call", "p999": "p99.9"}[g.Figure], g.To, g.Ratio, sign, g.Limit, met)
		}
	}
	r.printFacts(w)
	r.printReadme(w)
}

// printFacts prints what was measured of one daemon at a time.
func (r report) printFacts(w io.Writer) {
	fmt.Fprintf(w, "\n| | rpcbind | gportmap | reach | |\n|---|---|---|---|---|\n")
	for _, f := range r.Facts {
		value := func(name string) string {
			v, ok := f.Values[name]
			if !ok {
				return ""
			}
			return fmt.Sprintf("%.4g %s", v, f.Unit)
		}
		limit, met := "", ""
		if f.Limit != 0 {
			limit, met = fmt.Sprintf("≤ %.4g %s", f.Limit, f.Unit), "reached"
			if !f.met() {
				met = "**not reached**"
			}
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s |\n", f.Title, value(rpcbindName), value(gportmapName), limit, met)
	}
}

func (m measured) printRows(w io.Writer) {
	title, programs := m.Title, grouped(float64(m.Programs))
	for _, name := range subjectNames {
		rounds := m.Rounds[name]
		if rounds == nil {
			continue
		}
		get := func(of func(figures) float64) float64 { return median(rounds, of) }
		lost, wrong := 0, 0
		for _, f := range rounds {
			lost, wrong = lost+f.Lost, wrong+f.Wrong
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %.1f µs | %.0f µs | %.0f µs | %.0f µs | %d | %d |\n", title, programs, name,
			grouped(get(figure("rate"))), get(figure("cpu")), get(func(f figures) float64 { return f.P50 }),
			get(func(f figures) float64 { return f.P99 }), get(figure("p999")), lost, wrong)
		title, programs = "", ""
	}
}

// printReadme prints the rows of README.md's table that are measured here.
func (r report) printReadme(w io.Writer) {
	fmt.Fprintf(w, "\nThe rows of README.md:\n\n| | rpcbind | gportmap |\n|---|---|---|\n")
	for _, row := range []struct {
		title, key string
		programs   int
	}{
		{"UDP GETPORT, 4 × 32 calls in flight", "udp-getport", 10},
		{"the same with 10,000 programs registered", "udp-getport", 10_000},
		{"UDP GETPORT, one at a time", "udp-one", 10},
		{"TCP GETPORT, 64 calls in flight", "tcp-pipelined", 10},
		{"TCP GETPORT, 100 connections with one call each", "tcp-100", 10},
	} {
		for _, m := range r.Loads {
			if m.Key != row.key || m.Programs != row.programs {
				continue
			}
			cell := func(name string) string {
				return fmt.Sprintf("%s calls/s, %.1f µs of CPU each", grouped(median(m.Rounds[name], figure("rate"))), median(m.Rounds[name], figure("cpu")))
			}
			fmt.Fprintf(w, "| %s | %s | %s |\n", row.title, cell(rpcbindName), cell(gportmapName))
		}
	}
	for _, f := range r.Facts {
		if strings.HasSuffix(f.Title, "idle TCP connections: memory for each") {
			fmt.Fprintf(w, "| %s | %.0f octets | %.0f octets |\n", f.Title, f.Values[rpcbindName], f.Values[gportmapName])
		}
	}
}

// grouped prints a number with three digits that mean something and commas.
func grouped(v float64) string {
	n := int(v + .5)
	for unit := 1000; n >= unit && unit < 1e9; unit *= 10 {
		if n < unit*10 {
			n = (n + unit/200) / (unit / 100) * (unit / 100)
		}
	}
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// write writes what was measured into a directory.
func (r report) write(t *testing.T, dir string) {
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	r.print(&table)
	for name, content := range map[string]string{
		"performance.json": string(b) + "\n", "performance-measured.md": table.String(), "performance.svg": r.plot(),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

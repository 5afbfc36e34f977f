package metrics

import (
	"strconv"
	"strings"
)

// ContentType is the media type of what a Writer writes.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// A Writer writes metrics in Prometheus's text format, version 0.0.4. The zero value is ready; B is the text.
type Writer struct{ B []byte }

// Family begins a metric: the lines that say what it is. Its samples have to follow at once.
func (w *Writer) Family(name, kind, help string) {
	w.add("# HELP ", name, " ", strings.NewReplacer(`\`, `\\`, "\n", `\n`).Replace(help), "\n# TYPE ", name, " ", kind, "\n")
}

// Sample writes a sample with its labels, names and values in turn.
func (w *Writer) Sample(name string, value float64, labels ...string) {
	w.add(name)
	for i := 0; i+1 < len(labels); i += 2 {
		w.add([]string{",", "{"}[b2i(i == 0)], labels[i], `="`, escape(labels[i+1]), `"`)
	}
	if len(labels) > 1 {
		w.add("}")
	}
	w.add(" ", strconv.FormatFloat(value, 'g', -1, 64), "\n")
}

// One writes a metric that has one sample.
func (w *Writer) One(name, kind, help string, value float64, labels ...string) {
	w.Family(name, kind, help)
	w.Sample(name, value, labels...)
}

// Calls writes the counters that aren't 0; name tells a procedure's.
func (w *Writer) Calls(c *Calls, procedure func(version, procedure uint32) string) {
	const name = "gportmap_calls_total"
	w.Family(name, "counter", "Calls by version, procedure, transport and what became of them.")
	c.Each(func(n CallCount) {
		version, proc := "other", "other"
		if n.Known {
			version, proc = strconv.FormatUint(uint64(n.Version), 10), procedure(n.Version, n.Procedure)
		}
		w.Sample(name, float64(n.Count), "version", version, "procedure", proc, "transport", n.Transport, "verdict", n.Verdict.String())
	})
}

// Latency writes a histogram for each transport that was called.
func (w *Writer) Latency(l *Latency) {
	const name = "gportmap_call_duration_seconds"
	w.Family(name, "histogram", "Time from when calls were read to when their replies were handed to the kernel.")
	for t := range l {
		h := &l[t]
		counts := make([]uint64, len(h.buckets))
		total := uint64(0)
		for i := range counts {
			counts[i] = h.buckets[i].Load()
			total += counts[i]
		}
		if total == 0 {
			continue
		}
		sum := uint64(0)
		for i, n := range counts {
			sum += n
			le := "+Inf"
			if i < len(bounds) {
				le = strconv.FormatFloat(bounds[i].Seconds(), 'g', -1, 64)
			}
			w.Sample(name+"_bucket", float64(sum), "transport", transportNames[t], "le", le)
		}
		w.Sample(name+"_sum", float64(h.sum.Load())/1e9, "transport", transportNames[t])
		w.Sample(name+"_count", float64(total), "transport", transportNames[t])
	}
}

func (w *Writer) add(parts ...string) {
	for _, p := range parts {
		w.B = append(w.B, p...)
	}
}

// escape writes a label's value: octets that aren't UTF-8 would make Prometheus refuse everything.
func escape(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(strings.ToValidUTF8(s, "\uFFFD"))
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

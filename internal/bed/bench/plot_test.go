package bench_test

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// A panel is one diagram of the plot, over the number of programs; both axes are logarithmic.
type panel struct {
	title, unit string
	load        string // key of the load
	of          func(figures) float64
	low, high   float64 // of the upright axis
}

var panels = []panel{
	{"calls a second, 4 sockets × 32 in flight", "calls/s", "udp-getport", figure("rate"), 1e4, 1e6},
	{"latency of a call alone, median", "µs", "udp-one", func(f figures) float64 { return f.P50 }, 4, 400},
}

// Sizes in pixels.
const (
	panelWidth, panelHeight   = 460.0, 320.0
	plotLeft, plotTop         = 70.0, 50.0
	plotWidth, plotHeight     = 280.0, 210.0
	smallestTable, largestOne = 10.0, 10_000.0
)

var colors = map[string]string{rpcbindName: "#b3541e", gportmapName: "#0b6e4f", responderName: "#6c757d"}

// plot draws the panels side by side as SVG.
func (r report) plot() string {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%.0f" font-family="sans-serif" font-size="12">`+"\n",
		panelWidth*float64(len(panels)), panelHeight)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="white"/>`+"\n")
	for i, p := range panels {
		fmt.Fprintf(&b, `<g transform="translate(%.0f,0)">`+"\n", panelWidth*float64(i))
		p.axes(&b)
		for _, name := range subjectNames {
			p.line(&b, name, r.Sizes)
		}
		b.WriteString("</g>\n")
	}
	fmt.Fprintf(&b, `<text x="10" y="%.0f" fill="#6c757d">UDP GETPORT over loopback, Linux %s, %s</text>`+"\n</svg>\n",
		panelHeight-8, html.EscapeString(r.Machine.Kernel), html.EscapeString(r.Machine.Processor))
	return b.String()
}

func logarithmic(v, low, high float64) float64 {
	return (math.Log(v) - math.Log(low)) / (math.Log(high) - math.Log(low))
}

func (p panel) x(programs float64) float64 {
	return plotLeft + plotWidth*logarithmic(programs, smallestTable, largestOne)
}

func (p panel) y(v float64) float64 {
	return plotTop + plotHeight*(1-logarithmic(min(max(v, p.low), p.high), p.low, p.high))
}

func (p panel) axes(b *strings.Builder) {
	fmt.Fprintf(b, `<text x="%.0f" y="24" font-weight="bold">%s</text>`+"\n", plotLeft, html.EscapeString(p.title))
	fmt.Fprintf(b, `<text x="%.0f" y="42" text-anchor="end">%s</text>`+"\n", plotLeft-8, p.unit)
	for v := p.low; v <= p.high; v *= 10 {
		for _, m := range []float64{1, 2, 5} {
			if v*m > p.high {
				break
			}
			y := p.y(v * m)
			fmt.Fprintf(b, `<path d="M%.1f %.1fh%.1f" stroke="#dddddd"/>`, plotLeft, y, plotWidth)
			fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="end">%s</text>`+"\n", plotLeft-8, y+4, grouped(v*m))
		}
	}
	for v := smallestTable; v <= largestOne; v *= 10 {
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="middle">%s</text>`+"\n", p.x(v), plotTop+plotHeight+18, grouped(v))
	}
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="middle">programs registered</text>`+"\n", plotLeft+plotWidth/2, plotTop+plotHeight+36)
}

func (p panel) line(b *strings.Builder, name string, sizes []measured) {
	var points []string
	var last float64
	for _, m := range sizes {
		if rounds := m.Rounds[name]; m.Key == p.load && rounds != nil {
			last = median(rounds, p.of)
			points = append(points, fmt.Sprintf("%.1f,%.1f", p.x(float64(m.Programs)), p.y(last)))
		}
	}
	if points == nil {
		return
	}
	fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`, strings.Join(points, " "), colors[name])
	at := strings.Split(points[len(points)-1], ",")
	y := p.y(last) + 4
	if name == responderName { // beside gportmap's line, or nearly
		y -= 12
	}
	fmt.Fprintf(b, `<text x="%s" y="%.1f" dx="6" fill="%s">%s</text>`+"\n", at[0], y, colors[name], name)
}

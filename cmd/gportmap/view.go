package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gportmap/gportmap/internal/admin"
	"github.com/gportmap/gportmap/internal/daemon/logging"
)

// A view makes lines of what a daemon told twice.
type view struct {
	last, now     admin.Status
	width, height int // height 0: as many lines as there is to show
	colour, keys  bool
	paused        bool
}

// Styles of a line (ECMA-48 SGR).
const (
	plain  = ""
	bold   = "1"
	header = "7"
	warn   = "33"
)

// Lines of a section that are shown in any case, if the screen has room for one line of each.
const leastLines = 3

// lines returns the view, no line wider than the screen and no more lines than it has.
func (v view) lines() []string {
	sections := [][]string{v.calls(), v.events("LATEST CHANGES", v.now.Changes, false), v.events("REFUSED", v.now.Refused, true), v.clients()}
	out := v.head()
	room := v.height - len(out)
	for i, s := range sections {
		if v.height > 0 {
			// What the sections before didn't need is for this one, but for what those after it need at least.
			need := 0
			for _, later := range sections[i+1:] {
				need += min(len(later), leastLines)
			}
			s = s[:min(len(s), max(room-need, min(leastLines, max(room, 0))))]
			room -= len(s)
		}
		out = append(out, s...)
	}
	if v.height > 0 && len(out) > v.height {
		out = out[:v.height]
	}
	return out
}

// head says who is shown and how it is.
func (v view) head() []string {
	s := v.now
	state := ""
	if v.paused {
		state = "PAUSED  "
	}
	title := fmt.Sprintf("gportmap %s  pid %d  up %s  %.1f MiB", s.Version, s.PID, duration(s.Now.Sub(s.Started)), float64(s.MemoryBytes)/(1<<20))
	style := plain
	text := health(s)
	if !strings.HasPrefix(text, "well") {
		style = warn
	}
	lines := []string{
		v.line(bold, v.justify(title, state+s.Now.Format(time.TimeOnly))),
		v.line(style, "health: "+text),
		v.line(plain, fmt.Sprintf("registrations: %d alive, %d dead, %d unknown   connections: %d TCP, %d local, %d ever   writes: %d",
			s.Registrations.Alive, s.Registrations.Dead, s.Registrations.Unknown, s.Connections.TCP, s.Connections.Local,
			s.Connections.Opened, s.State.Writes)),
	}
	if v.keys {
		lines = append(lines, v.line(plain, "q ends, space pauses"))
	}
	return lines
}

// called are the calls of one procedure.
type called struct {
	name          string
	total         uint64
	rate          float64
	verdict, seen []string // with its rate, or its total while nothing comes
}

// calls shows calls per second by procedure, the busiest first.
func (v view) calls() []string {
	seconds := v.now.Now.Sub(v.last.Now).Seconds()
	before := make(map[admin.CallCount]uint64)
	for _, c := range v.last.Calls {
		n := c.Count
		c.Count = 0
		before[c] = n
	}
	var all []*called
	for _, c := range v.now.Calls {
		n := c.Count
		c.Count = 0
		rate := 0.0
		if seconds > 0 {
			rate = float64(n-before[c]) / seconds
		}
		name := "other"
		if c.Procedure != "other" {
			name = c.Procedure + " v" + c.Version
		}
		i := slices.IndexFunc(all, func(x *called) bool { return x.name == name })
		if i < 0 {
			i = len(all)
			all = append(all, &called{name: name})
		}
		all[i].total += n
		all[i].rate += rate
		what := c.Transport + " " + c.Verdict
		if rate > 0 {
			all[i].verdict = append(all[i].verdict, fmt.Sprintf("%s %.1f/s", what, rate))
		}
		all[i].seen = append(all[i].seen, fmt.Sprintf("%s %d", what, n))
	}
	slices.SortStableFunc(all, func(a, b *called) int { return cmp.Or(cmp.Compare(b.rate, a.rate), cmp.Compare(b.total, a.total)) })
	lines := []string{v.line(header, v.justify(fmt.Sprintf("%10s %12s  %-15s %s", "CALLS/S", "TOTAL", "PROCEDURE", "BY TRANSPORT AND VERDICT"), ""))}
	for _, c := range all {
		detail := c.verdict
		if detail == nil {
			detail = c.seen
		}
		lines = append(lines, v.line(plain, fmt.Sprintf("%10.1f %12d  %-15s %s", c.rate, c.total, c.name, strings.Join(detail, "  "))))
	}
	return lines
}

// events shows what was changed or refused, the last first.
func (v view) events(title string, all []admin.Event, refused bool) []string {
	if len(all) == 0 {
		return nil
	}
	lines := []string{v.line(header, v.justify(title, ""))}
	for _, e := range all {
		lines = append(lines, v.line(plain, e.At.Format(time.TimeOnly)+" "+eventText(e, refused)))
	}
	return lines
}

// eventText tells of an event in one line, as in "SET v3 100003 4 tcp 0.0.0.0.8.1 by uid 0".
func eventText(e admin.Event, refused bool) string {
	text := "call"
	if e.Procedure != "" {
		text = fmt.Sprintf("%s v%d", e.Procedure, e.RPCBVersion)
	}
	if e.Program != 0 {
		text += fmt.Sprintf(" %d %d %s", e.Program, e.Version, e.Netid)
		switch {
		case e.Address != "":
			text += " " + e.Address
		case e.Port != 0:
			text += " port " + strconv.FormatUint(uint64(e.Port), 10)
		}
	}
	text = strings.TrimSpace(text) + " by " + e.Peer
	if refused {
		text += ": " + e.Verdict
	}
	return text
}

// clients shows who called lately.
func (v view) clients() []string {
	if len(v.now.Clients) == 0 {
		return nil
	}
	lines := []string{v.line(header, v.justify(fmt.Sprintf("%-40s %12s %10s %10s", "CLIENTS", "CALLS", "REFUSED", "AGO"), ""))}
	for _, c := range v.now.Clients {
		lines = append(lines, v.line(plain, fmt.Sprintf("%-40s %12d %10d %10s", c.Peer, c.Calls, c.Refused, duration(v.now.Now.Sub(c.Last)))))
	}
	return lines
}

// justify puts right at the right end of the line, and cuts left for it.
func (v view) justify(left, right string) string {
	room := max(0, v.width-1-utf8.RuneCountInString(right))
	if utf8.RuneCountInString(left) > room && right != "" {
		left = string([]rune(left)[:room])
	}
	return left + strings.Repeat(" ", max(1, v.width-utf8.RuneCountInString(left)-utf8.RuneCountInString(right))) + right
}

// line cuts a line to the screen. It may hold what callers chose, so only printable characters pass.
func (v view) line(style, text string) string {
	text = logging.Escape(text)
	if utf8.RuneCountInString(text) > v.width {
		text = string([]rune(text)[:v.width])
	}
	if text = strings.TrimRight(text, " "); !v.colour || style == plain {
		return text
	}
	if style == header { // the whole width
		text += strings.Repeat(" ", max(0, v.width-utf8.RuneCountInString(text)))
	}
	return "\x1b[" + style + "m" + text + "\x1b[0m"
}

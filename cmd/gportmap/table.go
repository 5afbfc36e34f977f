package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gportmap/gportmap/internal/admin"
	"github.com/gportmap/gportmap/internal/daemon/logging"
)

// health tells in one line whether all is well, and what isn't.
func health(s admin.Status) string {
	var wrong []string
	if s.State.Error != "" {
		wrong = append(wrong, "registrations are not on disk and would be lost in a crash: "+s.State.Error)
	}
	if n := s.Registrations.Dead; n > 0 {
		wrong = append(wrong, fmt.Sprintf("%s whose server is gone", count(n, "registration")))
	}
	text := strings.Join(wrong, "; ")
	if wrong == nil {
		text = fmt.Sprintf("well, %s, up %s", count(s.Registrations.Total(), "registration"), duration(s.Now.Sub(s.Started)))
	}
	if s.RateLimited > 0 { // since the start, so it is no trouble of now
		text += fmt.Sprintf("; %d datagrams over the limit of a network were not answered so far", s.RateLimited)
	}
	return text
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// duration tells how long something lasted in its two largest units, as in "3d4h", "12m5s".
func duration(d time.Duration) string {
	d = max(d, 0).Truncate(time.Second)
	days, rest := d/(24*time.Hour), d%(24*time.Hour)
	hours, minutes, seconds := rest/time.Hour, rest%time.Hour/time.Minute, rest%time.Minute/time.Second
	switch {
	case days > 0:
		return fmt.Sprintf("%dd%dh", days, hours)
	case hours > 0:
		return fmt.Sprintf("%dh%dm", hours, minutes)
	case minutes > 0:
		return fmt.Sprintf("%dm%ds", minutes, seconds)
	}
	return fmt.Sprintf("%ds", seconds)
}

// row is a registration as it is shown, with every version that differs in nothing else.
type row struct {
	admin.Registration
	versions []int
	cells    []string
}

// table shows the registrations of others than the portmapper, empty if there are none.
func table(all []admin.Registration, now time.Time) string {
	var rows []*row
	for _, g := range all {
		if g.Own {
			continue
		}
		r := &row{Registration: g, cells: cells(g, now)}
		if i := slices.IndexFunc(rows, r.like); i >= 0 {
			r = rows[i]
		} else {
			rows = append(rows, r)
		}
		r.versions = append(r.versions, int(g.Version))
	}
	if rows == nil {
		return ""
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nprogram\tservice\tvers\tnetid\tport\towner\tserver\tunit\tage\tstate")
	for _, r := range rows {
		slices.Sort(r.versions)
		versions := strings.ReplaceAll(strings.Trim(fmt.Sprint(r.versions), "[]"), " ", ",")
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\n", r.Program, service(r.Program), versions, strings.Join(r.cells, "\t"))
	}
	w.Flush()
	return b.String()
}

// like tells whether other differs from r in the version alone.
func (r *row) like(other *row) bool {
	return r.Program == other.Program && slices.Equal(r.cells, other.cells)
}

// cells are what is shown beside program and version. What registrants chose is escaped.
func cells(g admin.Registration, now time.Time) []string {
	port, server, unit, age := "-", "-", "-", "restored"
	if g.Port != 0 {
		port = strconv.Itoa(int(g.Port))
	}
	if p := g.Server; p != nil {
		server, unit = p.Command, p.Unit
		if p.PID != 0 {
			server += "/" + strconv.Itoa(p.PID)
		}
		if unit == "" {
			unit = "-"
		}
	}
	if g.Static {
		age = "-"
	} else if !g.Since.IsZero() {
		age = duration(now.Sub(g.Since))
	}
	all := []string{g.Netid, port, g.Owner, server, unit, age, g.State}
	for i, s := range all {
		all[i] = logging.Escape(s)
	}
	return all
}

package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// inShort are the registrations of a host with a line for each program.
type inShort struct {
	host string
	list []rpcbind.RPCB
}

// programLine is what is registered of a program, with the owner of its first registration.
type programLine struct {
	program  uint32
	versions []uint32
	netids   []string
	owner    string
}

// lines returns the programs in the order of their first registrations, each with its versions and netids, the last ones
// first.
func (s inShort) lines() []*programLine {
	var lines []*programLine
	of := make(map[uint32]*programLine)
	type part struct {
		program uint32
		text    string
	}
	seen := make(map[part]bool) // a server may send 100,000 versions of a program
	isNew := func(p part) bool {
		was := seen[p]
		seen[p] = true
		return !was
	}
	for _, r := range s.list {
		l, ok := of[r.Program]
		if !ok {
			l = &programLine{program: r.Program, owner: r.Owner}
			of[r.Program] = l
			lines = append(lines, l)
		}
		if isNew(part{r.Program, "version " + strconv.FormatUint(uint64(r.Version), 10)}) {
			l.versions = append(l.versions, r.Version)
		}
		if isNew(part{r.Program, "netid " + string(r.Netid)}) {
			l.netids = append(l.netids, string(r.Netid))
		}
	}
	for _, l := range lines {
		slices.Reverse(l.versions)
		slices.Reverse(l.netids)
	}
	return lines
}

func (s inShort) text(n names) string {
	if len(s.list) == 0 {
		return noPrograms
	}
	var b strings.Builder
	b.WriteString("   program version(s) netid(s)                         service     owner\n")
	for _, l := range s.lines() {
		var versions []string
		for _, v := range l.versions {
			versions = append(versions, fmt.Sprint(signed(v)))
		}
		fmt.Fprintf(&b, "%10d  %s%s %s %s\n", l.program, left(strings.Join(versions, ","), 10),
			left(printable(strings.Join(l.netids, ",")), 32), left(n.of(l.program, "-"), 11), printable(l.owner))
	}
	return b.String()
}

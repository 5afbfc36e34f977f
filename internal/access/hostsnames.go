package access

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
)

// byName reads a pattern of names, or KNOWN, UNKNOWN, PARANOID or LOCAL. The library goes by the name that a name service has
// for the address, if that name has the address as well. /etc/hosts tells it for the addresses that it has; of the others it
// tells that they have none of its own names.
func (p *hostsParser) byName(tok string, closes bool) hostPattern {
	p.usedNames = true
	h := hostPattern{kind: byName, named: make(map[netip.Addr]match, len(p.names)), others: unsure}
	keyword := slices.Contains([]string{"KNOWN", "UNKNOWN", "PARANOID", "LOCAL"}, strings.ToUpper(tok))
	exact := !keyword && !strings.ContainsAny(tok, "*?") && tok[0] != '.' && tok[len(tok)-1] != '.'
	for a, n := range p.names {
		alias := !keyword && slices.ContainsFunc(n.aliases, func(s string) bool { return matchText(tok, s) })
		if exact && (strings.EqualFold(tok, n.name) || alias) {
			h.others = no
		}
		switch {
		case !n.sure:
			h.named[a] = unsure
		case matchesName(tok, n.name):
			h.named[a] = yes
		case alias:
			h.named[a] = unsure
		default:
			h.named[a] = no
		}
	}
	if h.others == unsure {
		p.warn("%s needs a name service, of which gportmap knows %s alone: where that says nothing the line %s", tok, HostsPath, counts(closes))
	}
	return h
}

// matchesName tells whether a pattern matches the name of a host that has a name.
func matchesName(tok, name string) bool {
	switch strings.ToUpper(tok) {
	case "UNKNOWN", "PARANOID":
		return false
	case "LOCAL":
		return !strings.Contains(name, ".")
	}
	return matchText(tok, name)
}

// names are what is known of the names of addresses.
type names map[netip.Addr]*hostName

// hostName is the name of an address. Aliases are its other names, which the library doesn't look at. Sure says that the
// name means no other host.
type hostName struct {
	name    string
	aliases []string
	sure    bool
}

// readNames reads hosts(5).
func readNames(read func(path string) ([]byte, error), path string) names {
	known := make(names)
	b, err := read(path)
	if err != nil {
		return known
	}
	hosts := make(map[string][]netip.Addr) // by name in lower case
	for line := range bytes.Lines(b) {
		line, _, _ = bytes.Cut(line, []byte("#"))
		f := strings.Fields(string(line))
		if len(f) < 2 {
			continue
		}
		a, err := netip.ParseAddr(f[0])
		if err != nil {
			continue
		}
		a = a.Unmap()
		for _, n := range f[1:] {
			hosts[strings.ToLower(n)] = append(hosts[strings.ToLower(n)], a)
		}
		if n := known[a]; n != nil {
			n.aliases = append(n.aliases, f[1:]...)
			continue
		}
		known[a] = &hostName{name: f[1], aliases: f[2:]}
	}
	for a, n := range known {
		n.sure = !slices.ContainsFunc(hosts[strings.ToLower(n.name)], func(other netip.Addr) bool {
			return other != a && !(other.IsLoopback() && a.IsLoopback())
		})
	}
	return known
}

// matchText is the library's comparison of a pattern with a name: ".end", "begin.", with * and ?, or as a whole.
func matchText(pattern, name string) bool {
	pattern, name = strings.ToLower(pattern), strings.ToLower(name)
	switch {
	case strings.ContainsAny(pattern, "*?"):
		return matchWild([]byte(pattern), []byte(name))
	case strings.HasPrefix(pattern, "."):
		return len(name) > len(pattern) && strings.HasSuffix(name, pattern)
	case pattern == "all", pattern == "known":
		return true
	case strings.HasSuffix(pattern, "."):
		return strings.HasPrefix(name, pattern)
	}
	return pattern == name
}

// matchWild matches * and ?, in time that grows with the product of the lengths at most.
func matchWild(pattern, s []byte) bool {
	star, mark, i, j := -1, 0, 0, 0
	for j < len(s) {
		switch {
		case i < len(pattern) && (pattern[i] == '?' || pattern[i] == s[j]) && pattern[i] != '*':
			i++
			j++
		case i < len(pattern) && pattern[i] == '*':
			star, mark = i, j
			i++
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	for i < len(pattern) && pattern[i] == '*' {
		i++
	}
	return i == len(pattern)
}

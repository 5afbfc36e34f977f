package access

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
)

// The files of the tcpd library (hosts_access(5)), which rpcbind obeys.
const (
	HostsAllowPath = "/etc/hosts.allow"
	HostsDenyPath  = "/etc/hosts.deny"
	HostsPath      = "/etc/hosts" // tells the names that we know without a name service
)

// maxHostsLine is the longest line in octets that the library reads.
const maxHostsLine = 2046

// daemonNames are the names by which the files may speak of us.
// The first is the one by which rpcbind asks.
var daemonNames = []string{"rpcbind", "portmap", "gportmap"}

// HostsAccess is what hosts.allow and hosts.deny say of us. It doesn't change.
//
// Names of callers are never looked up, because name services may need the portmapper; /etc/hosts is all that is known
// of them. A line that can't be judged without opens nothing: in hosts.allow it counts as not matching, in hosts.deny as
// matching.
type HostsAccess struct {
	allow, deny []hostsLine
	warnings    []string
	files       []string // that were read, there or not
	texts       []string // of those that were there
}

// hostsLine is a line of one of the files that may speak of us.
type hostsLine struct {
	file    string
	number  int
	text    string
	deny    bool // which of the files it is in
	clients hostsList
	server  []hostsList // of daemon@host: what the address that was called has to match, one of them; none: any address
	permits bool        // the verdict if it matches
}

// ReadHostsAccess reads both files; a file that isn't there is empty. Names that stand in the hosts file are known. An
// error is about a file that is there and can't be read: then nobody can say who is to be let in.
func ReadHostsAccess(read func(path string) ([]byte, error), allow, deny, hosts string) (*HostsAccess, error) {
	h := &HostsAccess{files: []string{allow, deny}}
	p := hostsParser{out: h, read: func(path string) ([]byte, error) {
		b, err := read(path)
		h.texts = append(h.texts, path, string(b))
		return b, err
	}}
	for _, file := range []struct {
		path string
		deny bool
	}{{allow, false}, {deny, true}} {
		text, err := p.read(file.path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return nil, fmt.Errorf("access list: %w", err)
		}
		if p.names == nil {
			p.names = readNames(p.read, hosts)
		}
		lines := p.lines(file.path, string(text), file.deny)
		if file.deny {
			h.deny = lines
		} else {
			h.allow = lines
		}
	}
	if p.usedNames {
		h.files = append(h.files, hosts)
	}
	return h, nil
}

// Warnings tells, a line each, what in the files is not honoured as the library would, and why.
func (h *HostsAccess) Warnings() []string { return h.warnings }

// Files returns the files that have to be read again when they change.
func (h *HostsAccess) Files() []string { return h.files }

// Same tells whether h was read from files that said the same as those of other.
func (h *HostsAccess) Same(other *HostsAccess) bool { return slices.Equal(h.texts, other.texts) }

// Empty tells whether the files say nothing of us.
func (h *HostsAccess) Empty() bool { return len(h.allow) == 0 && len(h.deny) == 0 }

// judge returns what the files say of a caller from remote who called local, and the line that says so, nil if none does.
// The first line that matches decides; hosts.allow is searched first.
func (h *HostsAccess) judge(remote, local netip.Addr) (permitted bool, by *hostsLine) {
	remote, local = remote.Unmap(), local.Unmap()
	for i := range h.allow {
		if l := &h.allow[i]; l.matches(remote, local) {
			return l.permits, l
		}
	}
	for i := range h.deny {
		if l := &h.deny[i]; l.matches(remote, local) {
			return l.permits, l
		}
	}
	return true, nil
}

func (l *hostsLine) matches(remote, local netip.Addr) bool {
	if !l.clients.matches(remote, l.deny) {
		return false
	}
	if len(l.server) == 0 {
		return true
	}
	for _, s := range l.server {
		if s.matches(local, l.deny) {
			return true
		}
	}
	return false
}

func (l *hostsLine) String() string { return fmt.Sprintf("%s:%d: %s", l.file, l.number, l.text) }

// A hostsParser reads the lines of the files.
type hostsParser struct {
	read      func(path string) ([]byte, error)
	names     names
	usedNames bool
	out       *HostsAccess
	at        string // file and line, for warnings
}

func (p *hostsParser) warn(format string, args ...any) {
	p.out.warnings = append(p.out.warnings, p.at+": "+fmt.Sprintf(format, args...))
}

// lines reads a file. A line ends at a line feed that has no backslash before it.
func (p *hostsParser) lines(path, text string, deny bool) (list []hostsLine) {
	for number := 1; text != ""; {
		first := number
		var line string
		complete := false
		for text != "" && !complete {
			part, rest, found := strings.Cut(text, "\n")
			text = rest
			number++
			switch {
			case !found:
				line += part
			case strings.HasSuffix(part, `\`):
				line += strings.TrimSuffix(part, `\`)
			default:
				line += part
				complete = true
			}
		}
		p.at = fmt.Sprintf("%s:%d", path, first)
		l, ok := hostsLine{}, false
		switch {
		case !complete || len(line) > maxHostsLine:
			// In hosts.deny the library takes what it can't read for all that could stand there.
			p.warn("missing newline or line too long: the line %s, as with the tcpd library", map[bool]string{
				false: "is ignored", true: "refuses everybody"}[deny])
			l, ok = hostsLine{deny: true, clients: hostsList{patterns: []hostPattern{{kind: always}}}}, deny
		case strings.HasPrefix(line, "#") || strings.Trim(line, " \t\r\n") == "":
		default:
			l, ok = p.line(line, deny)
		}
		if ok {
			l.file, l.number, l.text = path, first, strings.TrimSpace(line)
			list = append(list, l)
		}
	}
	return list
}

// line reads "daemons : clients [: option]…" and tells whether it may speak of us.
func (p *hostsParser) line(line string, deny bool) (hostsLine, bool) {
	daemons, rest, ok := cutField(line)
	if !ok {
		p.warn("missing \":\" between daemons and clients: the line is ignored, as by the tcpd library")
		return hostsLine{}, false
	}
	clients, options, hasOptions := cutField(rest)
	l := hostsLine{deny: deny, permits: !deny}
	if l.server, ok = p.daemons(daemons, deny); !ok {
		return hostsLine{}, false
	}
	l.clients = p.list(clients, deny)
	if hasOptions {
		l.permits = p.options(options, l.permits)
	}
	return l, true
}

// cutField cuts s at its first colon that isn't part of an IPv6 address in brackets.
func cutField(s string) (before, after string, found bool) {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case ':':
			return s[:i], s[i+1:], true
		case '[':
			if end := strings.IndexByte(s[i:], ']'); end > 0 && isAddressText(s[i+1:i+end]) {
				i += end
			}
		}
	}
	return s, "", false
}

func isAddressText(s string) bool {
	return strings.Trim(s, "0123456789abcdefABCDEF:.") == ""
}

// daemons returns what a list of daemons asks of the address called for us to be meant, one of several lists; ours is
// false if we never are. We are any of our names at once, and an exception of one is an exception of us; in hosts.deny a line also
// matches if it does for rpcbind alone. So nothing is opened that rpcbind has closed.
func (p *hostsParser) daemons(list string, deny bool) (servers []hostsList, ours bool) {
	tokens := strings.FieldsFunc(list, isSeparator)
	sets := [][]string{daemonNames}
	if deny {
		sets = append(sets, daemonNames[:1])
	}
	for _, names := range sets {
		l := p.daemonList(tokens, names, deny)
		matched, everywhere := l.everywhere()
		switch {
		case everywhere && matched:
			return nil, true
		case !everywhere:
			servers = append(servers, l)
		}
	}
	return servers, len(servers) > 0
}

// daemonList reads "daemon", "daemon@host" and exceptions, as far as they are about these names.
func (p *hostsParser) daemonList(tokens, names []string, deny bool) (l hostsList) {
	for i, tok := range tokens {
		if strings.EqualFold(tok, "EXCEPT") {
			except := p.daemonList(tokens[i+1:], names, !deny)
			l.except = &except
			return l
		}
		name, host := tok, ""
		if at := strings.IndexByte(tok[1:], '@'); at >= 0 {
			name, host = tok[:at+1], tok[at+2:]
		}
		switch {
		case !containsName(name, names):
		case host == "":
			l.patterns = append(l.patterns, hostPattern{kind: always})
		default:
			l.patterns = append(l.patterns, p.host(host, deny))
		}
	}
	return l
}

// everywhere tells whether the list matches all addresses alike, and then whether it matches them.
func (l *hostsList) everywhere() (matched, is bool) {
	for i := range l.patterns {
		if k := l.patterns[i].kind; k != always && k != never {
			return false, false
		}
	}
	if l.except != nil {
		if _, is := l.except.everywhere(); !is {
			return false, false
		}
	}
	return l.matches(netip.Addr{}, false), true
}

func containsName(pattern string, names []string) bool {
	for _, n := range names {
		if matchText(pattern, n) {
			return true
		}
	}
	return false
}

func isSeparator(r rune) bool { return strings.ContainsRune(", \t\r\n", r) }

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

// maxHostsLine is the longest line in octets that the library reads. Its buffer takes a line feed beside, and where a line goes on
// a backslash as well.
const maxHostsLine = 2046

// daemonNames are the names by which the files may speak of us. The first is the one by which rpcbind asks, and the only one by
// which a line opens anything.
var daemonNames = []string{"rpcbind", "portmap", "gportmap"}

// HostsAccess is what hosts.allow and hosts.deny say of us. It doesn't change.
//
// Names of callers are never looked up, because name services may need the portmapper; /etc/hosts is all that is known
// of them. A line that can't be judged without closes: if it permits it counts as not matching, if it refuses as matching,
// in whichever file it stands. So nobody is answered whom the library would refuse.
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
	clients hostsList
	// The daemons, as patterns that the address called has to match (daemon@host): as rpcbind asks, which doesn't tell the
	// library that address, and as we would, by any of our names.
	asRpcbind, asOurs hostsList
	permits           bool // the verdict if it matches
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
		case errors.Is(err, fs.ErrPermission):
			return nil, fmt.Errorf("access list: %w; the user as whom the portmapper runs has to read it: chmod o+r %s", err, file.path)
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

// matches tells whether a line matches for certain, if it permits, or perhaps, if it refuses.
func (l *hostsLine) matches(remote, local netip.Addr) bool {
	unsureAs := !l.permits
	if !l.clients.matches(remote, unsureAs) {
		return false
	}
	theirs, ours := l.asRpcbind.matches(local, unsureAs), l.asOurs.matches(local, unsureAs)
	if l.permits {
		return theirs && ours
	}
	return theirs || ours
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

// lines reads a file. A line ends at a line feed that has no backslash before it. At a line that it can't read the library
// stops: in hosts.deny it refuses everybody, of hosts.allow it takes nothing more. So nothing beyond such a line permits.
func (p *hostsParser) lines(path, text string, deny bool) (list []hostsLine) {
	stopped := false
	for number := 1; text != ""; {
		first := number
		var line string
		complete, tooLong := false, false
		for text != "" && !complete {
			part, rest, found := strings.Cut(text, "\n")
			text = rest
			number++
			switch {
			case !found:
				line += part
			case strings.HasSuffix(part, `\`):
				line += strings.TrimSuffix(part, `\`)
				tooLong = tooLong || len(line) >= maxHostsLine
			default:
				line += part
				complete = true
			}
		}
		p.at = fmt.Sprintf("%s:%d", path, first)
		l, ok := hostsLine{}, false
		switch {
		case !complete || tooLong || len(line) > maxHostsLine || strings.Contains(line, "\x00"):
			stopped = true
			p.warn("missing newline, NUL or line too long: the line %s, as with the tcpd library; mend it", map[bool]string{
				false: "is ignored, and nothing after it in this file permits", true: "refuses everybody"}[deny])
			l, ok = hostsLine{clients: everybody(), asRpcbind: everybody(), asOurs: everybody()}, deny
		case strings.HasPrefix(line, "#") || strings.Trim(line, " \t\r\n") == "":
		default:
			l, ok = p.line(line, deny)
		}
		if ok && !(stopped && l.permits) {
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
	l := hostsLine{permits: !deny}
	tokens := strings.FieldsFunc(daemons, isSeparator)
	if !p.meansUs(tokens) {
		return hostsLine{}, false
	}
	if hasOptions {
		l.permits = p.options(options, l.permits)
	}
	closes := !l.permits
	l.asRpcbind = p.daemonList(tokens, daemonNames[:1], closes, p.unknownServer)
	l.asOurs = p.daemonList(tokens, daemonNames, closes, p.host)
	if l.permits && l.asRpcbind.nobody() {
		p.warn("the line opens nothing, because rpcbind isn't meant by it: write rpcbind for the daemon, without an address")
		return hostsLine{}, false
	}
	l.clients = p.list(clients, closes)
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

// isAddressText tells whether s looks like an address, perhaps with a zone.
func isAddressText(s string) bool {
	s, zone, _ := strings.Cut(s, "%")
	return !strings.ContainsAny(zone, "[: \t") && strings.Trim(s, "0123456789abcdefABCDEF:.") == ""
}

// meansUs tells whether a list of daemons names us in any way.
func (p *hostsParser) meansUs(tokens []string) bool {
	silent := hostsParser{out: &HostsAccess{}, read: p.read, names: p.names}
	theirs := silent.daemonList(tokens, daemonNames[:1], true, silent.unknownServer)
	ours := silent.daemonList(tokens, daemonNames, true, silent.host)
	return !theirs.nobody() || !ours.nobody()
}

// daemonList reads "daemon", "daemon@host" and exceptions, as far as they are about these names. Host reads what stands behind
// an @.
func (p *hostsParser) daemonList(tokens, names []string, closes bool, host func(tok string, closes bool) hostPattern) (l hostsList) {
	for i, tok := range tokens {
		if strings.EqualFold(tok, "EXCEPT") {
			except := p.daemonList(tokens[i+1:], names, !closes, host)
			l.except = &except
			return l
		}
		name, at := tok, strings.IndexByte(tok[1:], '@')
		if at >= 0 {
			name = tok[:at+1]
		}
		switch {
		case !containsName(name, names):
		case at < 0:
			l.patterns = append(l.patterns, hostPattern{kind: always})
		default:
			l.patterns = append(l.patterns, host(tok[at+2:], closes))
		}
	}
	return l
}

// unknownServer reads the host of daemon@host as the library does for rpcbind: the address called is the text "unknown".
func (p *hostsParser) unknownServer(tok string, _ bool) hostPattern {
	switch {
	case tok == "" || strings.EqualFold(tok, "KNOWN"):
	case tok[0] == '@' || tok[0] == '/':
		return hostPattern{kind: unjudged}
	case tok[0] != '[' && !strings.Contains(tok, "/") && matchText(tok, "unknown"):
		return hostPattern{kind: always}
	}
	return hostPattern{}
}

// everybody is the list of all.
func everybody() hostsList { return hostsList{patterns: []hostPattern{{kind: always}}} }

// nobody tells whether the list matches no address at all, as far as that is plain.
func (l *hostsList) nobody() bool {
	certain := true
	for i := range l.patterns {
		switch l.patterns[i].kind {
		case never:
		case always:
			return l.except != nil && l.except.all()
		default:
			certain = false
		}
	}
	return certain
}

// all tells whether the list matches every address, as far as that is plain.
func (l *hostsList) all() bool {
	return slices.ContainsFunc(l.patterns, func(p hostPattern) bool { return p.kind == always }) && (l.except == nil || l.except.nobody())
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

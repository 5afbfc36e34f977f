package access

import (
	"errors"
	"io/fs"
	"net/netip"
	"strings"
)

// hostsList is a list of host patterns, perhaps with exceptions: "a b EXCEPT c".
type hostsList struct {
	patterns []hostPattern
	except   *hostsList // nil: none
}

// hostPattern is one pattern, taken apart as far as possible before a caller comes.
type hostPattern struct {
	kind   patternKind
	prefix netip.Prefix // network
	net4   uint32       // masked
	mask4  uint32
	text   string               // text, in lower case: a pattern of the address's text
	named  map[netip.Addr]match // byName: what is known by /etc/hosts
	others match                // byName: of addresses that it doesn't name
	among  []hostPattern        // inFile
}

type patternKind uint8

const (
	never    patternKind = iota
	always               // ALL
	network              // 10.1. or [2001:db8::]/32
	masked               // 10.1.0.0/255.255.0.0
	text                 // 10.1.*
	byName               // what only a name service could tell, unless /etc/hosts does
	unjudged             // what can't be told at all
	inFile               // several patterns, as in a file
)

// A verdict of a pattern.
type match uint8

const (
	no match = iota
	yes
	unsure
)

// matches tells whether a list matches an address. Unsure patterns count as unsureAs, and those of exceptions as the
// opposite.
func (l *hostsList) matches(a netip.Addr, unsureAs bool) bool {
	for i := range l.patterns {
		m := l.patterns[i].match(a)
		if m == yes || m == unsure && unsureAs {
			return l.except == nil || !l.except.matches(a, !unsureAs)
		}
	}
	return false
}

func (p *hostPattern) match(a netip.Addr) match {
	matched := false
	switch p.kind {
	case always:
		matched = true
	case network:
		matched = p.prefix.Contains(a)
	case masked:
		matched = a.Is4() && number4(a)&p.mask4 == p.net4
	case text:
		var buf [64]byte
		matched = matchWild([]byte(p.text), a.AppendTo(buf[:0]))
	case byName:
		if m, known := p.named[a]; known {
			return m
		}
		return p.others
	case unjudged:
		return unsure
	case inFile:
		result := no
		for i := range p.among {
			switch p.among[i].match(a) {
			case yes:
				return yes
			case unsure:
				result = unsure
			}
		}
		return result
	}
	if matched {
		return yes
	}
	return no
}

func number4(a netip.Addr) uint32 {
	b := a.As4()
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

// list reads a list of clients. Closes says which way an unsure pattern counts.
func (p *hostsParser) list(s string, closes bool) hostsList {
	return p.listOf(strings.FieldsFunc(s, isSeparator), closes)
}

func (p *hostsParser) listOf(tokens []string, closes bool) (l hostsList) {
	for i, tok := range tokens {
		if strings.EqualFold(tok, "EXCEPT") {
			except := p.listOf(tokens[i+1:], !closes)
			l.except = &except
			return l
		}
		l.patterns = append(l.patterns, p.client(tok, closes))
	}
	return l
}

// client reads "host" or "user@host". The library knows no user of a caller of rpcbind: he is the text "unknown".
func (p *hostsParser) client(tok string, closes bool) hostPattern {
	at := strings.IndexByte(tok[1:], '@')
	if at < 0 {
		return p.host(tok, closes)
	}
	user, host := tok[:at+1], p.host(tok[at+2:], closes)
	switch {
	case strings.EqualFold(user, "ALL"), strings.EqualFold(user, "UNKNOWN"):
		return host
	case strings.EqualFold(user, "KNOWN"):
		return hostPattern{}
	}
	p.warn("%s asks for a user on the caller's host, which gportmap never asks for: the line %s", tok, counts(closes))
	return hostPattern{kind: unjudged}
}

func counts(closes bool) string {
	if closes {
		return "refuses everybody whom it might mean; give addresses instead"
	}
	return "opens nothing by that; give addresses instead"
}

// host reads one host pattern.
func (p *hostsParser) host(tok string, closes bool) hostPattern {
	switch {
	case tok == "":
		return hostPattern{}
	case tok[0] == '@':
		p.warn("netgroup %s needs a name service: the line %s", tok, counts(closes))
		return hostPattern{kind: unjudged}
	case tok[0] == '/':
		return p.file(tok, closes)
	case strings.EqualFold(tok, "ALL"):
		return hostPattern{kind: always}
	}
	if tok[0] == '[' {
		return p.bracketed(tok, closes)
	}
	if net, mask, ok := strings.Cut(tok, "/"); ok {
		if closes && (oddNumber(net) || oddNumber(mask)) {
			p.warn("network %s isn't plain: the line %s", tok, counts(closes))
			return hostPattern{kind: unjudged}
		}
		return p.masked(net, mask)
	}
	switch {
	case tok[0] == '.' && strings.Trim(tok, "0123456789.") == "" && tok != ".": // the end of an address's text
		return hostPattern{kind: text, text: "*" + tok}
	case strings.ContainsAny(tok, "*?"):
		return p.wild(tok, closes)
	case strings.Trim(tok, "0123456789.") == "":
		return p.numeric(tok)
	}
	return p.byName(tok, closes)
}

// wild reads a pattern with * and ?, which is one of addresses, of names, or of both.
func (p *hostsParser) wild(tok string, closes bool) hostPattern {
	address := hostPattern{kind: text, text: strings.ToLower(tok)}
	switch {
	case strings.Trim(tok, "*") == "":
		return hostPattern{kind: always}
	case strings.Trim(tok, "0123456789.*?") == "", strings.Contains(tok, ":"): // no name looks so
		return address
	case strings.Trim(tok, "0123456789.*?abcdefABCDEF") == "":
		return hostPattern{kind: inFile, among: []hostPattern{address, p.byName(tok, closes)}}
	}
	return p.byName(tok, closes)
}

// numeric reads an IPv4 address, or its beginning with a dot at the end.
func (p *hostsParser) numeric(tok string) hostPattern {
	if octets := strings.Split(strings.TrimSuffix(tok, "."), "."); strings.HasSuffix(tok, ".") && len(octets) < 4 {
		whole := strings.TrimSuffix(tok, ".") + strings.Repeat(".0", 4-len(octets))
		if a, err := netip.ParseAddr(whole); err == nil {
			return hostPattern{kind: network, prefix: netip.PrefixFrom(a, 8*len(octets))}
		}
	}
	if a, err := netip.ParseAddr(tok); err == nil {
		return hostPattern{kind: network, prefix: netip.PrefixFrom(a, a.BitLen())}
	}
	p.warn("%s isn't an address: it matches nobody", tok)
	return hostPattern{}
}

// file reads a file of patterns. One that isn't there matches nobody.
func (p *hostsParser) file(path string, closes bool) hostPattern {
	p.out.files = append(p.out.files, path)
	b, err := p.read(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return hostPattern{}
	case err != nil:
		p.warn("%v: the line %s", err, counts(closes))
		return hostPattern{kind: unjudged}
	}
	list := hostPattern{kind: inFile}
	for _, tok := range strings.Fields(string(b)) {
		if tok[0] == '/' { // no files of files without end
			p.warn("%s names the file %s: not followed", path, tok)
			tok = "@" + tok
		}
		list.among = append(list.among, p.host(tok, closes))
	}
	return list
}

package rpcbind

// Netid names a transport (RFC 5665 section 5). Netids are compared without regard to the case of ASCII letters:
// use [Netid.Is], not ==.
type Netid string

// The netids that a portmapper on Linux knows.
const (
	UDP   Netid = "udp"
	TCP   Netid = "tcp"
	UDP6  Netid = "udp6"
	TCP6  Netid = "tcp6"
	Local Netid = "local"
)

// Semantics of a transport in an [Entry] (RFC 1833 section 2.1).
const (
	SemanticsCLTS    = 1 // connectionless
	SemanticsCOTS    = 2 // connection-oriented
	SemanticsCOTSOrd = 3 // connection-oriented with graceful close
)

// Transport tells what a [Netid] stands for: a row of what other systems keep in /etc/netconfig.
type Transport struct {
	Netid     Netid
	Semantics uint32 // SemanticsCLTS, SemanticsCOTS or SemanticsCOTSOrd
	Family    string // protocol family: "inet", "inet6" or "loopback"
	Proto     string // protocol: "udp", "tcp" or "-"
}

// IP tells whether addresses of the transport are IP addresses with ports.
func (t Transport) IP() bool { return t.Family == "inet" || t.Family == "inet6" }

var transports = [...]Transport{
	{UDP, SemanticsCLTS, "inet", "udp"},
	{TCP, SemanticsCOTSOrd, "inet", "tcp"},
	{UDP6, SemanticsCLTS, "inet6", "udp"},
	{TCP6, SemanticsCOTSOrd, "inet6", "tcp"},
	{Local, SemanticsCOTSOrd, "loopback", "-"},
}

// Transport returns what n stands for, and false if n isn't one of the netids listed here.
func (n Netid) Transport() (Transport, bool) {
	for i := range transports {
		if transports[i].Netid.Is(n) {
			return transports[i], true
		}
	}
	return Transport{}, false
}

// Is tells whether n and other name the same transport.
func (n Netid) Is(other Netid) bool {
	if len(n) != len(other) {
		return false
	}
	for i := 0; i < len(n); i++ {
		if lower(n[i]) != lower(other[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// Prot returns the IP protocol number that a [Mapping] has for the transport: 6 for tcp, 17 for udp, and false
// for every other, because PMAP version 2 knows only these two.
func (n Netid) Prot() (uint32, bool) {
	switch {
	case n.Is(TCP):
		return ProtTCP, true
	case n.Is(UDP):
		return ProtUDP, true
	}
	return 0, false
}

// NetidOfProt returns the netid of an IP protocol number of a [Mapping], and false if it isn't 6 or 17.
func NetidOfProt(prot uint32) (Netid, bool) {
	switch prot {
	case ProtTCP:
		return TCP, true
	case ProtUDP:
		return UDP, true
	}
	return "", false
}

package access

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// Exposure is to whom we answer, beside what rules say.
type Exposure uint8

// The exposures.
const (
	World     Exposure = iota // everybody, as rpcbind does
	LAN                       // this host, and private and link-local networks that it is connected to
	LocalOnly                 // this host
)

// exposures are the names of the exposures.
var exposures = []string{"world", "lan", "local"}

// String returns the exposure's name.
func (e Exposure) String() string { return exposures[e] }

// ParseExposure reads the name of an exposure.
func ParseExposure(s string) (Exposure, error) {
	if i := slices.Index(exposures, s); i >= 0 {
		return Exposure(i), nil
	}
	return 0, fmt.Errorf("%q is none of %q", s, exposures)
}

// UDPLists is who gets lists over UDP that are larger than their calls, beside this host and the networks that allow names.
type UDPLists uint8

// Who gets lists over UDP.
const (
	ConnectedLists UDPLists = iota // hosts of the networks that this host is connected to, if these are private
	LocalLists                     // nobody else
	AllLists                       // everybody, as rpcbind does
)

// udpLists are their names.
var udpLists = []string{"connected", "local", "all"}

// String returns the name.
func (u UDPLists) String() string { return udpLists[u] }

// ParseUDPLists reads the name of who gets lists over UDP.
func ParseUDPLists(s string) (UDPLists, error) {
	if i := slices.Index(udpLists, s); i >= 0 {
		return UDPLists(i), nil
	}
	return 0, fmt.Errorf("%q is none of %q", s, udpLists)
}

// classes are the names of the classes of procedures, by [portmap.Class].
var classes = []string{"lookup", "list", "register", "remote-call"}

// A Rule says which calls it is about; the zero value, all.
type Rule struct {
	From    netip.Prefix // the caller's address; the zero value is any
	On      string       // the interface that the call arrived on; "" is any
	Program uint32       // that the call names; 0 is any, also none
	classes uint8        // a bit for each class; 0 is any
	text    string
}

// ParseRule reads a rule: "from NETWORK", "on INTERFACE", "for CLASS[,CLASS]…" and "program NUMBER", in any order, each at
// most once and at least one.
func ParseRule(s string) (Rule, error) {
	r := Rule{text: strings.Join(strings.Fields(s), " ")}
	words := strings.Fields(s)
	if len(words) == 0 {
		return Rule{}, fmt.Errorf("a rule is empty; give from NETWORK, on INTERFACE, for CLASS or program NUMBER")
	}
	seen := make(map[string]bool)
	for i := 0; i < len(words); i += 2 {
		word := words[i]
		if i+1 == len(words) {
			return Rule{}, fmt.Errorf("rule %q: nothing stands behind %q; a rule is made of from NETWORK, on INTERFACE, for CLASS and program NUMBER", r.text, word)
		}
		if seen[word] {
			return Rule{}, fmt.Errorf("rule %q: a second %q; write two rules", r.text, word)
		}
		seen[word] = true
		if err := r.set(word, words[i+1]); err != nil {
			return Rule{}, fmt.Errorf("rule %q: %w", r.text, err)
		}
	}
	return r, nil
}

func (r *Rule) set(word, value string) (err error) {
	switch word {
	case "from":
		r.From, err = parseNetwork(value)
	case "on":
		r.On = value
	case "for":
		for c := range strings.SplitSeq(value, ",") {
			i := slices.Index(classes, c)
			if i < 0 {
				return fmt.Errorf("%q is none of the classes %q", c, classes)
			}
			r.classes |= 1 << i
		}
	case "program":
		if r.Program, err = ParseProgram(value); err == nil && r.Program == 0 {
			err = fmt.Errorf("program 0 is none")
		}
	default:
		err = fmt.Errorf("%q is none of from, on, for and program", word)
	}
	return err
}

// parseNetwork reads an address or a network in CIDR notation. An IPv4-mapped one becomes the IPv4 network, because callers'
// addresses are never mapped.
func parseNetwork(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is no address and no network; write 192.0.2.0/24 or 2001:db8::/32", s)
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("network %v has bits beyond its mask; did you mean %v?", p, p.Masked())
	}
	if a := p.Addr(); a.Is4In6() {
		if p.Bits() < mappedBits {
			return netip.Prefix{}, fmt.Errorf("network %v is IPv6 and IPv4 at once; write two rules, as 2001:db8::/32 and 192.0.2.0/24", p)
		}
		return netip.PrefixFrom(a.Unmap(), p.Bits()-mappedBits), nil
	}
	return p, nil
}

// mappedBits is the length of ::ffff:0:0/96, behind which an IPv4-mapped address has the IPv4 address.
const mappedBits = 96

// ParseProgram reads a program number, which may be hexadecimal (0x…).
func ParseProgram(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 0, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is no program number; give one from 0 to %d", s, uint32(math.MaxUint32))
	}
	return uint32(n), nil
}

// String returns the rule as it was written.
func (r *Rule) String() string { return r.text }

// RemoteTarget is what may be called for others: a procedure of a program, or each of its procedures.
type RemoteTarget struct {
	Program, Procedure uint32
	Any                bool
}

// ParseRemoteTarget reads "PROGRAM" or "PROGRAM:PROCEDURE".
func ParseRemoteTarget(s string) (t RemoteTarget, err error) {
	program, procedure, found := strings.Cut(s, ":")
	if t.Program, err = ParseProgram(program); err != nil {
		return t, err
	}
	if t.Any = !found; found {
		n, err := strconv.ParseUint(procedure, 0, 32)
		if err != nil {
			return t, fmt.Errorf("%q: %q is no procedure; write PROGRAM or PROGRAM:PROCEDURE", s, procedure)
		}
		t.Procedure = uint32(n)
	}
	return t, nil
}

// A Pin names the ports at which a program may be registered.
type Pin struct {
	Program uint32
	Ports   []uint16
}

// ParsePin reads "PROGRAM:PORT[,PORT…]".
func ParsePin(s string) (p Pin, err error) {
	program, ports, found := strings.Cut(s, ":")
	if !found {
		return p, fmt.Errorf("%q: write PROGRAM:PORT[,PORT], e.g. \"100005:20048\"", s)
	}
	if p.Program, err = ParseProgram(program); err != nil {
		return p, fmt.Errorf("%q: %w", s, err)
	}
	for _, text := range strings.Split(ports, ",") {
		n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 16)
		if err != nil || n == 0 {
			return p, fmt.Errorf("%q: %q is no port; give a number from 1 to 65535", s, text)
		}
		p.Ports = append(p.Ports, uint16(n))
	}
	return p, nil
}

// pinned returns ErrPinned if a program is pinned and b is at another port. What has no port passes.
func (r *Rules) pinned(b rpcbind.RPCB) error {
	transport, ok := b.Netid.Transport()
	if len(r.Pins) == 0 || !ok || !transport.IP() {
		return nil
	}
	at, _ := rpcbind.ParseUAddr(b.Addr) // what is none the table refuses
	known := false
	for _, p := range r.Pins {
		if p.Program != b.Program {
			continue
		}
		if slices.Contains(p.Ports, at.Port()) {
			return nil
		}
		known = true
	}
	if known {
		return ErrPinned
	}
	return nil
}

// Rules are what an administrator decided. They don't change; the zero value is rpcbind's.
type Rules struct {
	// Exposure is to whom we answer if no rule speaks of a call.
	Exposure Exposure
	// UDPLists is who gets lists over UDP.
	UDPLists UDPLists
	// Allow and Deny are searched in this order.
	Allow, Deny []Rule
	// RootOnly are programs that only root may register.
	RootOnly []uint32
	// Pins are the programs that may be registered at certain ports only.
	Pins []Pin
	// StrictSet accepts a registration only at a port that a socket of the caller's user is bound to, for root of any.
	StrictSet bool
	// RemoteCalls are what may be called for others, beside what never is; nil is everything.
	RemoteCalls []RemoteTarget
	// Hosts are hosts.allow and hosts.deny; nil if they say nothing.
	Hosts *HostsAccess

	open bool // nothing here refuses a call, which is so on most hosts and need not be found out for each
}

// A Decision is a verdict with its reason.
type Decision struct {
	Permitted bool
	reason    reason
	rule      *Rule
	line      *hostsLine
	exposure  Exposure
}

type reason uint8

const (
	byDefault reason = iota
	byLocal
	byHosts
	byAllow
	byDeny
	byExposure
)

// String tells the reason.
func (d Decision) String() string {
	switch d.reason {
	case byLocal:
		return "the local socket is open to every process of this host"
	case byHosts:
		return d.line.String()
	case byAllow:
		return fmt.Sprintf("allow %q", d.rule)
	case byDeny:
		return fmt.Sprintf("deny %q", d.rule)
	case byExposure:
		return fmt.Sprintf("exposure = %q", d.exposure)
	}
	return "no rule speaks of it"
}

// Judge tells whether a caller may make calls of a class about a program, 0 for calls that name none, and why. Hosts.deny
// closes also what the own file opens: who replaces rpcbind must not open what was closed.
func (p *Policy) Judge(from portmap.Caller, class portmap.Class, prog uint32) Decision {
	if from.Transport == portmap.Local {
		return Decision{Permitted: true, reason: byLocal}
	}
	r := p.rules.Load()
	if r == nil {
		return Decision{Permitted: true}
	}
	var line *hostsLine
	if r.Hosts != nil {
		permitted := true
		if permitted, line = r.Hosts.judge(from.Remote.Addr(), from.Local.Addr()); !permitted {
			return Decision{reason: byHosts, line: line}
		}
	}
	if rule := p.find(r.Allow, from, class, prog); rule != nil {
		return Decision{Permitted: true, reason: byAllow, rule: rule}
	}
	if rule := p.find(r.Deny, from, class, prog); rule != nil {
		return Decision{reason: byDeny, rule: rule}
	}
	switch {
	case !p.exposedTo(r.Exposure, from):
		return Decision{reason: byExposure, exposure: r.Exposure}
	case line != nil:
		return Decision{Permitted: true, reason: byHosts, line: line}
	case r.Exposure != World:
		return Decision{Permitted: true, reason: byExposure, exposure: r.Exposure}
	}
	return Decision{Permitted: true}
}

// Permits tells whether a caller may make calls of a class about a program.
func (p *Policy) Permits(from portmap.Caller, class portmap.Class, prog uint32) bool {
	r := p.rules.Load()
	return r == nil || r.open || p.Judge(from, class, prog).Permitted
}

// find returns the first rule that speaks of a call, or nil.
func (p *Policy) find(rules []Rule, from portmap.Caller, class portmap.Class, prog uint32) *Rule {
	for i := range rules {
		r := &rules[i]
		if (r.Program == 0 || r.Program == prog) && r.covers(class) && p.speaksOf(r, from) {
			return r
		}
	}
	return nil
}

func (r *Rule) covers(class portmap.Class) bool { return r.classes == 0 || r.classes&(1<<class) != 0 }

func (p *Policy) speaksOf(r *Rule, from portmap.Caller) bool {
	if r.From.IsValid() && !r.From.Contains(from.Remote.Addr().Unmap()) {
		return false
	}
	return r.On == "" || p.InterfaceName != nil && p.InterfaceName(from.Ifindex) == r.On
}

func (p *Policy) exposedTo(e Exposure, from portmap.Caller) bool {
	if e == World || from.Loopback {
		return true
	}
	source := from.Remote.Addr().Unmap()
	switch {
	case source.IsLoopback(): // forged: it came by another interface
		return false
	case p.ours(from):
		return true
	}
	return e == LAN && (source.IsPrivate() || source.IsLinkLocalUnicast()) && p.Connected != nil && p.Connected(source, from.Ifindex)
}

// listed tells whether a rule of allow names the caller's network, so that datagrams to it may be large. That of all
// addresses is none, for anybody may forge one of them.
func (p *Policy) listed(from portmap.Caller, class portmap.Class) bool {
	r := p.rules.Load()
	if r == nil {
		return false
	}
	for i := range r.Allow {
		rule := &r.Allow[i]
		if rule.From.Bits() > 0 && rule.Program == 0 && rule.covers(class) && p.speaksOf(rule, from) {
			return true
		}
	}
	return false
}

// MayForward tells whether a procedure may be called for others.
func (p *Policy) MayForward(prog, proc uint32) bool {
	r := p.rules.Load()
	if r == nil || r.RemoteCalls == nil {
		return true
	}
	return slices.ContainsFunc(r.RemoteCalls, func(t RemoteTarget) bool {
		return t.Program == prog && (t.Any || t.Procedure == proc)
	})
}

// Grants returns nil if an owner may have a registration, else the reason against it.
func (p *Policy) Grants(owner string, b rpcbind.RPCB) error {
	r := p.rules.Load()
	switch {
	case r == nil:
		return nil
	case owner != rpcbind.OwnerSuperuser && slices.Contains(r.RootOnly, b.Program):
		return ErrRootOnly
	}
	if err := r.pinned(b); err != nil {
		return err
	}
	if r.StrictSet && p.Bound != nil {
		return p.Bound(owner, b)
	}
	return nil
}

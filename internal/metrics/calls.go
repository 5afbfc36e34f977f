// Package metrics counts what the daemon does, in memory that never grows, and writes it in the text format that
// Prometheus reads.
//
// Counting is one atomic addition to an array and allocates nothing, because every call is counted. Prometheus's own
// client library would double the daemon's memory, and VictoriaMetrics' smaller one brings net/http with it.
package metrics

import "sync/atomic"

// A Verdict is what became of a call.
type Verdict uint8

// The verdicts.
const (
	OK          Verdict = iota // answered, a SET or UNSET with TRUE
	Miss                       // a lookup of what isn't registered, which is a success too (RFC 1833)
	No                         // a SET or UNSET answered FALSE
	TooWeak                    // MSG_DENIED AUTH_TOOWEAK: the caller may not do that
	Denied                     // MSG_DENIED for the credential or the RPC version
	Unavailable                // PROG_UNAVAIL, PROG_MISMATCH or PROC_UNAVAIL
	Garbage                    // GARBAGE_ARGS
	SystemErr                  // SYSTEM_ERR
	Silence                    // no answer: what came was no call, or one that is never answered at once
	verdicts
)

// String returns the verdict's label.
func (v Verdict) String() string {
	return [verdicts]string{"ok", "miss", "no", "too_weak", "denied", "unavailable", "garbage", "system_error", "silence"}[v]
}

// Refused tells whether a caller was refused what it wanted.
func (v Verdict) Refused() bool { return v == No || v == TooWeak || v == Denied }

// Bounds of the arrays. Versions and procedures that program 100000 doesn't have are counted together.
const (
	transports     = 5
	firstVersion   = 2
	versions       = 3 + 1
	procedures     = 13 + 1
	otherVersion   = versions - 1
	otherProcedure = procedures - 1
)

// transportNames are in the order of portmap.Transport.
var transportNames = [transports]string{"udp", "tcp", "udp6", "tcp6", "local"}

// Calls counts calls by transport, version, procedure and verdict. The zero value is ready. Transports don't share lines of
// the processor's cache, so that their goroutines don't wait for each other.
type Calls struct {
	counts [transports][versions][procedures][verdicts]atomic.Uint64
}

// Count counts one call; transport is the number of a portmap.Transport.
func (c *Calls) Count(transport uint8, version, procedure uint32, v Verdict) {
	at := version - firstVersion // wraps for what is smaller
	if at >= otherVersion {
		at = otherVersion
	}
	procedure = min(procedure, otherProcedure)
	if at == otherVersion {
		procedure = otherProcedure // of a version that isn't there a procedure means nothing
	}
	if transport < transports && v < verdicts {
		c.counts[transport][at][procedure][v].Add(1)
	}
}

// A CallCount is one of the counters, with what it counts.
type CallCount struct {
	Transport          string
	Version, Procedure uint32
	Known              bool // version and procedure are ones that program 100000 has; else they mean nothing
	Verdict            Verdict
	Count              uint64
}

// Each calls f with every counter that isn't 0, in a fixed order.
func (c *Calls) Each(f func(CallCount)) {
	for t := range c.counts {
		for v := range c.counts[t] {
			for p := range c.counts[t][v] {
				for verdict := range c.counts[t][v][p] {
					n := c.counts[t][v][p][verdict].Load()
					if n == 0 {
						continue
					}
					f(CallCount{
						Transport: transportNames[t], Version: uint32(v + firstVersion), Procedure: uint32(p),
						Known: v != otherVersion && p != otherProcedure, Verdict: Verdict(verdict), Count: n,
					})
				}
			}
		}
	}
}

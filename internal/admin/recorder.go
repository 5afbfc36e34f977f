package admin

import (
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gportmap/gportmap/internal/metrics"
	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

const (
	// kept is how many events of each kind are remembered.
	kept = 64
	// maxText is how many octets of a string that a caller sent are remembered.
	maxText = 255
	// refusalPause is the time that a refused call pays for to be remembered; as many as are kept may come at once.
	// Refusing is cheap, and stays so.
	refusalPause = 10 * time.Millisecond
)

// A Recorder takes note of what is called and by whom. Its methods may be called from any goroutine; what it keeps is
// bounded, whatever callers send.
type Recorder struct {
	Calls   metrics.Calls
	Latency metrics.Latency

	clients clients

	mu      sync.Mutex
	changes ring
	refused ring

	refusalsPaid atomic.Int64 // up to when, in nanoseconds since 1970
}

// NewRecorder returns a Recorder.
func NewRecorder() *Recorder { return &Recorder{clients: clients{seed: maphash.MakeSeed()}} }

// Called takes note of a call and its reply, empty for silence: it is the Count of a portmapper.
func (r *Recorder) Called(from portmap.Caller, c oncrpc.Call, reply []byte) {
	v := verdict(&c, reply)
	r.Calls.Count(uint8(from.Transport), c.Version, c.Procedure, v)
	switch {
	case v.Refused():
		r.noteRefusal(from, &c, v)
	case v == metrics.OK && c.Version != 0 && (c.Procedure == rpcbind.ProcSet || c.Procedure == rpcbind.ProcUnset):
		r.note(&r.changes, event(from, &c, v))
	}
}

// Answered takes note of calls of one caller that were read at once, at that time, and answered after another.
func (r *Recorder) Answered(from *portmap.Caller, calls int, at time.Time, took time.Duration) {
	r.Latency.Observe(uint8(from.Transport), took, calls)
	r.clients.seen(keyOf(from), calls, at)
}

// noteRefusal takes note of a refused call, but not of each one of a flood.
func (r *Recorder) noteRefusal(from portmap.Caller, c *oncrpc.Call, v metrics.Verdict) {
	r.clients.refused(keyOf(&from))
	for now := time.Now().UnixNano(); ; {
		paid := r.refusalsPaid.Load()
		next := max(paid, now-kept*int64(refusalPause)) + int64(refusalPause)
		if next > now {
			return
		}
		if r.refusalsPaid.CompareAndSwap(paid, next) {
			r.note(&r.refused, event(from, c, v))
			return
		}
	}
}

func (r *Recorder) note(in *ring, e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	in.add(e)
}

// Clients returns who called lately, the last one first.
func (r *Recorder) Clients() []Client { return r.clients.list() }

// Events returns the latest changes and refused calls, the last one first.
func (r *Recorder) Events() (changes, refused []Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changes.list(), r.refused.list()
}

// ring keeps the latest events.
type ring struct {
	events []Event
	next   int
}

func (r *ring) add(e Event) {
	if len(r.events) < kept {
		r.events = append(r.events, e)
		return
	}
	r.events[r.next] = e
	r.next = (r.next + 1) % kept
}

func (r *ring) list() []Event {
	all := append([]Event{}, r.events[r.next:]...)
	all = append(all, r.events[:r.next]...)
	slices.Reverse(all)
	return all
}

// successSize is the octets before the results of a call that was accepted and succeeded, with an empty verifier.
const successSize = 6 * xdr.Unit

// succeeded is what stands in them behind the xid.
var succeeded = [successSize - xdr.Unit]byte{3: 1} // REPLY, MSG_ACCEPTED, AUTH_NONE, no octets, SUCCESS

// verdict tells what became of a call.
func verdict(c *oncrpc.Call, reply []byte) metrics.Verdict {
	if len(reply) == 0 {
		return metrics.Silence
	}
	if len(reply) >= successSize && [successSize - xdr.Unit]byte(reply[xdr.Unit:successSize]) == succeeded { // as most are
		return result(c, reply[successSize:])
	}
	r, err := oncrpc.ParseReply(reply)
	switch {
	case err != nil:
		return metrics.Silence
	case r.Denied && r.Reject == oncrpc.AuthError && r.Auth == oncrpc.AuthTooWeak:
		return metrics.TooWeak
	case r.Denied:
		return metrics.Denied
	case r.Accept == oncrpc.GarbageArgs:
		return metrics.Garbage
	case r.Accept == oncrpc.SystemErr:
		return metrics.SystemErr
	case r.Accept != oncrpc.Success:
		return metrics.Unavailable
	}
	return result(c, r.Results)
}

// result tells a TRUE from a FALSE, and an address from none: port 0, FALSE and the empty string are a word of zero.
func result(c *oncrpc.Call, results []byte) metrics.Verdict {
	var zero metrics.Verdict
	switch c.Procedure {
	case rpcbind.ProcSet, rpcbind.ProcUnset:
		zero = metrics.No
	case rpcbind.ProcGetAddr, rpcbind.ProcGetVersAddr:
		zero = metrics.Miss
	default:
		return metrics.OK
	}
	d := xdr.NewDecoder(results)
	if d.Uint32() == 0 {
		return zero
	}
	return metrics.OK
}

// event tells of a call. What it says of a SET or UNSET is what the caller asked for.
func event(from portmap.Caller, c *oncrpc.Call, v metrics.Verdict) Event {
	e := Event{At: time.Now(), Peer: peer(&from), Verdict: v.String()}
	if c.Version == 0 {
		return e // refused before that was looked at
	}
	e.Procedure, e.RPCBVersion = rpcbind.ProcedureName(c.Version, c.Procedure), c.Version
	switch c.Procedure {
	case rpcbind.ProcSet, rpcbind.ProcUnset, rpcbind.ProcGetAddr, rpcbind.ProcGetVersAddr:
	default:
		return e
	}
	d := xdr.NewDecoder(c.Args)
	if c.Version == rpcbind.PMAPVers {
		m := rpcbind.ReadMapping(&d)
		if n, ok := rpcbind.NetidOfProt(m.Prot); ok && d.Err() == nil {
			e.Netid = string(n)
		}
		e.Program, e.Version, e.Port = m.Program, m.Version, m.Port
	} else {
		e.Program, e.Version = d.Uint32(), d.Uint32()
		limit := uint32(len(d.Rest()))
		e.Netid, e.Address = shorten(d.Opaque(limit)), shorten(d.Opaque(limit))
	}
	return e
}

// peer names a caller: "uid 1000" on the local socket, else as in "udp 10.0.0.5:1023".
func peer(from *portmap.Caller) string {
	if from.Transport == portmap.Local {
		return keyOf(from).String()
	}
	return string(from.Transport.Netid()) + " " + from.Remote.String()
}

// shorten copies what a caller sent, which is valid only during the call, and no more of it than is worth keeping.
func shorten(b []byte) string {
	if len(b) > maxText {
		return string(b[:maxText]) + "..."
	}
	return string(b)
}

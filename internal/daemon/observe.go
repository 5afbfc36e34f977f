package daemon

import (
	"context"
	"log/slog"
	"strconv"

	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// maxLogged is how many octets of a string that a caller sent are logged.
const maxLogged = 255

// observer returns a function that logs a call and what became of it, in one line. Call and reply may hold anything.
func observer(log *slog.Logger) func(from portmap.Caller, call, reply []byte) {
	return func(from portmap.Caller, call, reply []byte) {
		attrs := append(make([]slog.Attr, 0, 8), slog.String("from", callerName(from)))
		c, err := oncrpc.ParseCall(call)
		if err != nil {
			attrs = append(attrs, slog.Int("octets", len(call)))
			log.LogAttrs(context.Background(), slog.LevelInfo, "not a call", attrs...)
			return
		}
		message := "call of another program"
		if c.Program == rpcbind.Program {
			message = rpcbind.ProcedureName(c.Version, c.Procedure)
			attrs = append(attrs, slog.Uint64("v", uint64(c.Version)), slog.String("RPC_PROC", message))
			attrs = append(attrs, arguments(c)...)
		} else {
			attrs = append(attrs, slog.Uint64("program", uint64(c.Program)), slog.Uint64("version", uint64(c.Version)))
		}
		attrs = append(attrs, slog.String("answer", verdict(c, reply)))
		log.LogAttrs(context.Background(), slog.LevelInfo, message, attrs...)
	}
}

// callerName tells who called: "uid 1000" on the local socket, else as in "udp 10.0.0.5:1023".
func callerName(from portmap.Caller) string {
	if from.Transport == portmap.Local {
		if !from.HasUID {
			return "local"
		}
		return "uid " + strconv.FormatUint(uint64(from.UID), 10)
	}
	return string(from.Transport.Netid()) + " " + from.Remote.String()
}

// arguments tells what a call is about, nothing if that can't be decoded.
func arguments(c oncrpc.Call) []slog.Attr {
	d := xdr.NewDecoder(c.Args)
	switch rpcbind.ProcedureName(c.Version, c.Procedure) {
	case "SET", "UNSET", "GETPORT", "GETADDR", "GETVERSADDR", "GETADDRLIST":
		if c.Version == rpcbind.PMAPVers {
			return mappingAttrs(&d)
		}
		return rpcbAttrs(&d)
	case "CALLIT", "BCAST", "INDIRECT":
		program, version, proc := d.Uint32(), d.Uint32(), d.Uint32()
		if d.Err() != nil {
			return nil
		}
		return append(programAttrs(program, version), slog.Uint64("procedure", uint64(proc)))
	case "UADDR2TADDR":
		addr := d.Opaque(uint32(len(c.Args)))
		if d.Err() != nil {
			return nil
		}
		return []slog.Attr{slog.String("addr", shorten(addr))}
	}
	return nil
}

func programAttrs(program, version uint32) []slog.Attr {
	return []slog.Attr{slog.Uint64("program", uint64(program)), slog.Uint64("version", uint64(version))}
}

func mappingAttrs(d *xdr.Decoder) []slog.Attr {
	m := rpcbind.ReadMapping(d)
	if d.Err() != nil {
		return nil
	}
	prot := strconv.FormatUint(uint64(m.Prot), 10)
	if n, ok := rpcbind.NetidOfProt(m.Prot); ok {
		prot = string(n)
	}
	return append(programAttrs(m.Program, m.Version), slog.String("netid", prot), slog.Uint64("port", uint64(m.Port)))
}

func rpcbAttrs(d *xdr.Decoder) []slog.Attr {
	program, version := d.Uint32(), d.Uint32()
	limit := uint32(len(d.Rest())) // no string is longer than what is there
	netid, addr := d.Opaque(limit), d.Opaque(limit)
	if d.Err() != nil {
		return nil
	}
	return append(programAttrs(program, version), slog.String("netid", shorten(netid)), slog.String("addr", shorten(addr)))
}

// shorten copies what a caller sent, which is valid only during the call, and no more of it than a log needs.
func shorten(b []byte) string {
	if len(b) > maxLogged {
		return string(b[:maxLogged]) + "..."
	}
	return string(b)
}

// verdict tells what a call was answered.
func verdict(c oncrpc.Call, reply []byte) string {
	if len(reply) == 0 {
		return "none" // yet, if the call was sent on to a service
	}
	r, err := oncrpc.ParseReply(reply)
	switch {
	case err != nil:
		return "not a reply"
	case r.Denied && r.Reject == oncrpc.AuthError:
		return r.Auth.String()
	case r.Denied:
		return r.Reject.String()
	case r.Accept != oncrpc.Success:
		return r.Accept.String()
	}
	d := xdr.NewDecoder(r.Results)
	answer := strconv.Itoa(len(r.Results)) + " octets"
	switch rpcbind.ProcedureName(c.Version, c.Procedure) {
	case "NULL":
		answer = "SUCCESS"
	case "SET", "UNSET":
		answer = "FALSE"
		if d.Bool() {
			answer = "TRUE"
		}
	case "GETPORT":
		answer = "port " + strconv.FormatUint(uint64(d.Uint32()), 10)
	case "GETADDR", "GETVERSADDR", "TADDR2UADDR":
		answer = shorten(d.Opaque(uint32(len(r.Results))))
		if answer == "" {
			answer = "not registered"
			if c.Procedure == rpcbind.ProcTAddr2UAddr {
				answer = "no address"
			}
		}
	}
	if d.Err() != nil {
		return "not a reply"
	}
	return answer
}

package rpcbind

import (
	"context"

	"github.com/gportmap/gportmap/pkg/xdr"
)

// StatProcs is the number of procedure counters that each version has in [Stats] (RFC 1833 section 2.1,
// RPCBSTAT_HIGHPROC).
const StatProcs = 13

// Stats is what a portmapper has counted since it started, for the versions 2, 3 and 4 of the protocol in this order
// (RFC 1833 section 2.1, rpcb_stat_byvers).
type Stats [3]VersionStats

// Of returns the statistics of version 2, 3 or 4; those of any other version are empty.
func (s *Stats) Of(vers uint32) VersionStats {
	if vers < PMAPVers || vers > RPCBVers4 {
		return VersionStats{}
	}
	return s[vers-PMAPVers]
}

// VersionStats counts the calls in one version of the protocol (RFC 1833 section 2.1, struct rpcb_stat).
type VersionStats struct {
	Calls   [StatProcs]uint32 // by procedure
	Sets    uint32            // SETs that were answered TRUE
	Unsets  uint32            // UNSETs that were answered TRUE
	Lookups []LookupStats     // newest program first
	Remote  []RemoteStats     // newest program first
}

// LookupStats counts the lookups of one program and version on one transport (RFC 1833 section 2.1, struct
// rpcbs_addrlist).
type LookupStats struct {
	Program uint32
	Version uint32
	Success uint32
	Failure uint32
	Netid   Netid
}

// RemoteStats counts the remote calls of one procedure (RFC 1833 section 2.1, struct rpcbs_rmtcalllist).
type RemoteStats struct {
	Program   uint32
	Version   uint32
	Procedure uint32
	Success   uint32
	Failure   uint32
	Indirect  uint32 // of these, by INDIRECT
	Netid     Netid
}

// Stat asks for the portmapper's statistics, in version 4 (RFC 1833 section 2.2.2, GETSTAT). Over UDP a portmapper may
// refuse because of the size of the reply.
func (c *Client) Stat(ctx context.Context) (*Stats, error) {
	r, err := c.call(ctx, RPCB{}, question{"GETSTAT", RPCBVers4, ProcGetStat, nil})
	if err != nil {
		return nil, err
	}
	s := ReadStats(&r.d, maxString)
	if err := r.check(); err != nil {
		return nil, err
	}
	return s, nil
}

// AppendStats appends s as the result of GETSTAT: three times 68 octets and the lists, of which an element takes at
// least 24 or 32.
func AppendStats(dst []byte, s *Stats) []byte {
	for _, v := range s {
		for _, n := range v.Calls {
			dst = xdr.AppendUint32(dst, n)
		}
		dst = xdr.AppendUint32(dst, v.Sets)
		dst = xdr.AppendUint32(dst, v.Unsets)
		for _, l := range v.Lookups {
			dst = appendWords(xdr.AppendBool(dst, true), l.Program, l.Version, l.Success, l.Failure)
			dst = xdr.AppendString(dst, string(l.Netid))
		}
		dst = xdr.AppendBool(dst, false)
		for _, m := range v.Remote {
			dst = appendWords(xdr.AppendBool(dst, true), m.Program, m.Version, m.Procedure, m.Success, m.Failure, m.Indirect)
			dst = xdr.AppendString(dst, string(m.Netid))
		}
		dst = xdr.AppendBool(dst, false)
	}
	return dst
}

func appendWords(dst []byte, words ...uint32) []byte {
	for _, w := range words {
		dst = xdr.AppendUint32(dst, w)
	}
	return dst
}

// ReadStats reads the result of GETSTAT, whose netids have at most limit octets each. It allocates in proportion to the
// elements that are there, at least 24 octets each; d.Err tells whether all was there.
func ReadStats(d *xdr.Decoder, limit uint32) *Stats {
	s := &Stats{}
	for i := range s {
		v := &s[i]
		for j := range v.Calls {
			v.Calls[j] = d.Uint32()
		}
		v.Sets, v.Unsets = d.Uint32(), d.Uint32()
		for d.Bool() {
			l := LookupStats{Program: d.Uint32(), Version: d.Uint32(), Success: d.Uint32(), Failure: d.Uint32()}
			l.Netid = Netid(d.Opaque(limit))
			if d.Err() == nil {
				v.Lookups = append(v.Lookups, l)
			}
		}
		for d.Bool() {
			m := RemoteStats{Program: d.Uint32(), Version: d.Uint32(), Procedure: d.Uint32()}
			m.Success, m.Failure, m.Indirect = d.Uint32(), d.Uint32(), d.Uint32()
			m.Netid = Netid(d.Opaque(limit))
			if d.Err() == nil {
				v.Remote = append(v.Remote, m)
			}
		}
	}
	return s
}

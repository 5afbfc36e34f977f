package main

import (
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

type jsonStats struct {
	Version uint32            `json:"version"`
	Calls   map[string]uint32 `json:"calls"` // by procedure
	Sets    uint32            `json:"sets"`  // answered TRUE, as those below
	Unsets  uint32            `json:"unsets"`
	Lookups []jsonLookup      `json:"lookups"`
	Remote  []jsonRemote      `json:"remote_calls"`
}

type jsonLookup struct {
	jsonProgram
	Version uint32 `json:"version"`
	Netid   string `json:"netid"`
	Success uint32 `json:"success"`
	Failure uint32 `json:"failure"`
}

type jsonRemote struct {
	jsonLookup
	Procedure uint32 `json:"procedure"`
	Indirect  uint32 `json:"indirect"`
}

func (c counted) json(n names) any {
	list := make([]jsonStats, 0, len(c.stats))
	for vers := uint32(rpcbind.PMAPVers); vers <= rpcbind.RPCBVers4; vers++ {
		s := c.stats.Of(vers)
		v := jsonStats{Version: vers, Calls: make(map[string]uint32), Sets: s.Sets, Unsets: s.Unsets, Lookups: []jsonLookup{}, Remote: []jsonRemote{}}
		for proc, name := range procedureNames(vers) {
			v.Calls[name] = s.Calls[proc]
		}
		for _, l := range s.Lookups {
			v.Lookups = append(v.Lookups, jsonLookup{n.json(l.Program), l.Version, string(l.Netid), l.Success, l.Failure})
		}
		for _, r := range s.Remote {
			lookup := jsonLookup{n.json(r.Program), r.Version, string(r.Netid), r.Success, r.Failure}
			v.Remote = append(v.Remote, jsonRemote{lookup, r.Procedure, r.Indirect})
		}
		list = append(list, v)
	}
	return struct {
		Host       string      `json:"host,omitempty"`
		Statistics []jsonStats `json:"statistics"`
	}{c.host, list}
}

// procedureNames are the names of RFC 1833, which rpcinfo's columns cut short.
func procedureNames(vers uint32) []string {
	all := []string{"NULL", "SET", "UNSET", "GETADDR", "DUMP", "CALLIT", "GETTIME", "UADDR2TADDR", "TADDR2UADDR", "GETVERSADDR",
		"INDIRECT", "GETADDRLIST", "GETSTAT"}
	switch vers {
	case rpcbind.PMAPVers:
		all[rpcbind.ProcGetPort] = "GETPORT"
	case rpcbind.RPCBVers4:
		all[rpcbind.ProcBcast] = "BCAST"
	}
	return all[:len(statsHeads[vers])]
}

// Package admin tells people and monitoring how the daemon is: over a local socket that root and a group may open, in JSON
// and as metrics, and where that was configured as metrics over TCP.
//
//	GET /v1/status         a Status
//	GET /v1/registrations  a list of Registrations, with the processes that hold their ports
//	GET /v1/reload         a Reload
//	GET /metrics           Prometheus's text format
//
// It is HTTP/1.1 without net/http, which alone would take the daemon over its limits of size: 1.6 MiB of memory while idle
// and 2.3 MB of the program.
package admin

import "time"

// SocketName is the name of the socket in the state directory.
const SocketName = "gportmap.sock"

// Status is how a daemon is.
type Status struct {
	Version     string    `json:"version"`
	Commit      string    `json:"commit,omitempty"`
	Go          string    `json:"go"`
	PID         int       `json:"pid"`
	Started     time.Time `json:"started"`
	Now         time.Time `json:"now"`
	Listeners   []string  `json:"listeners"`
	Goroutines  int       `json:"goroutines"`
	MemoryBytes uint64    `json:"resident_memory_bytes"`

	Registrations Registered  `json:"registrations"`
	Calls         []CallCount `json:"calls"`
	Connections   Connections `json:"connections"`
	RateLimited   uint64      `json:"rate_limited"`
	State         State       `json:"state"`
	Clients       []Client    `json:"clients"` // who called lately, the last one first; a bounded number
	Changes       []Event     `json:"changes"` // the latest SETs and UNSETs that were answered TRUE
	Refused       []Event     `json:"refused"` // the latest refused calls
}

// Registered counts registrations, the daemon's own left out.
type Registered struct {
	Alive   int `json:"alive"`
	Dead    int `json:"dead"`    // nobody is bound to their port any more
	Unknown int `json:"unknown"` // not of an IP address of this host, or the kernel doesn't tell
}

// Total is the number of all of them.
func (r Registered) Total() int { return r.Alive + r.Dead + r.Unknown }

// CallCount is how many calls had these four in common. Version and procedure are "other" for those that program 100000
// doesn't have.
type CallCount struct {
	Version   string `json:"version"`
	Procedure string `json:"procedure"`
	Transport string `json:"transport"`
	Verdict   string `json:"verdict"`
	Count     uint64 `json:"count"`
}

// Connections counts connections.
type Connections struct {
	TCP    int    `json:"tcp"`   // open now
	Local  int    `json:"local"` // open now
	Opened uint64 `json:"opened"`
}

// State is how the registrations on disk are.
type State struct {
	Dir      string    `json:"dir"`
	Error    string    `json:"error,omitempty"` // why the files are behind the table; empty if they aren't
	Writes   uint64    `json:"writes"`
	Failures uint64    `json:"failures"`
	Written  time.Time `json:"written"` // the last time
}

// Reload tells of the times that the daemon read its configuration again.
type Reload struct {
	Begun   uint64   `json:"begun"`             // how many began; one that began after a change counts it
	Ended   uint64   `json:"ended"`             // how many ended, of which the last one had this result
	Error   string   `json:"error,omitempty"`   // why everything stayed as it was
	Restart []string `json:"restart,omitempty"` // settings that only a start applies
}

// Client is one who called lately.
type Client struct {
	Peer    string    `json:"peer"` // an address, or "uid 1000"
	Calls   uint64    `json:"calls"`
	Refused uint64    `json:"refused"`
	Last    time.Time `json:"last"`
}

// Event is a call that changed something or was refused.
type Event struct {
	At          time.Time `json:"at"`
	Peer        string    `json:"peer"`                   // as in "uid 1000" and "udp 10.0.0.5:1023"
	Procedure   string    `json:"procedure,omitempty"`    // none if the call was refused for its header
	RPCBVersion uint32    `json:"rpcb_version,omitempty"` // of the portmapper protocol
	Verdict     string    `json:"verdict"`
	Program     uint32    `json:"program,omitempty"`
	Version     uint32    `json:"version,omitempty"`
	Netid       string    `json:"netid,omitempty"`
	Address     string    `json:"address,omitempty"`
	Port        uint32    `json:"port,omitempty"` // of version 2, which has no address
}

// States of a Registration.
const (
	Alive   = "alive"
	Dead    = "dead"
	Unknown = "unknown"
)

// Registration is one of the table.
type Registration struct {
	Program uint32 `json:"program"`
	Version uint32 `json:"version"`
	Netid   string `json:"netid"`
	Address string `json:"address"`
	Port    uint16 `json:"port,omitempty"`
	Owner   string `json:"owner"`
	Own     bool   `json:"own,omitempty"` // the portmapper's
	// Static tells that the configuration has it; its owner is "static".
	Static bool `json:"static,omitempty"`
	// Since is when it was registered; the zero time for one that was there before the daemon began.
	Since time.Time `json:"since,omitzero"`
	State string    `json:"state"`
	// Server is the process that is bound to the port; nil if that can't be seen.
	Server *Process `json:"server,omitempty"`
}

// Process is who serves a registration.
type Process struct {
	PID     int    `json:"pid,omitempty"` // 0 for the kernel
	Command string `json:"command"`
	User    string `json:"user,omitempty"`
	Unit    string `json:"unit,omitempty"` // of systemd's, or a container
}

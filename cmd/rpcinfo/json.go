package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf16"

	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// The values of --json: one object on a line for each host, or for each event. Fields may be added, none is renamed.

// printJSON prints a value on a line of its own, with everything that could drive a terminal escaped.
func (a *asker) printJSON(v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	return a.print(escapeJSON(b.String()))
}

// escapeJSON escapes what is unprintable in encoded JSON, where that can be only in strings.
func escapeJSON(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return r != '\n' && unprintable(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\n' || !unprintable(r):
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// jsonError is what is printed in place of an answer.
type jsonError struct {
	Host  string `json:"host,omitempty"`
	Error string `json:"error"`
}

// jsonProgram names a program.
type jsonProgram struct {
	Program uint32 `json:"program"`
	Service string `json:"service,omitempty"`
}

func (n names) json(program uint32) jsonProgram { return jsonProgram{program, n.name[program]} }

type jsonRegistration struct {
	jsonProgram
	Version uint32 `json:"version"`
	Netid   string `json:"netid"`
	Address string `json:"address"`
	Port    uint16 `json:"port,omitempty"` // of an address that has one
	Owner   string `json:"owner"`
}

func registrationJSON(r rpcbind.RPCB, n names) jsonRegistration {
	at, _ := rpcbind.ParseUAddr(r.Addr)
	return jsonRegistration{n.json(r.Program), r.Version, string(r.Netid), r.Addr, at.Port(), r.Owner}
}

func (l listed) json(n names) any {
	list := make([]jsonRegistration, 0, len(l.list))
	for _, r := range l.list {
		list = append(list, registrationJSON(r, n))
	}
	return struct {
		Host          string             `json:"host,omitempty"`
		Registrations []jsonRegistration `json:"registrations"`
	}{l.host, list}
}

type jsonPrograms struct {
	jsonProgram
	Versions []uint32 `json:"versions"`
	Netids   []string `json:"netids"`
	Owner    string   `json:"owner"`
}

func (s inShort) json(n names) any {
	list := make([]jsonPrograms, 0)
	for _, l := range s.lines() {
		list = append(list, jsonPrograms{n.json(l.program), l.versions, l.netids, l.owner})
	}
	return struct {
		Host     string         `json:"host,omitempty"`
		Programs []jsonPrograms `json:"programs"`
	}{s.host, list}
}

type jsonMapping struct {
	jsonProgram
	Version  uint32 `json:"version"`
	Protocol string `json:"protocol"`
	Port     uint32 `json:"port"`
}

func (l mapped) json(n names) any {
	list := make([]jsonMapping, 0, len(l.list))
	for _, m := range l.list {
		list = append(list, jsonMapping{n.json(m.Program), m.Version, protocol(m.Prot), m.Port})
	}
	return struct {
		Host     string        `json:"host,omitempty"`
		Mappings []jsonMapping `json:"mappings"`
	}{l.host, list}
}

type jsonAddress struct {
	Netid   string `json:"netid"`
	Family  string `json:"family"`
	Proto   string `json:"protocol"`
	Class   string `json:"class"`
	Address string `json:"address"`
	Port    uint16 `json:"port,omitempty"`
}

func (f addressed) json(n names) any {
	list := make([]jsonAddress, 0, len(f.list))
	for _, e := range f.list {
		at, _ := rpcbind.ParseUAddr(e.Addr)
		list = append(list, jsonAddress{string(e.Netid), e.Family, e.Proto, semantics(e.Semantics), e.Addr, at.Port()})
	}
	return struct {
		Host string `json:"host,omitempty"`
		jsonProgram
		Version   uint32        `json:"version"`
		Addresses []jsonAddress `json:"addresses"`
	}{f.host, n.json(f.program), f.version, list}
}

type jsonResult struct {
	Version uint32  `json:"version"`
	Ready   bool    `json:"ready"`
	Seconds float64 `json:"seconds,omitempty"` // until the answer came
	Error   string  `json:"error,omitempty"`
}

func (p *prober) json(n names) any {
	list := make([]jsonResult, 0, len(p.results))
	for _, r := range p.results {
		result := jsonResult{Version: r.version, Ready: r.failed == nil, Seconds: r.took.Seconds()}
		if r.failed != nil {
			result.Error = r.failed.called()
		}
		list = append(list, result)
	}
	return struct {
		Host string `json:"host,omitempty"`
		jsonProgram
		Netid    string       `json:"netid"`
		Address  string       `json:"address"`
		Versions []jsonResult `json:"versions"`
	}{p.a.host, n.json(p.program), p.client.netid, p.client.uaddr(), list}
}

func (d deleted) json(n names) any {
	return struct {
		jsonProgram
		Version uint32 `json:"version"`
		Netid   string `json:"netid,omitempty"` // without: all
		Deleted bool   `json:"deleted"`
	}{n.json(d.program), d.version, d.netid, true}
}

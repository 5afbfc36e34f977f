package main

import (
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// A device is a portmapper that knows version 2 alone. Its only registration is its own over UDP.
type device struct {
	silent bool // calls of other versions get no answer, else PROG_MISMATCH 2 2
}

// reply returns the reply to a call, nil for none.
func (d device) reply(call []byte) []byte {
	if len(call) < 24 {
		return nil
	}
	xid, vers, proc := binary.BigEndian.Uint32(call), binary.BigEndian.Uint32(call[16:]), binary.BigEndian.Uint32(call[20:])
	success := oncrpc.AppendAccepted(nil, xid, oncrpc.Success)
	switch {
	case vers != rpcbind.PMAPVers && d.silent:
		return nil
	case vers != rpcbind.PMAPVers:
		return oncrpc.AppendProgMismatch(nil, xid, rpcbind.PMAPVers, rpcbind.PMAPVers)
	case proc == rpcbind.ProcGetPort:
		return xdr.AppendUint32(success, 0)
	case proc == rpcbind.ProcDump:
		success = rpcbind.AppendMappingElement(success, rpcbind.Mapping{Program: 100003, Version: 2, Prot: 17, Port: 2049})
		return xdr.AppendBool(success, false)
	}
	return success
}

// servePacket answers datagrams until the socket is closed.
func (d device) servePacket(p net.PacketConn) {
	b := make([]byte, 1<<16)
	for {
		n, from, err := p.ReadFrom(b)
		if err != nil {
			return
		}
		if r := d.reply(b[:n]); r != nil {
			_, _ = p.WriteTo(r, from)
		}
	}
}

// serveStream answers records until the connection ends.
func (d device) serveStream(c net.Conn) {
	defer c.Close()
	for {
		var mark [4]byte
		if _, err := io.ReadFull(c, mark[:]); err != nil {
			return
		}
		call := make([]byte, binary.BigEndian.Uint32(mark[:])&0xffff)
		if _, err := io.ReadFull(c, call); err != nil {
			return
		}
		if r := d.reply(call); r != nil {
			_, _ = c.Write(append(binary.BigEndian.AppendUint32(nil, 1<<31|uint32(len(r))), r...))
		}
	}
}

// TestVersion2Devices lists devices that know version 2 alone by -p, long before the time for one call is over.
func TestVersion2Devices(t *testing.T) {
	for name, c := range map[string]struct {
		device
		tcp string // what TCP does: "serve", "refuse" connections, or "hold" them without an answer
	}{
		"silent":                   {device{silent: true}, "serve"},
		"silent, UDP alone":        {device{silent: true}, "refuse"},
		"silent over TCP":          {device{silent: true}, "hold"},
		"PROG_MISMATCH":            {device{}, "serve"},
		"PROG_MISMATCH, UDP alone": {device{}, "refuse"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := testWorld(t)
			l, p := listenBoth(t)
			w.port = uint16(p.LocalAddr().(*net.UDPAddr).Port)
			t.Cleanup(func() { _, _ = l.Close(), p.Close() })
			go c.servePacket(p)
			switch c.tcp {
			case "refuse":
				_ = l.Close()
			case "serve":
				go func() {
					for {
						conn, err := l.Accept()
						if err != nil {
							return
						}
						go c.serveStream(conn)
					}
				}()
			}
			began := time.Now()
			expect(t, w, "-p --timeout 40s 127.0.0.1", said{stdout: "   program vers proto   port  service\n    100003    2   udp   2049  nfs\n"})
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

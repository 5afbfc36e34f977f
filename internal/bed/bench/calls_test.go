package bench_test

import (
	"encoding/binary"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// firstProgram is the first of the programs that are registered for a measurement: on tcp and udp, port 2049.
const firstProgram = 0x20000000

// An exchange is a call and the reply that it has to get, both without the xid's value.
type exchange struct {
	call, reply []byte
}

func newCall(version, procedure uint32, args []byte) []byte {
	return oncrpc.AppendCall(nil, oncrpc.Call{
		Program: rpcbind.Program, Version: version, Procedure: procedure, Args: args,
	})
}

func newReply(result []byte) []byte {
	return append(oncrpc.AppendAccepted(nil, 0, oncrpc.Success), result...)
}

// getPort asks for the udp port of a program that is registered.
func getPort(program uint32) exchange {
	return exchange{
		call: newCall(rpcbind.PMAPVers, rpcbind.ProcGetPort,
			rpcbind.AppendMapping(nil, rpcbind.Mapping{Program: program, Version: 1, Prot: rpcbind.ProtUDP})),
		reply: newReply([]byte{0, 0, 8, 1}),
	}
}

// getAddr asks for the address of a program, as libtirpc does, over the transport of that netid.
func getAddr(program uint32, netid rpcbind.Netid) exchange {
	return exchange{
		call: newCall(rpcbind.RPCBVers4, rpcbind.ProcGetAddr, rpcbind.AppendRPCB(nil, rpcbind.RPCB{
			Program: program, Version: 1, Netid: netid, Addr: "127.0.0.1.0.111", Owner: "libtirpc",
		})),
		reply: newReply([]byte("\x00\x00\x00\x0d127.0.0.1.8.1\x00\x00\x00")),
	}
}

// dump asks for the list of version 2. Its reply has a length and no known octets.
func dump() exchange { return exchange{call: newCall(rpcbind.PMAPVers, rpcbind.ProcDump, nil)} }

// record returns a message as a record of one fragment.
func record(message []byte) []byte {
	b := append(oncrpc.BeginRecord(nil), message...)
	oncrpc.EndRecord(b, 0)
	return b
}

// callHeader is the size of a call's header with AUTH_NONE, in octets.
const callHeader = 40

func putWord(b []byte, v uint32) { binary.BigEndian.PutUint32(b, v) }

func xidOf(message []byte) uint32       { return binary.BigEndian.Uint32(message) }
func setXID(message []byte, xid uint32) { binary.BigEndian.PutUint32(message, xid) }
func isReply(b, want []byte) (xid uint32, ok bool) {
	if len(b) != len(want) || string(b[4:]) != string(want[4:]) {
		return 0, false
	}
	return xidOf(b), true
}

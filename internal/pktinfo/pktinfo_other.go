//go:build !linux

package pktinfo

import "syscall"

// Size is the room for the control messages of a datagram in octets: here there are none.
const Size = 0

// Enable can't make this system tell how datagrams arrive.
func Enable(syscall.Conn) bool { return false }

// Parse reads nothing here.
func Parse([]byte) Arrival { return Arrival{} }

// AppendControl leaves the choice to the system.
func (a Arrival) AppendControl(dst []byte) []byte { return dst }

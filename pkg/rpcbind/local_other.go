//go:build !linux

package rpcbind

import (
	"errors"
	"net"
)

// abstractSockets tells whether the system has local sockets whose names are not in the file system.
const abstractSockets = false

// uids is asked only about abstract sockets.
func uids(net.Conn) (peer, own uint32, err error) { return 0, 0, errors.ErrUnsupported }

package rpcbind

import (
	"net"
	"syscall"
)

// abstractSockets tells whether the system has local sockets whose names are not in the file system.
const abstractSockets = true

// uids returns the user who made the listening socket at the other end of a local connection, and our own.
func uids(conn net.Conn) (peer, own uint32, err error) {
	s, ok := conn.(syscall.Conn)
	if !ok {
		return 0, 0, syscall.EOPNOTSUPP
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	var cred *syscall.Ucred
	var asked error
	err = raw.Control(func(fd uintptr) {
		cred, asked = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err == nil {
		err = asked
	}
	if err != nil {
		return 0, 0, err
	}
	return cred.Uid, uint32(syscall.Geteuid()), nil
}

package sys

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// managerPatience is how long the service manager may take to take a message. Its queue is short, and it reads nothing while
// it reloads its units.
const managerPatience = time.Second

// A managerSocket sends messages to the service manager (sd_notify(3)). Any number of goroutines may use it.
type managerSocket struct {
	path string

	mu    sync.Mutex
	conn  *net.UnixConn // nil until it is needed
	stuck bool          // the last message was not taken in time: the next ones wait for nothing, or the end would take for ever
}

// send sends a message, with a descriptor unless that is negative. It returns os.ErrDeadlineExceeded if the queue is full.
func (m *managerSocket) send(message string, fd int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	err := m.dial()
	if err == nil {
		if err = m.sendOnce(message, fd); errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNRESET) {
			// The socket that is there now may be another one.
			m.conn.Close()
			m.conn = nil
			if err = m.dial(); err == nil {
				err = m.sendOnce(message, fd)
			}
		}
	}
	m.stuck = errors.Is(err, os.ErrDeadlineExceeded)
	return err
}

func (m *managerSocket) dial() (err error) {
	if m.conn == nil {
		m.conn, err = net.DialUnix("unixgram", nil, &net.UnixAddr{Name: m.path, Net: "unixgram"})
	}
	return err
}

func (m *managerSocket) sendOnce(message string, fd int) error {
	var rights []byte
	if fd >= 0 {
		rights = unix.UnixRights(fd)
	}
	raw, err := m.conn.SyscallConn()
	if err == nil {
		err = m.conn.SetWriteDeadline(time.Now().Add(managerPatience))
	}
	if err != nil {
		return err
	}
	var sent error
	err = raw.Write(func(socket uintptr) bool { // package net sends descriptors over sockets without a peer alone
		for sent = unix.EINTR; sent == unix.EINTR; {
			sent = unix.Sendmsg(int(socket), []byte(message), rights, nil, 0)
		}
		return sent != unix.EAGAIN || m.stuck
	})
	switch {
	case err != nil:
		return err
	case sent == unix.EAGAIN:
		return os.ErrDeadlineExceeded
	}
	return os.NewSyscallError("sendmsg", sent)
}

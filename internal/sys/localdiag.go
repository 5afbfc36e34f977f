package sys

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Constants and sizes of <linux/unix_diag.h>, octets.
const (
	localMessageOctets = 16 // struct unix_diag_msg
	localShowName      = 0x01
	localShowVFS       = 0x02
	localShowUID       = 0x40 // since Linux 5.3; ignored before
	localAttrName      = 0
	localAttrVFS       = 1 // uint32 inode, uint32 device
	localAttrUID       = 7
)

// localSocket is a socket of the Unix domain with the file that it is bound to.
type localSocket struct {
	BoundSocket
	onFile   bool // file is known
	ino, dev uint32
}

// LocalSockets returns the sockets of this network namespace that hold a path, or "@name" in the abstract namespace:
// those bound to the file that the path names now or, if that can't be told, those bound by that name. The error means
// that the kernel can't say.
//
// Nothing is connected to: that would start the service whose socket systemd holds. A socket of another network namespace
// isn't found, although its path can be connected to from here.
func LocalSockets(path string) ([]BoundSocket, error) {
	var st unix.Stat_t
	abstract := strings.HasPrefix(path, "@")
	if !abstract {
		switch err := unix.Lstat(path, &st); err {
		case nil:
		case unix.ENOENT:
			return nil, nil
		default:
			return nil, fmt.Errorf("who holds local socket %s: %w", path, os.NewSyscallError("lstat", err))
		}
	}
	all, err := diagLocalSockets()
	if err != nil {
		var procErr error
		if all, procErr = procLocalSockets(); procErr != nil {
			return nil, fmt.Errorf("who holds local socket %s: unix_diag: %w; %w", path, err, procErr)
		}
	}
	var byFile, byName []BoundSocket
	for _, s := range all {
		sameDevice := !abstract && s.onFile && s.dev == kernelDevice(uint64(st.Dev))
		switch {
		case sameDevice && s.ino == uint32(st.Ino):
			byFile = append(byFile, s.BoundSocket)
		case sameDevice: // bound by that name once; the file is another one now
		case s.Path == path:
			byName = append(byName, s.BoundSocket)
		}
	}
	if byFile != nil {
		return byFile, nil
	}
	// On some file systems, such as overlayfs, stat(2) shows another device than the kernel has itself.
	return byName, nil
}

// kernelDevice writes a device as the kernel does for itself: 12 bits of major, 20 of minor number.
func kernelDevice(dev uint64) uint32 { return unix.Major(dev)<<20 | unix.Minor(dev)&(1<<20-1) }

// diagLocalSockets dumps the sockets that are bound and not connected. The request is struct unix_diag_req:
//
//	uint8 family, protocol; uint16 padding; uint32 states, inode, what to show; 8 octets of cookie
func diagLocalSockets() ([]localSocket, error) {
	c, err := dialNetlink(unix.NETLINK_SOCK_DIAG, 4*diagOctets)
	if err != nil {
		return nil, err
	}
	defer c.close()
	order := binary.NativeEndian
	b := []byte{unix.AF_UNIX, 0, 0, 0}
	b = order.AppendUint32(b, 1<<stateListen|1<<stateClose)
	b = order.AppendUint32(b, 0)
	b = order.AppendUint32(b, localShowName|localShowVFS|localShowUID)
	b = order.AppendUint32(b, diagNoCookie)
	b = order.AppendUint32(b, diagNoCookie)
	var all []localSocket
	err = c.request(unix.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP, b, func(typ uint16, b []byte) {
		if s, ok := parseLocalDiag(b); ok && typ == unix.SOCK_DIAG_BY_FAMILY {
			all = append(all, s)
		}
	})
	return all, err
}

// parseLocalDiag reads struct unix_diag_msg and its attributes; a socket without a name is none.
//
//	uint8 family, type, state, padding; uint32 inode; 8 octets of cookie
func parseLocalDiag(b []byte) (localSocket, bool) {
	if len(b) < localMessageOctets {
		return localSocket{}, false
	}
	s := localSocket{BoundSocket: BoundSocket{Netid: "local", Serving: b[2] == stateListen, Inode: binary.NativeEndian.Uint32(b[4:])}}
	attributes(b[localMessageOctets:], func(typ uint16, data []byte) {
		switch {
		case typ == localAttrName:
			s.Path = localName(string(data))
		case typ == localAttrVFS && len(data) >= 8:
			s.onFile = true
			s.ino, s.dev = binary.NativeEndian.Uint32(data), binary.NativeEndian.Uint32(data[4:])
		case typ == localAttrUID && len(data) >= 4:
			s.UID, s.HasUID = binary.NativeEndian.Uint32(data), true
		}
	})
	return s, s.Path != ""
}

// localName turns the octets of struct sockaddr_un's name into a path, or "@name" for an abstract one.
func localName(name string) string {
	if abstract, ok := strings.CutPrefix(name, "\x00"); ok {
		return "@" + abstract
	}
	name, _, _ = strings.Cut(name, "\x00")
	return name
}

func procLocalSockets() ([]localSocket, error) {
	f, err := os.Open(procNet + "unix")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readProcUnix(f)
}

// readProcUnix reads lines such as these after a heading (proc_net(5)). The flag 10000 marks a listening socket, state 01
// one that isn't connected.
//
//	Num               RefCount Protocol Flags    Type St Inode Path
//	0000000000000000: 00000002 00000000 00010000 0001 01 26370 /run/rpcbind.sock
func readProcUnix(r io.Reader) ([]localSocket, error) {
	const listens, unconnected = 0x10000, "01"
	var all []localSocket
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		var f [7]string
		path := lines.Text() // what is left of the line, for a path may have blanks in it
		for i := range f {
			f[i], path, _ = strings.Cut(strings.TrimLeft(path, " "), " ")
		}
		flags, flagsErr := strconv.ParseUint(f[3], 16, 32)
		inode, inodeErr := strconv.ParseUint(f[6], 10, 32)
		if flagsErr != nil || inodeErr != nil || f[5] != unconnected || path == "" {
			continue
		}
		all = append(all, localSocket{BoundSocket: BoundSocket{
			Netid: "local", Path: path, Serving: flags&listens != 0, Inode: uint32(inode),
		}})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read %sunix: %w", procNet, err)
	}
	return all, nil
}

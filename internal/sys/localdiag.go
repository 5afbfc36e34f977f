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
// those bound to the file that the path names now. Where the kernel doesn't tell the file, the name decides. The error
// means that the kernel can't say.
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
	f := socketFile{path: path, abstract: abstract, ino: uint32(st.Ino), dev: kernelDevice(uint64(st.Dev))}
	if !abstract {
		f.super, f.knowsSuper = superblock(path)
	}
	var found []BoundSocket
	for _, s := range all {
		if f.isOf(s) {
			found = append(found, s.BoundSocket)
		}
	}
	return found, nil
}

// A socketFile is the socket file that a path names in this mount namespace, or an abstract name.
type socketFile struct {
	path       string
	abstract   bool
	ino, dev   uint32 // as stat(2) tells them
	super      uint32 // the file system's own device; on some, such as overlayfs, stat(2) shows another one
	knowsSuper bool
}

// isOf tells whether a socket is bound to the file. Its name alone is no proof: in another mount namespace, which every
// user can make, it names another file.
func (f socketFile) isOf(s localSocket) bool {
	switch {
	case f.abstract, !s.onFile:
		return s.Path == f.path
	case f.knowsSuper && s.dev != f.super:
		return false
	case f.knowsSuper && f.dev != f.super: // the inode's number, too, may be another one for stat(2)
		return s.Path == f.path
	case s.dev == f.dev:
		return s.ino == f.ino
	}
	return !f.knowsSuper && s.Path == f.path
}

// superblock returns the device of the file system that path is on, as the kernel knows it itself.
func superblock(path string) (dev uint32, ok bool) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, false
	}
	defer unix.Close(fd)
	info, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
	if err != nil {
		return 0, false
	}
	id := ""
	for line := range strings.Lines(string(info)) {
		if v, found := strings.CutPrefix(line, "mnt_id:"); found {
			id = strings.TrimSpace(v)
		}
	}
	mounts, err := os.Open("/proc/self/mountinfo")
	if id == "" || err != nil {
		return 0, false
	}
	defer mounts.Close()
	return superblockOf(mounts, id)
}

// superblockOf reads lines such as this (proc_pid_mountinfo(5)):
//
//	36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
func superblockOf(mounts io.Reader, id string) (dev uint32, ok bool) {
	for lines := bufio.NewScanner(mounts); lines.Scan(); {
		f := strings.SplitN(lines.Text(), " ", 4)
		if len(f) < 4 || f[0] != id {
			continue
		}
		major, minor, _ := strings.Cut(f[2], ":")
		a, err := strconv.ParseUint(major, 10, 12)
		b, err2 := strconv.ParseUint(minor, 10, 20)
		return uint32(a)<<20 | uint32(b), err == nil && err2 == nil
	}
	return 0, false
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

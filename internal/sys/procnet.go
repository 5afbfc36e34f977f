package sys

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// procNet is the directory with the tables of this thread's network namespace.
const procNet = "/proc/thread-self/net/"

// procSocketsAt is diagSocketsAt by the tables of /proc/net, which don't tell whether a socket is IPv6-only.
func procSocketsAt(protocol uint8, states uint32, port uint16, families []uint8) ([]BoundSocket, error) {
	var sockets []BoundSocket
	for _, family := range families {
		name := "udp"
		if protocol == unix.IPPROTO_TCP {
			name = "tcp"
		}
		f, err := os.Open(procNet + netid(name, family == unix.AF_INET6))
		if errors.Is(err, fs.ErrNotExist) && family == unix.AF_INET6 {
			continue // no IPv6 in this kernel
		}
		if err != nil {
			return nil, err
		}
		found, err := readProcNet(f, protocol, family, states, port)
		f.Close()
		if err != nil {
			return nil, err
		}
		sockets = append(sockets, found...)
	}
	return sockets, nil
}

// readProcNet reads lines such as these after a heading (proc_net(5)). Addresses are words of 32 bits in the host's order;
// the columns used are the own address, the peer's, the state, the user and the inode.
//
//	sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
//	 7: 0100007F:006F 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1234 2 0000000000000000 0
func readProcNet(r io.Reader, protocol, family uint8, states uint32, port uint16) ([]BoundSocket, error) {
	var sockets []BoundSocket
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		d, state, ok := parseProcNet(lines.Text(), family)
		if ok && states>>state&1 != 0 && (port == 0 || d.source.Port() == port) {
			sockets = append(sockets, boundSocket(protocol, d, state, false))
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the sockets in %s: %w", procNet, err)
	}
	return sockets, nil
}

func parseProcNet(line string, family uint8) (d diagSocket, state uint8, ok bool) {
	f := strings.Fields(line)
	if len(f) < 10 {
		return diagSocket{}, 0, false
	}
	d.family = family
	source, sourceOK := parseProcAddr(f[1], family)
	dest, destOK := parseProcAddr(f[2], family)
	st, stErr := strconv.ParseUint(f[3], 16, 5)
	uid, uidErr := strconv.ParseUint(f[7], 10, 32)
	inode, inodeErr := strconv.ParseUint(f[9], 10, 32)
	d.source, d.dest, d.uid, d.inode = source, dest, uint32(uid), uint32(inode)
	return d, uint8(st), sourceOK && destOK && errors.Join(stErr, uidErr, inodeErr) == nil
}

// parseProcAddr reads "0100007F:006F", for IPv6 with four words before the colon.
func parseProcAddr(s string, family uint8) (netip.AddrPort, bool) {
	words, number, ok := strings.Cut(s, ":")
	port, err := strconv.ParseUint(number, 16, 16)
	b, hexErr := hex.DecodeString(words)
	if !ok || err != nil || hexErr != nil || len(b) != 4 && len(b) != 16 || (len(b) == 4) != (family == unix.AF_INET) {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	a, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a.Unmap(), uint16(port)), true
}

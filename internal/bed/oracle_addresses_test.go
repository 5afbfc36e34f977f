package bed_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// oddAddresses are universal addresses that are right, nearly right, and wrong.
var oddAddresses = []string{
	"1.2.3.4.5.6", "0.0.0.0.0.0", "255.255.255.255.255.255", "127.0.0.1.0.111", "127.0.0.1.1.0",
	"1.2.3.4.5.6.7", "1.2.3.4.5", "1.2.3.4", "1.2.3", "1.2", "1", ".", "..", "...", "......", ".5.6", "1.2.3.4.5.6.",
	" 1.2.3.4.5.6", "01.2.3.4.5.6", "1.2.3.400.5.6", "a.b.c.d.e.f",
	"::.0.0", "::1.0.111", "::1.1.0", "fe80::1.8.1", "fe80::1%lo.8.1", "fe80::1%1.8.1", "::ffff:1.2.3.4.8.1", "::1.2.3.4.8.1", "1:2:3:4:5:6:7:8.255.255",
	"1:2:3:4:5:6:7:8:9.1.1", "1::2::3.1.1", "::g.1.1", "::1.8", "::1", "[::1].8.1", "::1.8.1.1",
	"/run/rpcbind.sock", "/", "", "junk", "\x00", "1.2.3.4.5.6\x00", "\xff\xfe.8.1",
	"4294967297.2.3.4.5.6",
}

// sloppyAddresses are those whose host is right and whose port is not two
// octets in decimal. rpcbind reads such a port as C's atoi does.
var sloppyAddresses = []string{
	"1.2.3.4.256.1", "1.2.3.4.300.5", "1.2.3.4.5.256", "1.2.3.4.5.-6", "1.2.3.4.-5.6", "1.2.3.4.+5.6", "1.2.3.4.5.6x", "1.2.3.4.5x.6", "1.2.3.4.x.6", "1.2.3.4..6", "1.2.3.4.5.",
	"1.2.3.4.5.6 ", "1.2.3.4. 5.6", "1.2.3.4.5. 6", "1.2.3.4.05.006", "1.2.3.4.0x5.6", "1.2.3.4.5.\x006", "1.2.3.4.4294967301.6", "1.2.3.4.99999999999999999999.6", "::1.256.1", "::1.8.1 ", "::1.x.y",
}

// TestOracleAddresses converts odd addresses, and gives them as hints.
func TestOracleAddresses(t *testing.T) {
	t.Parallel()
	s := &script{}
	const program = 0x25000001
	for netid, addr := range map[string]string{"tcp": "0.0.0.0.8.1", "tcp6": "::.8.1"} {
		s.add("SET", bed.Unix, root, setAddr(4, program, 1, netid, addr))
	}
	for _, tr := range []bed.Transport{bed.TCP, bed.TCP6, bed.Unix} {
		for _, addr := range oddAddresses {
			s.add(fmt.Sprintf("UADDR2TADDR %q", addr), tr, root, message(3, rpcbind.ProcUAddr2TAddr, str(addr)))
			s.add(fmt.Sprintf("GETADDR with the hint %q", addr), tr, root, getAddr(3, program, 1, "", addr))
		}
		for _, addr := range sloppyAddresses {
			convert := s.add(fmt.Sprintf("UADDR2TADDR %q", addr), tr, root, message(3, rpcbind.ProcUAddr2TAddr, str(addr)))
			hint := s.add(fmt.Sprintf("GETADDR with the hint %q", addr), tr, root, getAddr(3, program, 1, "", addr))
			if tr.Local() || tr.IPv6() != strings.HasPrefix(addr, "::") {
				continue
			}
			convert.differs(sectionFive, convert.replies(oncrpc.Success, netbuf(0, nil)))
			registered := "0.0.0.0.8.1"
			if tr.IPv6() {
				registered = "::.8.1"
			}
			hint.differs(sectionFive, hint.replies(oncrpc.Success, str(registered)))
		}
	}
	s.compare(t)
}

// TestOracleNetbufs converts odd network addresses: each family, each length.
func TestOracleNetbufs(t *testing.T) {
	t.Parallel()
	s := &script{}
	inet := []byte{2, 0, 8, 1, 10, 0, 0, 5, 1, 2, 3, 4, 5, 6, 7, 8}
	inet6 := append([]byte{10, 0, 8, 1, 1, 2, 3, 4, 0xfe, 0x80}, make([]byte, 18)...)
	inet6[23], inet6[24] = 1, 9
	mapped := append([]byte{10, 0, 8, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4}, make([]byte, 4)...)
	local := append([]byte{1, 0}, "/run/some.sock\x00and more"...)
	for _, tr := range []bed.Transport{bed.TCP, bed.TCP6, bed.Unix} {
		for _, whole := range [][]byte{inet, inet6, mapped, local, append([]byte{0, 2, 8, 1}, inet[4:]...), append(inet[:16:16], inet6...), make([]byte, 28), make([]byte, 200)} {
			for octets := 0; octets <= len(whole); octets++ {
				s.add(fmt.Sprintf("TADDR2UADDR of %x", whole[:octets]), tr, root, message(4, rpcbind.ProcTAddr2UAddr, netbuf(uint32(len(whole)), whole[:octets])))
			}
		}
		for _, maxlen := range []uint32{0, 1, 16, 28, 110, 1<<31 - 1, 1<<32 - 1} {
			s.add(fmt.Sprintf("TADDR2UADDR, maxlen %d", maxlen), tr, root, message(3, rpcbind.ProcTAddr2UAddr, netbuf(maxlen, inet)))
		}
	}
	s.compare(t)
}

package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

func TestCommands(t *testing.T) {
	a := instanceFor(t)
	r := start(t, a.args()...)
	defer r.end(t, syscall.SIGTERM)
	host := fmt.Sprintf("127.0.0.1:%d", a.port)
	owner := "superuser"
	if uid := os.Getuid(); uid != 0 {
		owner = fmt.Sprint(uid)
	}
	for _, c := range []struct {
		args   string
		code   int
		stdout string // contains; "" is nothing
		stderr string
	}{
		{"list", 0, "portmapper", ""},
		{"list", 0, a.socket(), ""},
		{"set 300000 1 tcp 0.0.0.0.8.1", 0, "", ""},
		{"set 300000 1 tcp 0.0.0.0.8.1", 0, "", ""},
		// Not an address of this host: whether somebody serves it can't be told, and so it isn't replaced.
		{"set 300002 1 tcp 192.0.2.1.8.1", 0, "", ""},
		{"set 300002 1 tcp 192.0.2.1.8.2", 1, "", "refused: 192.0.2.1.8.1 is registered, by " + owner},
		{"set 300001 1 tcp nonsense", 1, "", `refused: "nonsense" is no universal address of netid "tcp"`},
		{"set 300001 1 x" + strings.Repeat("x", 300) + " a", 1, "", "perhaps as many as it allows"},
		{"set 0x493e1 1 udp 0.0.0.0.8.3", 0, "", ""},
		{"list", 0, "300000   1     tcp    2049   0.0.0.0.8.1", ""},
		{"list", 0, owner, ""},
		{"getaddr 300000 1 tcp", 0, "0.0.0.0.8.1\n", ""},
		{"getaddr 300001 1 UDP", 0, "0.0.0.0.8.3\n", ""},
		{"getaddr 300000 2 tcp", 1, "", "not registered"},
		{"getaddr 300000 1 udp", 1, "", "not registered"},
		{"getaddr 300000 1 tcp --host " + host, 0, "127.0.0.1.8.1\n", ""},
		{"getaddr 300001 1 udp --host " + host, 0, "127.0.0.1.8.3\n", ""},
		{"getaddr 300001 1 tcp --host " + host, 1, "", "not registered"},
		{"getaddr 300001 1 local --host " + host, 64, "", "local"},
		{"list --host " + host, 0, "300000", ""},
		{"unset 100000 4", 1, "", "refused"},
		{"unset 300000 1 udp", 0, "", ""},
		{"getaddr 300000 1 tcp", 0, "0.0.0.0.8.1\n", ""},
		{"unset 300000 1", 0, "", ""},
		{"getaddr 300000 1 tcp", 1, "", "not registered"},
		{"unset --help", 0, "unset PROGRAM VERSION [NETID]", ""},
	} {
		args := strings.Fields(c.args)
		if !strings.Contains(c.args, "--host") {
			args = append(args, "--socket", a.socket())
		}
		code, stdout, stderr := execute(t, args...)
		if code != c.code || !strings.Contains(stdout, c.stdout) || (c.stdout == "") != (stdout == "") ||
			!strings.Contains(stderr, c.stderr) || (c.stderr == "") != (stderr == "") {
			t.Errorf("%s: exit code %d, %q, %q; want %d, %q, %q", c.args, code, stdout, stderr, c.code, c.stdout, c.stderr)
		}
	}
}

// TestAnotherPortmapperCantDriveTheTerminal asks one whose strings are escape sequences.
func TestAnotherPortmapperCantDriveTheTerminal(t *testing.T) {
	const evil = "\x1b[2J\r\n\u202e\xff"
	path := instanceFor(t).dir + ".sock"
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			answerDump(c, rpcbind.RPCB{Program: 1, Version: 2, Netid: evil, Addr: evil, Owner: evil})
			c.Close()
		}
	}()
	for _, args := range [][]string{{"list"}, {"getaddr", "1", "2", evil}, {"getaddr", "1", "3", evil}} {
		_, stdout, stderr := execute(t, append(args, "--socket", path)...)
		if strings.ContainsAny(stdout+stderr, "\x1b\r\u202e") || !strings.Contains(stdout+stderr, `\x1b[2J`) {
			t.Errorf("%q: %q, %q", args, stdout, stderr)
		}
	}
}

// answerDump reads one call and answers it with a list of one registration.
func answerDump(c net.Conn, b rpcbind.RPCB) {
	var mark [4]byte
	if _, err := io.ReadFull(c, mark[:]); err != nil {
		return
	}
	call := make([]byte, binary.BigEndian.Uint32(mark[:])&0x7fffffff)
	if _, err := io.ReadFull(c, call); err != nil {
		return
	}
	out := oncrpc.BeginRecord(nil)
	out = oncrpc.AppendAccepted(out, binary.BigEndian.Uint32(call), oncrpc.Success)
	out = xdr.AppendBool(rpcbind.AppendRPCBElement(out, b), false)
	oncrpc.EndRecord(out, 0)
	c.Write(out)
}

package daemon

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/gportmap/gportmap/internal/instance"
)

func TestRefusalNamesEverySocketAndWhatToDo(t *testing.T) {
	c := Config{Port: 111, Socket: "/run/rpcbind.sock"}
	// Ports of a loopback address that surely nobody has.
	udp := instance.Endpoint{Netid: "udp", Addr: netip.MustParseAddrPort("127.111.111.111:1")}
	tcp := instance.Endpoint{Netid: "tcp", Addr: netip.MustParseAddrPort("127.111.111.111:1")}
	local := instance.Endpoint{Netid: "local", Path: "/nowhere/rpcbind.sock"}
	refuse := func(at instance.Endpoint, err error) refused {
		return refused{at, fmt.Errorf("listen on %v: %w", at, os.NewSyscallError("bind", err))}
	}
	for _, tc := range []struct {
		name    string
		refused []refused
		code    int
		want    []string
		not     string
	}{
		{"ports", []refused{refuse(udp, syscall.EADDRINUSE), refuse(tcp, syscall.EADDRINUSE)}, ExitUnavailable,
			[]string{"udp 127.111.111.111:1", "tcp 127.111.111.111:1", "address already in use", "try again"}, "CAP_NET"},
		{"socket", []refused{refuse(local, syscall.EADDRINUSE)}, ExitUnavailable, []string{"/nowhere/rpcbind.sock"}, "CAP_NET"},
		{"denied", []refused{refuse(udp, syscall.EACCES)}, ExitPermission, []string{"permission denied", "CAP_NET_BIND_SERVICE"}, "in use"},
		{"socket denied", []refused{refuse(local, syscall.EACCES)}, ExitPermission, []string{"permission denied"}, "CAP_NET"},
		{"not a socket", []refused{refuse(local, syscall.EEXIST)}, ExitCantCreate, []string{"file exists"}, "in use"},
		{"two reasons", []refused{refuse(tcp, syscall.EADDRINUSE), refuse(local, syscall.EEXIST)}, ExitUnavailable,
			[]string{"address already in use", "file exists"}, "CAP_NET"},
	} {
		err := refusal(c, tc.refused)
		if ExitCode(err) != tc.code {
			t.Errorf("%s: exit code %d, want %d", tc.name, ExitCode(err), tc.code)
		}
		for _, w := range tc.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q lacks %q", tc.name, err, w)
			}
		}
		if strings.Contains(err.Error(), tc.not) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %q has %q or several lines", tc.name, err, tc.not)
		}
	}
}

// TestRefusalNamesTheHolder has another process hold a port that we need on every address.
func TestRefusalNamesTheHolder(t *testing.T) {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().(*net.TCPAddr).AddrPort()
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "1000")
	cmd.ExtraFiles = []*os.File{f}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	l.Close()
	f.Close()

	c := Config{Port: at.Port(), Socket: t.TempDir() + "/s"}
	_, err = bind(c, c.endpoints([]netip.Addr{netip.IPv4Unspecified()}), nil)
	if ExitCode(err) != ExitUnavailable {
		t.Errorf("exit code %d, want %d", ExitCode(err), ExitUnavailable)
	}
	for _, want := range []string{
		fmt.Sprintf("listen on tcp 0.0.0.0:%d: address already in use", at.Port()),
		fmt.Sprintf("tcp %v is held by sleep (pid %d, user ", at, cmd.Process.Pid),
		"`sleep 1000`", "remedy: ",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
	// Nothing is bound partly: what could be had was given back.
	u, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.IPv4Unspecified(), at.Port())))
	if err != nil {
		t.Fatalf("the UDP port isn't free again: %v", err)
	}
	u.Close()
}

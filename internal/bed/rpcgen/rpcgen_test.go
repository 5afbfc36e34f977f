// Package rpcgen_test holds pkg/oncrpc and pkg/xdr against C: testdata/calc.x, made into a client and a server by rpcgen
// and libtirpc, and by hand in Go. Every client calls every server over every transport, with AUTH_NONE and AUTH_SYS,
// and each prints the same lines.
//
// The tests need rpcgen, gcc and libtirpc's headers, no root and no portmapper; what is missing is skipped with the name
// of the Debian package that has it. GPORTMAP_REQUIRE_ALL=1, as in continuous integration, turns such a skip into a
// failure.
package rpcgen_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// patience bounds what must come; nothing waits that long unless the test is about to fail.
const patience = 40 * time.Second

// missing skips the test, or fails it where nothing may be skipped.
func missing(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("GPORTMAP_REQUIRE_ALL") == "1" {
		t.Fatalf("GPORTMAP_REQUIRE_ALL=1, but the test %s", reason)
	}
	t.Skip(reason)
}

// build makes the C client and server and returns the directory that they lie in.
func build(t *testing.T) string {
	t.Helper()
	for _, p := range []struct{ name, pkg string }{{"rpcgen", "rpcsvc-proto"}, {"cpp", "cpp"}, {"gcc", "gcc libc6-dev"}} {
		if _, err := exec.LookPath(p.name); err != nil {
			missing(t, fmt.Sprintf("needs %s: apt-get install %s (%v)", p.name, p.pkg, err))
		}
	}
	if _, err := os.Stat("/usr/include/tirpc/rpc/rpc.h"); err != nil {
		missing(t, fmt.Sprintf("needs libtirpc's headers: apt-get install libtirpc-dev (%v)", err))
	}
	dir := t.TempDir()
	for _, name := range []string{"calc.x", "client.c", "server.c"} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// What rpcgen writes has unused variables and casts of its own style.
	const gcc = "gcc -Wall -Wextra -Werror -Wno-cast-function-type -Wno-unused-variable -Wno-unused-parameter -O1 -I/usr/include/tirpc -I. -o "
	for _, line := range []string{
		"rpcgen -h -o calc.h calc.x",
		"rpcgen -c -o calc_xdr.c calc.x",
		"rpcgen -m -o calc_svc.c calc.x",
		gcc + "client client.c calc_xdr.c -ltirpc",
		gcc + "server server.c calc_svc.c calc_xdr.c -ltirpc",
	} {
		words := strings.Fields(line)
		cmd := exec.Command(words[0], words[1:]...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
	}
	return dir
}

// startC starts the C server and returns the port that it serves.
func startC(t *testing.T, dir, network, host string) string {
	t.Helper()
	cmd := exec.Command(filepath.Join(dir, "server"), network[:3], host)
	var errors bytes.Buffer
	cmd.Stderr = &errors
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	var port string
	if _, err := fmt.Fscanf(stdout, "port %s\n", &port); err != nil {
		t.Fatalf("server %s %s said no port: %v\n%s", network, host, err, &errors)
	}
	return port
}

// startGo starts our server and returns the port that it serves.
func startGo(t *testing.T, network, host string) string {
	t.Helper()
	s := calcServer(t)
	served := make(chan error, 1)
	var address net.Addr
	if strings.HasPrefix(network, "udp") {
		conn, err := net.ListenPacket(network, net.JoinHostPort(host, "0"))
		if err != nil {
			t.Fatal(err)
		}
		address = conn.LocalAddr()
		go func() { served <- s.ServePacket(conn) }()
	} else {
		l, err := net.Listen(network, net.JoinHostPort(host, "0"))
		if err != nil {
			t.Fatal(err)
		}
		address = l.Addr()
		go func() { served <- s.Serve(l) }()
	}
	t.Cleanup(func() {
		s.Close()
		<-served
	})
	_, port, err := net.SplitHostPort(address.String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// callC runs the C client and returns what it printed.
func callC(t *testing.T, dir, network, host, port, auth string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "client"), network[:3], host, port, auth).CombinedOutput()
	if err != nil {
		t.Errorf("client %s %s %s %s: %v", network, host, port, auth, err)
	}
	return string(out)
}

func TestInterop(t *testing.T) {
	dir := build(t)
	for _, transport := range []struct{ network, host string }{
		{"tcp4", "127.0.0.1"}, {"udp4", "127.0.0.1"}, {"tcp6", "::1"}, {"udp6", "::1"},
	} {
		network, host := transport.network, transport.host
		t.Run(network, func(t *testing.T) {
			if strings.HasSuffix(network, "6") {
				probe, err := net.Listen("tcp6", "[::1]:0")
				if err != nil {
					missing(t, fmt.Sprintf("needs IPv6 on loopback: %v", err))
				}
				probe.Close()
			}
			ports := map[string]string{"C": startC(t, dir, network, host), "Go": startGo(t, network, host)}
			for _, auth := range []string{"none", "sys"} {
				want := transcript(strings.HasPrefix(network, "tcp"), auth == "sys")
				for server, port := range ports {
					for client, got := range map[string]string{
						"C":  callC(t, dir, network, host, port, auth),
						"Go": callGo(t, network, host, port, auth),
					} {
						if got != want {
							t.Errorf("%s client, %s server, AUTH_%s:\n%s\nwant\n%s", client, server, strings.ToUpper(auth), got, want)
						}
					}
				}
			}
		})
	}
}

// transcript is what every client prints.
func transcript(stream, sys bool) string {
	s := `null: done
evaluate: 1000 "" 1
evaluate: 9007199254741992 "a" 1
evaluate: 505 "abc" 1
evaluate: -1.0000000490000011e+66 "abcd" 1
evaluate: -166.66666666666666 "a label of thirty-two octets...." 1
evaluate: division by zero in term 1
evaluate: verdict 2
evaluate: GARBAGE_ARGS
reverse: 0 of 0, ends at -1
reverse: 1 of 1, ends at -1
reverse: 300 of 300, ends at -1
`
	if sys {
		s += "who: \"client.example\" 4242 100 4 4294967294 24\n"
	} else {
		s += "who: \"\" 0 0\n"
	}
	s += "echo: 0 octets, 1\necho: 1 octets, 1\necho: 3 octets, 1\necho: 4001 octets, 1\n"
	if stream {
		s += "echo: 300001 octets, 1\n" // libtirpc sends it in some thirty-four fragments
	}
	return s + `system: SYSTEM_ERR
weak: AUTH_ERROR 5
garbage: GARBAGE_ARGS
cut short: GARBAGE_ARGS
no procedure: PROC_UNAVAIL
no version: PROG_MISMATCH 2 4
no program: PROG_UNAVAIL
old: done
old without it: PROC_UNAVAIL
`
}

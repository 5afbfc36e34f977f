package bed_test

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"golang.org/x/sys/unix"
)

// ownEtc puts a layer over /etc, so that the test may write there.
func ownEtc(t *testing.T) {
	t.Helper()
	for _, dir := range []string{"/run/etc-upper", "/run/etc-work"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount("overlay", "/etc", "overlay", 0, "lowerdir=/etc,upperdir=/run/etc-upper,workdir=/run/etc-work"); err != nil {
		t.Skipf("needs overlay mounts to have an /etc of its own: %v", err)
	}
	os.Remove("/etc/gportmap.toml")
	accessLists(t, "", "")
}

// accessLists replaces hosts.allow and hosts.deny as an editor does.
func accessLists(t *testing.T, allow, deny string) {
	t.Helper()
	for path, text := range map[string]string{"/etc/hosts.allow": allow, "/etc/hosts.deny": deny} {
		if err := errors.Join(os.WriteFile(path+".new", []byte(text), 0o644), os.Rename(path+".new", path)); err != nil {
			t.Fatal(err)
		}
	}
}

// refuses tells whether a call is answered AUTH_TOOWEAK.
func refuses(t *testing.T, ns *bed.NS, tr bed.Transport, from bed.From, call []byte) bool {
	t.Helper()
	reply, err := ns.Call(t, tr, from, withXID(call, 1))
	if err != nil {
		t.Fatalf("call over %s: %v", tr, err)
	}
	return bytes.Equal(reply, oncrpc.AppendAuthError(nil, 1, oncrpc.AuthTooWeak))
}

// readAgain is what gportmap logs when the lists have changed.
const readAgain = "hosts.allow and hosts.deny were read again"

// TestHostsAccess holds both daemons to the same lists. Rpcbind reads them at each call, gportmap when they change.
func TestHostsAccess(t *testing.T) {
	const program = 0x30140001
	remote := bed.From{Remote: true}
	calls := map[string][]byte{
		"NULL": message(2, rpcbind.ProcNull, nil), "GETPORT": getPort(program, 1, rpcbind.ProtUDP),
		"GETADDR": getAddr(4, program, 1, "udp", ""), "GETTIME": message(3, rpcbind.ProcGetTime, nil),
		"GETVERSADDR": getVersAddr(program, 1, ""),
	}
	type asked struct {
		tr   bed.Transport
		from bed.From
	}
	callers := map[string]asked{
		"udp remote": {bed.UDP, remote}, "tcp remote": {bed.TCP, remote}, "udp6 remote": {bed.UDP6, remote}, "tcp6 remote": {bed.TCP6, remote},
		"udp": {bed.UDP, root}, "tcp6": {bed.TCP6, root}, "local": {bed.Unix, root},
	}
	eachSubject(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS, subject bed.Subject) {
		ownEtc(t)
		d := ns.Start(t, subject)
		register(t, ns, program, 1, "udp", "0.0.0.0.8.1")
		for _, c := range []struct{ allow, deny, refused string }{
			{"", "rpcbind: 10.9.9.2\n", "udp remote,tcp remote"},
			{"", "ALL: 10.9.9.0/24, [fd09::]/64 EXCEPT 10.9.9.2\n", "udp6 remote,tcp6 remote"},
			{"rpcbind: 127.0.0.1\n", "ALL: ALL\n", "udp remote,tcp remote,udp6 remote,tcp6 remote,tcp6"},
			{"rpcbind: ALL: deny\n", "", "udp remote,tcp remote,udp6 remote,tcp6 remote,udp,tcp6"},
			{"rpcbind@10.9.9.1: ALL\n", "rpcbind: 10.\n", "udp remote,tcp remote"},
			{"sshd: ALL\n", "ALL EXCEPT rpcbind: ALL\n", ""},
			{"", "", ""},
		} {
			read := strings.Count(d.Log(), readAgain)
			accessLists(t, c.allow, c.deny)
			if subject == bed.Gportmap && !eventually(func() bool { return strings.Count(d.Log(), readAgain) > read }) {
				t.Fatalf("allow %q, deny %q: not read again", c.allow, c.deny)
			}
			closed := func(name string) bool { return strings.Contains(","+c.refused+",", ","+name+",") }
			for who, a := range callers {
				for name, call := range calls {
					// Rpcbind answers NULL to everybody; section 8 no. 14.
					want := closed(who) && (subject == bed.Gportmap || name != "NULL")
					if got := refuses(t, ns, a.tr, a.from, call); got != want {
						t.Errorf("allow %q, deny %q: %s by %s refused %v, want %v", c.allow, c.deny, name, who, got, want)
					}
				}
			}
		}
	})
}

// TestHostsDenyClosesRemoteCalls shows the way around rpcbind's lists, section 8 no. 14.
func TestHostsDenyClosesRemoteCalls(t *testing.T) {
	const program = 0x30140002
	eachSubject(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS, subject bed.Subject) {
		ownEtc(t)
		accessLists(t, "", "rpcbind: 10.9.9.2\n")
		ns.Start(t, subject, "-r")
		service := listen(t, "127.0.0.1:5000")
		register(t, ns, program, 1, "udp", "0.0.0.0.19.136")
		c := ns.Dial(t, bed.UDP, bed.From{Remote: true})
		if err := c.SendCall(withXID(message(2, rpcbind.ProcCallIt, remoteCall(program, 1, 0, nil)), 9)); err != nil {
			t.Fatal(err)
		}
		if subject == bed.Rpcbind {
			service.receive(t)
			return
		}
		// A call that came after it and is answered shows that it was read.
		must(t, ns, bed.UDP, root, message(2, rpcbind.ProcNull, nil))
		if !service.none(t, 300*time.Millisecond) {
			t.Error("the call was forwarded for a host that is kept out")
		}
	})
}

// TestConfigurationFile runs the system's instance with a file, from a host that the file lets in and one that it doesn't.
func TestConfigurationFile(t *testing.T) {
	const program = 0x30140003
	gportmapOnly(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS, _ bed.Subject) {
		ownEtc(t)
		configure := func(text string) {
			t.Helper()
			if err := os.WriteFile("/etc/gportmap.toml", []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		configure("exposure = \"local\"\n")
		d := ns.Start(t, bed.Gportmap)
		register(t, ns, program, 1, "udp", "0.0.0.0.8.1")
		remote := bed.From{Remote: true}
		reload := func(text string) {
			t.Helper()
			seen := strings.Count(d.Log(), "SIGHUP")
			configure(text)
			if err := d.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			if !eventually(func() bool { return strings.Count(d.Log(), "SIGHUP") > seen }) {
				t.Fatal("nothing was reloaded")
			}
		}
		want := func(what string, tr bed.Transport, from bed.From, call []byte, refused bool) {
			t.Helper()
			if got := refuses(t, ns, tr, from, call); got != refused {
				t.Errorf("%s: refused %v, want %v", what, got, refused)
			}
		}
		lookup := getPort(program, 1, rpcbind.ProtUDP)
		want("local: a neighbour's lookup", bed.UDP, remote, lookup, true)
		want("local: our own lookup", bed.UDP, root, lookup, false)
		want("local: our own lookup at our address", bed.UDP, bed.From{To: addrPort(bed.HostIPv4)}, lookup, false)
		reload("exposure = \"lan\"\n")
		want("lan: a neighbour's lookup", bed.UDP, remote, lookup, false)
		want("lan: by IPv6", bed.TCP6, remote, getAddr(4, program, 1, "", ""), false)
		want("lan: a large datagram", bed.UDP, remote, dump(4), false)
		reload("exposure = \"lan\"\nudp-lists = \"local\"\n")
		want("no lists over UDP: a large datagram", bed.UDP, remote, dump(4), true)
		reload("udp-lists = \"local\"\nallow = [\"from 10.9.9.0/24 on " + bed.HostInterface + "\"]\ndeny = [\"program 0x30140003\"]\n")
		want("listed: a large datagram", bed.UDP, remote, dump(4), false)
		want("denied program by IPv6", bed.UDP6, remote, getAddr(4, program, 1, "", ""), true)
		want("denied program by loopback", bed.TCP, root, lookup, true)
		want("another program by loopback", bed.TCP, root, getPort(7, 1, rpcbind.ProtUDP), false)
	})
}

package instance

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/internal/sys"
)

func held(name string) sys.BoundSocket {
	netid, at, _ := strings.Cut(name, " ")
	if netid == "local" {
		return sys.BoundSocket{Netid: netid, Path: at}
	}
	return sys.BoundSocket{Netid: netid, Addr: endpoint(netid, at).Addr}
}

func TestSocketUnits(t *testing.T) {
	root := t.TempDir()
	etc, lib := filepath.Join(root, "etc"), filepath.Join(root, "lib")
	write := func(path, text string) error {
		return errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644))
	}
	if err := errors.Join(
		write(lib+"/rpcbind.socket", rpcbindSocket+"ListenStream=[::]:111\nListenDatagram=[::]:111\n"),
		write(lib+"/gportmap.socket", "[Socket]\nListenStream = %t/rpcbind.sock\nListenStream=@/run/rpcbind.sock\nListenDatagram=111\n"),
		write(lib+"/legacy.socket", "[Socket]\nListenStream=/var/run/legacy.sock\n"),
		write(lib+"/masked.socket", "[Socket]\nListenStream=0.0.0.0:111\n"),
		write(lib+"/changed.socket", "[Socket]\nListenStream=0.0.0.0:111\n"),
		write(lib+"/changed.socket.d/10.conf", "[Socket]\nListenStream=\nListenStream=0.0.0.0:999\n"),
		write(lib+"/hidden.socket.d/10.conf", "[Socket]\nListenStream=0.0.0.0:888\n"),
		write(lib+"/hidden.socket", "[Socket]\n"),
		write(etc+"/hidden.socket.d/10.conf", "[Socket]\nListenStream=0.0.0.0:777\n"),
		write(lib+"/other.service", "[Service]\nListenStream=0.0.0.0:111\n"),
		write(lib+"/noise.socket", strings.Repeat("\x00=\xff\n", 1000)),
		write(lib+"/huge.socket", strings.Repeat("#", 1<<20)+"\nListenStream=0.0.0.0:111\n"),
		os.Symlink("/dev/null", etc+"/masked.socket"),
	); err != nil {
		t.Fatal(err)
	}
	dirs := []string{filepath.Join(root, "missing"), etc, lib}
	for _, c := range []struct{ held, want string }{
		{"tcp 0.0.0.0:111", "rpcbind.socket"},
		{"udp 0.0.0.0:111", "gportmap.socket rpcbind.socket"},
		{"udp6 [::]:111", "gportmap.socket rpcbind.socket"},
		{"tcp6 [::]:111", "rpcbind.socket"},
		{"tcp 127.0.0.1:111", ""},
		{"udp 127.0.0.1:111", ""},
		{"tcp 0.0.0.0:112", ""},
		{"tcp 0.0.0.0:999", "changed.socket"},
		{"tcp 0.0.0.0:777", "hidden.socket"},
		{"tcp 0.0.0.0:888", ""},
		{"local /run/rpcbind.sock", "gportmap.socket rpcbind.socket"},
		{"local @/run/rpcbind.sock", "gportmap.socket"},
		{"local /run/legacy.sock", "legacy.socket"},
	} {
		if got := strings.Join(socketUnits(dirs, held(c.held)), " "); got != c.want {
			t.Errorf("%s: %q, want %q", c.held, got, c.want)
		}
	}
}

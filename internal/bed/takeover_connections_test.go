package bed_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// heldConnections are local connections that stay open across a takeover, as the kernel's does, each of another user.
type heldConnections map[uint32]*bed.Conn

// heldPrograms are what those users register before and after it.
var heldPrograms = map[uint32][2]uint32{0: {600000, 600001}, 1234: {600002, 600003}}

func holdConnections(t *testing.T, ns *bed.NS) heldConnections {
	t.Helper()
	held := make(heldConnections)
	for uid, programs := range heldPrograms {
		held[uid] = ns.Dial(t, bed.Unix, bed.From{UID: uid})
		held.says(t, uid, "SET before the takeover", setAddr(4, programs[0], 1, "tcp", "0.0.0.0.8.1"), true)
	}
	return held
}

// says calls on the connection of a user.
func (h heldConnections) says(t *testing.T, uid uint32, what string, call []byte, want bool) {
	t.Helper()
	reply, err := h[uid].Call(call)
	if err != nil {
		t.Fatalf("user %d: %s: %v", uid, what, err)
	}
	if !bytes.HasSuffix(reply, boolean(want)) {
		t.Errorf("user %d: %s: %x, want %v", uid, what, reply, want)
	}
}

// check goes on calling: they are answered, and who calls is known.
func (h heldConnections) check(t *testing.T) {
	t.Helper()
	h.says(t, 1234, "UNSET of root's", unsetAddr(4, heldPrograms[0][0], 1, "tcp"), false)
	for uid, programs := range heldPrograms {
		h.says(t, uid, "SET", setAddr(4, programs[1], 1, "tcp", "0.0.0.0.8.1"), true)
		h.says(t, uid, "UNSET of what was set before the takeover", unsetAddr(4, programs[0], 1, "tcp"), true)
	}
	owners := make(map[uint32]string)
	for _, b := range listed(t) {
		owners[b.Program] = b.Owner
	}
	for uid, programs := range heldPrograms {
		owner := map[uint32]string{0: rpcbind.OwnerSuperuser, 1234: "1234"}[uid]
		if _, there := owners[programs[0]]; there || owners[programs[1]] != owner {
			t.Errorf("registered by user %d are %v", uid, owners)
		}
	}
}

// TestTakeoverConnections: a local connection that a client keeps is served on, over several takeovers.
func TestTakeoverConnections(t *testing.T) {
	bed.NeedRpcbind(t)
	for _, old := range []bed.Subject{bed.Rpcbind, bed.Gportmap} {
		t.Run(old.String(), func(t *testing.T) {
			bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
				stateDir(t)
				startOld(t, ns, old)
				held := holdConnections(t, ns)
				d := takeOver(t, ns)
				held.check(t)
				if logLine(d, "connections are served on that the other portmapper had") == "" {
					t.Errorf("it doesn't say so:\n%s", d.Log())
				}
			})
		})
	}
}

// TestTakeoverConnectionsPutBack: what was copied is given up when a takeover fails, so that clients see the end.
func TestTakeoverConnectionsPutBack(t *testing.T) {
	bed.NeedRpcbind(t)
	bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
		stateDir(t)
		startOld(t, ns, bed.Rpcbind)
		held := holdConnections(t, ns)
		addNeeded(t)
		release := holdUp(t)
		d := ns.StartBare(t, bed.Gportmap, "--takeover", "-h", needed)
		release()
		if err := d.Wait(); err == nil {
			t.Error("it succeeded")
		}
		for uid, conn := range held {
			if err := conn.WaitClosed(takeoverPatience); err != nil {
				t.Errorf("user %d: %v", uid, err)
			}
		}
	})
}

// TestTakeoverConnectionsByUnit: the command hands the connections over to the unit's process, which systemd starts.
func TestTakeoverConnectionsByUnit(t *testing.T) {
	bed.NeedRpcbind(t)
	bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
		stateDir(t)
		dir := systemd(t, startOld(t, ns, bed.Rpcbind))
		held := holdConnections(t, ns)
		path, err := bed.Gportmap.Path()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "installed"), []byte(path), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll("/run/systemd/system", 0o755); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(path, "takeover").CombinedOutput()
		if err != nil || bytes.Contains(out, []byte("connections end")) {
			t.Fatalf("%v, %s", err, out)
		}
		held.check(t)
	})
}

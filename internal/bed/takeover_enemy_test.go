package bed_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// enemyUID is an ordinary user of the host.
const enemyUID = 4321

// enemyEnv says, in the environment of this test program, that it is the enemy, and which file's lock to wait for.
const enemyEnv = "GPORTMAP_BED_ENEMY"

// enemy calls itself rpcbind, takes the abstract socket, which rpcbind 1.2.6 leaves free, and answers every call: a list
// with a forged registration. It doesn't return.
func enemy(lock string) {
	fatal := func(err error) {
		fmt.Fprintln(os.Stderr, "enemy:", err)
		os.Exit(1)
	}
	if err := os.WriteFile("/proc/self/comm", []byte("rpcbind"), 0); err != nil {
		fatal(err)
	}
	l, err := net.Listen("unix", rpcbind.SocketAbstract)
	if err != nil {
		fatal(err)
	}
	if lock != "" {
		f, err := os.Open(lock)
		if err != nil {
			fatal(err)
		}
		go syscall.Flock(int(f.Fd()), syscall.LOCK_SH)
	}
	fmt.Println("ready")
	forged := rpcbind.AppendRPCBElement(nil, rpcbind.RPCB{Program: 100003, Version: 3, Netid: "tcp", Addr: "6.6.6.6.8.1", Owner: "superuser"})
	for {
		c, err := l.Accept()
		if err != nil {
			fatal(err)
		}
		go func() {
			call := make([]byte, 1<<16)
			for {
				n, err := c.Read(call)
				if err != nil || n < 28 {
					c.Close()
					return
				}
				reply := append([]byte{0, 0, 0, 0}, call[4:8]...)
				reply = append(reply, words(1, 0, 0, 0, 0)...)
				if binary.BigEndian.Uint32(call[24:]) == rpcbind.ProcDump {
					reply = append(append(reply, forged...), 0, 0, 0, 0)
				}
				binary.BigEndian.PutUint32(reply, 1<<31|uint32(len(reply)-4))
				c.Write(reply)
			}
		}()
	}
}

// startEnemy starts it as an ordinary user. It is ended by the function that is returned, or with the test.
func startEnemy(t *testing.T, lock string) (end func()) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), enemyEnv+"=yes "+lock)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: enemyUID, Gid: enemyUID}}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end = func() {
		cmd.Process.Kill()
		cmd.Wait()
	}
	t.Cleanup(end)
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("the enemy says %q, %v", line, err)
	}
	return end
}

// TestTakeoverBelievesNobody: once rpcbind has stopped, another user's process of its name is no portmapper. What rpcbind
// saved is what counts.
func TestTakeoverBelievesNobody(t *testing.T) {
	bed.NeedRpcbind(t)
	for name, lock := range map[string]string{"socket": "", "socket and lock": "/run/rpcbind.lock"} {
		t.Run(name, func(t *testing.T) {
			bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
				stateDir(t)
				from := startOld(t, ns, bed.Rpcbind)
				regs := registerSome(t, ns)
				if err := from.Stop(); err != nil {
					t.Logf("rpcbind: %v", err)
				}
				end := startEnemy(t, lock)
				d := ns.StartBare(t, bed.Gportmap, "--takeover")
				// It serves without the name or says who has it: that isn't what this test is about.
				waitUntil(t, "gportmap serves or ends", func() bool {
					select {
					case <-d.Exited():
						return true
					default:
						return strings.Contains(d.Log(), "started: ")
					}
				})
				if line := logLine(d, "taken over from"); line != "" {
					t.Errorf("it takes over from the enemy: %s", line)
				}
				d.Stop()
				end()
				ns.Start(t, bed.Rpcbind)
				sameListed(t, "after the enemy has gone", regs)
			})
		})
	}
}

// TestTakeoverBesideAnEnemy: who has the abstract name, or waits for the lock, keeps nobody from taking over from rpcbind, and
// is neither asked nor stopped.
func TestTakeoverBesideAnEnemy(t *testing.T) {
	bed.NeedRpcbind(t)
	for name, lock := range map[string]string{"socket": "", "socket and lock": "/run/rpcbind.lock"} {
		t.Run(name, func(t *testing.T) {
			bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
				stateDir(t)
				from := startOld(t, ns, bed.Rpcbind)
				regs := registerSome(t, ns)
				startEnemy(t, lock)
				d := takeOver(t, ns)
				if err := from.Wait(); err != nil {
					t.Logf("rpcbind: %v", err)
				}
				sameListed(t, "after the takeover", regs)
				if line := logLine(d, "the abstract socket is"); !strings.Contains(line, "user 4321") {
					t.Errorf("it doesn't say who has the abstract socket: %s", line)
				}
				t.Log(logLine(d, "taken over from"))
			})
		})
	}
}

// TestTakeoverPutBackBesideAnEnemy: who waits for rpcbind's lock doesn't keep rpcbind from being put back.
func TestTakeoverPutBackBesideAnEnemy(t *testing.T) {
	bed.NeedRpcbind(t)
	bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
		stateDir(t)
		startOld(t, ns, bed.Rpcbind)
		regs := registerSome(t, ns)
		addNeeded(t)
		startEnemy(t, "/run/rpcbind.lock")
		release := holdUp(t)
		d := ns.StartBare(t, bed.Gportmap, "--takeover", "-h", needed)
		release()
		if err := d.Wait(); err == nil {
			t.Error("it succeeded")
		}
		if logLine(d, "was put back with all registrations") == "" {
			t.Errorf("it says:\n%s", d.Log())
		}
		sameListed(t, "after rpcbind was put back", regs)
	})
}

// TestTakeoverOfAnotherNetwork: a lock in a directory that network namespaces share is no reason to stop the portmapper of
// another network.
func TestTakeoverOfAnotherNetwork(t *testing.T) {
	bed.NeedRpcbind(t)
	for _, old := range []bed.Subject{bed.Rpcbind, bed.Gportmap} {
		t.Run(old.String(), func(t *testing.T) {
			bed.InNamespace(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS) {
				stateDir(t)
				from := startOld(t, ns, old)
				regs := registerSome(t, ns)
				path, err := bed.Gportmap.Path()
				if err != nil {
					t.Fatal(err)
				}
				out, err := ns.RemoteCommand(t, "timeout", "-k", "1", "20", path, "-f", "--takeover")
				if err == nil || !strings.Contains(out, "network namespace") || !strings.Contains(out, "nothing was changed") {
					t.Errorf("%v, it says %q", err, out)
				}
				select {
				case <-from.Exited():
					t.Error("the portmapper of the other network was stopped")
				default:
				}
				sameListed(t, "after the takeover that was refused", regs)
			})
		})
	}
}

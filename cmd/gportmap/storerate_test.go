package main

import (
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// nullCall is a record with a call, and nullReply the size of the record that answers it.
func nullCall() []byte {
	call := oncrpc.AppendCall(oncrpc.BeginRecord(nil), oncrpc.Call{XID: 1, Program: rpcbind.Program, Version: 4})
	oncrpc.EndRecord(call, 0)
	return call
}

const nullReply = 28

// TestCallsCostTheServiceManagerNothing counts what the service manager is told by short connections, by kept ones whose calls
// come in halves, and by those that are closed while they are kept. Each message is work for PID 1.
func TestCallsCostTheServiceManagerNothing(t *testing.T) {
	a := instanceFor(t)
	m := newServiceManager(t)
	m.start(a.args()...)
	listeners := m.listeners()
	call := nullCall()
	dial := func() net.Conn {
		conn, err := net.Dial("unix", a.socket())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	exchange := func(conn net.Conn, halves bool) {
		first := len(call)
		if halves {
			first = len(call) / 2
		}
		_, err := conn.Write(call[:first])
		if err == nil && halves {
			time.Sleep(50 * time.Microsecond)
			_, err = conn.Write(call[first:])
		}
		if err == nil {
			_, err = io.ReadFull(conn, make([]byte, nullReply))
		}
		if err != nil {
			t.Error(err)
		}
	}
	for range 300 {
		conn := dial()
		exchange(conn, false)
		conn.Close()
	}
	if n := m.told(200 * time.Millisecond); n != 0 {
		t.Errorf("300 connections of one call each: %d messages, want none", n)
	}
	conns := make([]net.Conn, 20)
	for i := range conns {
		conns[i] = dial()
		exchange(conns[i], false)
	}
	began := time.Now()
	for m.count("connection") < len(conns) {
		m.until("FDSTORE=1")
	}
	t.Logf("%d connections are kept after %v", len(conns), time.Since(began))
	var callers sync.WaitGroup
	stop := make(chan struct{})
	calls := make([]int, len(conns))
	for i, conn := range conns {
		callers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					exchange(conn, true)
					calls[i]++
				}
			}
		})
	}
	n := m.told(2 * time.Second)
	close(stop)
	callers.Wait()
	sum := 0
	for _, c := range calls {
		sum += c
	}
	if n != 0 || sum == 0 {
		t.Errorf("%d calls in halves: %d messages, want none", sum, n)
	}
	if m.listeners() != listeners {
		t.Errorf("%d listeners are kept, before %d", m.listeners(), listeners)
	}
	// A user who makes connections look as if they stayed is bounded.
	for range 5 {
		for i := range conns {
			conns[i].Close()
			conns[i] = dial()
			exchange(conns[i], false)
		}
		most := 2 * 2 * 32 // stored and removed, in two seconds, of root's; others have less
		if n := m.told(2 * time.Second); n > most {
			t.Errorf("%d messages in two seconds, want %d at most", n, most)
		}
	}
}

// fill fills the queue of a service manager that reads nothing.
func fill(t *testing.T, path string) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	for err == nil {
		err = syscall.Sendto(fd, []byte("X=1"), 0, &syscall.SockaddrUnix{Name: path})
	}
	if err != syscall.EAGAIN {
		t.Fatal(err)
	}
}

// TestServiceManagerThatReadsNothing keeps a daemon neither from serving nor from ending, and learns that it serves once it
// reads again.
func TestServiceManagerThatReadsNothing(t *testing.T) {
	for _, reads := range []bool{false, true} {
		a := instanceFor(t)
		c, path := notifySocket(t)
		t.Setenv("NOTIFY_SOCKET", path)
		t.Setenv("FDSTORE", "100")
		t.Setenv("WATCHDOG_USEC", "3000000")
		fill(t, path)
		cmd := exec.Command(os.Getenv(binaryEnv), a.args("-f")...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill() })
		for {
			if conn, err := net.Dial("unix", a.socket()); err == nil {
				conn.Close()
				break
			}
			time.Sleep(time.Millisecond)
		}
		a.ask(t)
		if reads {
			time.Sleep(3 * time.Second) // past what it waits for at most
			await(t, c, "READY=1")
		}
		began := time.Now()
		cmd.Process.Signal(syscall.SIGTERM)
		endsSoon(t, cmd, "with a full queue at NOTIFY_SOCKET")
		if code := cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("exit code %d", code)
		}
		t.Logf("it ended after %v", time.Since(began))
	}
}

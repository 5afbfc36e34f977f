package faults

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// A process is a program that a trial started.
type process struct {
	cmd  *exec.Cmd
	out  string // the file that its output goes to
	done chan struct{}
}

// launch starts a program, with its output in a file: a daemon in the background would keep a pipe open.
func (tr *trial) launch(begin func(*exec.Cmd) error, path string, args ...string) *process {
	tr.t.Helper()
	out, err := os.OpenFile(fmt.Sprintf("%s%d", outputs, len(tr.launched)), os.O_CREATE|os.O_TRUNC|os.O_RDWR|os.O_APPEND, 0o644)
	if err != nil {
		tr.t.Fatal(err)
	}
	defer out.Close()
	p := &process{cmd: exec.Command(path, args...), out: out.Name(), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	if err := begin(p.cmd); err != nil {
		tr.t.Fatalf("start %s: %v\n%s", path, err, p.output())
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	tr.launched = append(tr.launched, p)
	return p
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *process) signal(sig syscall.Signal) { _ = p.cmd.Process.Signal(sig) }

func (p *process) output() string {
	b, _ := os.ReadFile(p.out)
	return string(b)
}

// portmappers returns the names of the portmappers that run.
func (tr *trial) portmappers() (who []string) {
	for _, p := range others() {
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.pid)) // that of one that has ended can't be read
		if err != nil || exe == "" || tr.command && p.pid == tr.daemon.cmd.Process.Pid {
			continue
		}
		if p.comm == "rpcbind" || p.comm == "gportmap" {
			who = append(who, p.comm)
		}
	}
	return who
}

type other struct {
	pid  int
	comm string
}

// others returns the processes of this process namespace but this one. All are ours: this is the namespace's first process.
func others() (all []other) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil {
			all = append(all, other{pid, string(bytes.TrimSpace(comm))})
		}
	}
	return all
}

// clean ends every process but this one, and waits until the kernel has taken everything from them.
func (tr *trial) clean() {
	if os.Getpid() != 1 || !bed.Inside() {
		tr.t.Fatal("outside the namespaces")
	}
	for _, p := range others() {
		_ = syscall.Kill(p.pid, syscall.SIGKILL)
	}
	for _, p := range tr.launched {
		<-p.done
	}
	for { // the others were launched by those, and are this process's children now
		if _, err := syscall.Wait4(-1, nil, 0, nil); errors.Is(err, syscall.ECHILD) {
			break
		}
	}
	if left := others(); len(left) > 0 {
		tr.t.Fatalf("these don't end: %v", left)
	}
}

// reset makes /run as it is after a portmapper ended.
func (tr *trial) reset() {
	tr.clean()
	entries, err := os.ReadDir("/run")
	if err != nil {
		tr.t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "hosts" && e.Name() != "netns" { // the bed's
			if err := os.RemoveAll("/run/" + e.Name()); err != nil {
				tr.t.Fatal(err)
			}
		}
	}
	tr.must, tr.may = make(map[string]bool), make(map[string]bool)
	var rpcbs, mappings []byte
	for _, b := range registered() {
		tr.must[key(b)] = true
		rpcbs = rpcbind.AppendRPCBElement(rpcbs, b)
		prot, ok := b.Netid.Prot()
		if at, valid := rpcbind.ParseUAddr(b.Addr); ok && valid {
			mappings = rpcbind.AppendMappingElement(mappings,
				rpcbind.Mapping{Program: b.Program, Version: b.Version, Prot: prot, Port: uint32(at.Port())})
		}
	}
	uid := 0
	if u, err := user.Lookup("_rpc"); err == nil {
		uid, _ = strconv.Atoi(u.Uid)
	}
	err = errors.Join(os.MkdirAll("/run/lock/subsys", 0o755), os.Mkdir(stateDir, 0o755),
		os.WriteFile(configFile, []byte("max-string = 200\n"), 0o644),
		os.WriteFile(stateDir+"/rpcbind.xdr", xdr.AppendUint32(rpcbs, 0), 0o644),
		os.WriteFile(stateDir+"/portmap.xdr", xdr.AppendUint32(mappings, 0), 0o644))
	for _, path := range []string{stateDir, stateDir + "/rpcbind.xdr", stateDir + "/portmap.xdr"} {
		err = errors.Join(err, os.Chown(path, uid, -1))
	}
	if err != nil {
		tr.t.Fatal(err)
	}
	if tr.manager { // the queue takes all that it is told
		c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notifySocket, Net: "unixgram"})
		if err != nil {
			tr.t.Fatal(err)
		}
		tr.t.Cleanup(func() { c.Close() })
	}
}

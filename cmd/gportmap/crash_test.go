package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// The registrations of a client in the crash tests: programs of its own in two versions.
const (
	crashClients  = 4
	crashPrograms = 3
	crashFirst    = 0x20000000 // the range that RFC 5531 leaves to users
)

var crashAddrs = map[rpcbind.Netid][]string{
	"udp": {"0.0.0.0.200.1", "127.0.0.1.200.2"}, "tcp": {"0.0.0.0.200.1", "127.0.0.1.200.2"},
	"udp6": {"::.200.1", "::1.200.2"}, "tcp6": {"::.200.1", "::1.200.2"}, "local": {"/run/one.sock", "/run/two.sock"},
}

// A crashTable is what a client has registered: the address by program, version and netid.
type crashTable map[crashKey]string

type crashKey struct {
	prog, vers uint32
	netid      rpcbind.Netid
}

// A change is what one call does to a client's registrations, all at once; "" is not registered.
type change map[crashKey]string

func (r crashTable) after(c change) crashTable {
	next := maps.Clone(r)
	for k, addr := range c {
		if addr == "" {
			delete(next, k)
		} else {
			next[k] = addr
		}
	}
	return next
}

// crashClient registers and unregisters at full speed, one call after the other. It knows what was acknowledged.
type crashClient struct {
	first  uint32 // of its programs
	random *rand.Rand

	mu      sync.Mutex
	base    crashTable // at the last mark
	history []change   // acknowledged since then
	pending change     // of a call that got no answer: happened or not
}

func newCrashClient(number uint32, seed uint64) *crashClient {
	return &crashClient{first: crashFirst + number*crashPrograms, random: rand.New(rand.NewPCG(seed, uint64(number))), base: crashTable{}}
}

func (c *crashClient) owns(prog uint32) bool { return prog >= c.first && prog < c.first+crashPrograms }

// now returns what is registered if every acknowledged call counts.
func (c *crashClient) now() crashTable {
	r := c.base
	for _, h := range c.history {
		r = r.after(h)
	}
	return r
}

// mark begins the history anew: what was acknowledged before it has to be kept.
func (c *crashClient) mark() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.base, c.history = c.now(), nil
}

// run calls until there is no answer, because the daemon was killed.
func (c *crashClient) run(t *testing.T, socket string) {
	// Not the test's context: it is over before the last daemon is killed.
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	conn, err := rpcbind.DialPortmapper(ctx, "unix", socket)
	if err != nil {
		return // killed already
	}
	defer conn.Close()
	c.mu.Lock()
	r := c.now()
	c.mu.Unlock()
	for {
		call, effect := c.choose(r)
		ok, err := call(ctx, conn)
		c.mu.Lock()
		if err != nil {
			c.pending = effect
			c.mu.Unlock()
			if errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("no answer within %v: %v", limit, err)
			}
			return
		}
		if ok {
			c.history = append(c.history, effect)
			r = r.after(effect)
		} else if c.mustSucceed(r, effect) {
			t.Errorf("refused: %v; registered is %v", effect, r)
		}
		c.mu.Unlock()
	}
}

// mustSucceed tells whether a call may not be refused: every call but a SET with another address, of which the kernel
// tells whether the server is still there.
func (c *crashClient) mustSucceed(r crashTable, effect change) bool {
	for k, addr := range effect {
		if addr != "" && r[k] != "" && r[k] != addr {
			return false
		}
	}
	return true
}

type crashCall func(context.Context, *rpcbind.Client) (bool, error)

// choose returns a call and what it does if it is acknowledged.
func (c *crashClient) choose(r crashTable) (crashCall, change) {
	k := crashKey{c.first + c.random.Uint32N(crashPrograms), 1 + c.random.Uint32N(2), ""}
	netids := slices.Sorted(maps.Keys(crashAddrs))
	k.netid = netids[c.random.IntN(len(netids))]
	b := rpcbind.RPCB{Program: k.prog, Version: k.vers, Netid: k.netid}
	switch c.random.IntN(10) {
	case 0: // every netid
		b.Netid = ""
		return func(ctx context.Context, conn *rpcbind.Client) (bool, error) { return conn.Unset(ctx, b) }, gone(r, k, netids...)
	case 1: // version 2's: tcp and udp
		m := rpcbind.Mapping{Program: k.prog, Version: k.vers}
		return func(ctx context.Context, conn *rpcbind.Client) (bool, error) { return conn.UnsetMapping(ctx, m) }, gone(r, k, "tcp", "udp")
	case 2, 3:
		return func(ctx context.Context, conn *rpcbind.Client) (bool, error) { return conn.Unset(ctx, b) }, gone(r, k, k.netid)
	}
	b.Addr = crashAddrs[k.netid][c.random.IntN(2)]
	return func(ctx context.Context, conn *rpcbind.Client) (bool, error) { return conn.Set(ctx, b) }, change{k: b.Addr}
}

func gone(r crashTable, k crashKey, netids ...rpcbind.Netid) change {
	effect := change{}
	for _, n := range netids {
		k.netid = n
		if r[k] != "" {
			effect[k] = ""
		}
	}
	return effect
}

// check compares what a new daemon has with what the client was told: every acknowledged change, and the one that got no
// answer whole or not at all. If behind is true the state could not be written since the last mark; then it has to be one
// that the client had since then.
func (c *crashClient) check(t *testing.T, got crashTable, behind bool) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	var candidates []crashTable
	r := c.base
	for _, h := range c.history {
		if behind {
			candidates = append(candidates, r)
		}
		r = r.after(h)
	}
	candidates = append(candidates, r, r.after(c.pending))
	if !slices.ContainsFunc(candidates, func(r crashTable) bool { return maps.Equal(r, got) }) {
		t.Errorf("registered is\n%v\nacknowledged was\n%v\nand without an answer\n%v", got, r, c.pending)
	}
	c.base, c.history, c.pending = got, nil, nil
}

// crashTest is an instance with its clients.
type crashTest struct {
	an
	random  *rand.Rand
	clients []*crashClient
	running sync.WaitGroup
}

func newCrashTest(t *testing.T, a an) *crashTest {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	c := &crashTest{an: a, random: rand.New(rand.NewPCG(seed, 0))}
	for n := range uint32(crashClients) {
		c.clients = append(c.clients, newCrashClient(n, seed))
	}
	return c
}

// start runs the daemon, checks what it has restored, and lets the clients loose.
func (c *crashTest) start(t *testing.T, behind bool) *running {
	t.Helper()
	r := start(t, c.args()...)
	got := c.dump(t)
	for i, client := range c.clients {
		client.check(t, got[i], behind)
		c.running.Go(func() { client.run(t, c.socket()) })
	}
	return r
}

// kill ends the daemon at a random instant.
func (c *crashTest) kill(t *testing.T, r *running, within time.Duration) {
	t.Helper()
	time.Sleep(time.Duration(c.random.Int64N(int64(within))))
	if err := r.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	c.running.Wait()
	r.cmd.Wait()
}

// dump returns what is registered, by client, and checks that both lists tell the same.
func (c *crashTest) dump(t *testing.T) []crashTable {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	conn, err := rpcbind.DialPortmapper(ctx, "unix", c.socket())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	list, err := conn.Dump(ctx)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]crashTable, len(c.clients))
	for i := range got {
		got[i] = crashTable{}
	}
	var mappings []rpcbind.Mapping
	for _, b := range list {
		if prot, ok := b.Netid.Prot(); ok {
			addr, _ := rpcbind.ParseUAddr(b.Addr)
			mappings = append(mappings, rpcbind.Mapping{Program: b.Program, Version: b.Version, Prot: prot, Port: uint32(addr.Port())})
		}
		k := crashKey{b.Program, b.Version, b.Netid}
		i := slices.IndexFunc(c.clients, func(client *crashClient) bool { return client.owns(b.Program) })
		switch {
		case i < 0 && b.Program != rpcbind.Program:
			t.Errorf("nobody registered %+v", b)
		case i < 0:
		case got[i][k] != "":
			t.Errorf("%v is there twice", k)
		default:
			got[i][k] = b.Addr
		}
	}
	if v2, err := conn.DumpMappings(ctx); err != nil || !slices.Equal(v2, mappings) {
		t.Errorf("version 2 has %v, %v; want %v", v2, err, mappings)
	}
	return got
}

// TestCrashes kills the daemon at random instants while clients register and unregister at full speed, and in some rounds
// while it starts.
func TestCrashes(t *testing.T) {
	kills := 200
	if testing.Short() {
		kills = 30
	}
	c := newCrashTest(t, instanceFor(t))
	calls := 0
	for n := range kills {
		if n%4 == 0 {
			early := exec.Command(os.Getenv(binaryEnv), c.args("-f")...)
			if err := early.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(c.random.Int64N(int64(20 * time.Millisecond))))
			early.Process.Kill()
			early.Wait()
		}
		r := c.start(t, false)
		c.kill(t, r, 40*time.Millisecond)
		for _, client := range c.clients {
			calls += len(client.history)
		}
		if t.Failed() {
			t.Fatalf("after kill %d", n+1)
		}
	}
	c.start(t, false).cmd.Process.Kill()
	c.running.Wait()
	t.Logf("%d kills, %d acknowledged calls before them", kills, calls)
	if calls < kills {
		t.Errorf("only %d calls were acknowledged before %d kills", calls, kills)
	}
}

// TestCrashesOnAFullDisk has a daemon whose files can't grow for a while.
func TestCrashesOnAFullDisk(t *testing.T) {
	c := newCrashTest(t, instanceFor(t))
	restrict := func(t *testing.T, r *running, octets uint64) {
		t.Helper()
		var was unix.Rlimit
		err := unix.Prlimit(r.cmd.Process.Pid, unix.RLIMIT_FSIZE, nil, &was)
		if err == nil {
			err = unix.Prlimit(r.cmd.Process.Pid, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: min(octets, was.Max), Max: was.Max}, nil)
		}
		if err != nil && !errors.Is(err, syscall.ESRCH) { // killed, and the limit with it
			t.Fatal(err)
		}
	}
	c.fullDisk(t,
		func(t *testing.T, r *running) { restrict(t, r, 0) },
		func(t *testing.T, r *running) { restrict(t, r, unix.RLIM_INFINITY) })
}

// TestCrashesOnASmallDisk is the same with a small file system that another file fills.
func TestCrashesOnASmallDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts a small file system in a mount namespace")
	}
	const inside = "GPORTMAP_TEST_SMALL_DISK"
	if os.Getenv(inside) == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", fmt.Sprintf("-test.short=%v", testing.Short()))
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
		out, err := cmd.CombinedOutput()
		switch {
		case err != nil:
			t.Fatalf("in the mount namespace: %v\n%s", err, out)
		case strings.Contains(string(out), "--- SKIP"):
			t.Skipf("in the mount namespace:\n%s", out)
		}
		return
	}
	a := instanceFor(t)
	disk := filepath.Dir(a.dir)
	err := syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "")
	if err = errors.Join(err, syscall.Mount("tmpfs", disk, "tmpfs", 0, "mode=755,size=256k")); err != nil {
		t.Skipf("this root may not mount: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(disk, syscall.MNT_DETACH) })
	filler := filepath.Join(disk, "filler")
	newCrashTest(t, a).fullDisk(t,
		func(t *testing.T, _ *running) {
			t.Helper()
			f, err := os.Create(filler)
			for block := make([]byte, 4096); err == nil; {
				_, err = f.Write(block)
			}
			f.Close()
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
		},
		func(t *testing.T, _ *running) { os.Remove(filler) })
}

// fullDisk kills the daemon while its disk is full, when what was acknowledged before that has to be there, and after it
// was full, when everything has to be.
func (c *crashTest) fullDisk(t *testing.T, fill, empty func(*testing.T, *running)) {
	rounds := 20
	if testing.Short() {
		rounds = 4
	}
	behind := false
	for n := range rounds {
		r := c.start(t, behind)
		for _, client := range c.clients {
			client.mark()
		}
		fill(t, r)
		r.until(t, "state can't be written")
		behind = n%2 == 1
		if !behind {
			empty(t, r)
			r.until(t, "state is written again")
		}
		c.kill(t, r, 30*time.Millisecond)
		if behind {
			empty(t, r)
		}
		if t.Failed() {
			t.Fatalf("after kill %d", n+1)
		}
	}
	c.start(t, behind).cmd.Process.Kill()
	c.running.Wait()
}

package portmap

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/gportmap/gportmap/internal/registry"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// recorded is a line of testdata/wire/rpcbind-1.2.6.jsonl: what rpcbind answered.
type recorded struct {
	Name       string  `json:"name"`
	Transport  string  `json:"transport"`
	SourcePort *uint16 `json:"source_port"`
	Call       string  `json:"call"`
	Reply      *string `json:"reply"`
	Compare    bool    `json:"compare"`
}

// difference is a line of testdata/wire/differences.jsonl: what this portmapper answers instead.
type difference struct {
	Index int     `json:"index"`
	Name  string  `json:"name"`
	Row   int     `json:"row"`
	Reply *string `json:"reply"`
	Why   string  `json:"why"`
}

var wireDir = filepath.Join("..", "..", "testdata", "wire")

func readLines[T any](t testing.TB, name string) []T {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var list []T
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var v T
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			t.Fatalf("%s line %d: %v", name, len(list)+1, err)
		}
		list = append(list, v)
	}
	if err := lines.Err(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return list
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// caller returns who made a recorded call: root, on the host itself.
func (r recorded) caller(t testing.TB) Caller {
	t.Helper()
	transport, ok := TransportOf(rpcbind.Netid(r.Transport))
	if !ok {
		if r.Transport != "unix" {
			t.Fatalf("transport %q in the recording", r.Transport)
		}
		transport = Local
	}
	from := localCaller(transport)
	if port := uint16(40000); transport != Local {
		if r.SourcePort != nil {
			port = *r.SourcePort
		}
		from.Remote = netip.AddrPortFrom(from.Remote.Addr(), port)
	}
	return from
}

// newRecordedHost returns a portmapper like the one that was recorded: fresh, on a host with only a loopback
// interface.
func newRecordedHost(t testing.TB) *Portmapper {
	t.Helper()
	table := registry.New()
	own := func(netid rpcbind.Netid, addr string, versions ...uint32) {
		for _, v := range versions {
			err := table.SetOwn(rpcbind.RPCB{
				Program: rpcbind.Program, Version: v, Netid: netid, Addr: addr, Owner: rpcbind.OwnerSuperuser,
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	own(rpcbind.TCP6, "::.0.111", 4, 3)
	own(rpcbind.UDP6, "::.0.111", 4, 3)
	own(rpcbind.TCP, "0.0.0.0.0.111", 4, 3, 2)
	own(rpcbind.UDP, "0.0.0.0.0.111", 4, 3, 2)
	own(rpcbind.Local, "/run/rpcbind.sock", 4, 3)
	p := New(Config{Table: table, Policy: localPolicy{}, Now: func() uint32 { return testNow }})
	p.SetInterfaces(NewInterfaces([]Interface{{
		Index: ifLoopback, Up: true, Loopback: true,
		Addrs: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8"), netip.MustParsePrefix("::1/128")},
	}}))
	return p
}

// TestReplay replays the recorded calls in order and compares the replies, except those that differ on purpose.
func TestReplay(t *testing.T) {
	differences := make(map[int]difference)
	for _, d := range readLines[difference](t, filepath.Join(wireDir, "differences.jsonl")) {
		differences[d.Index] = d
	}
	p := newRecordedHost(t)
	compared := 0
	for i, r := range readLines[recorded](t, filepath.Join(wireDir, "rpcbind-1.2.6.jsonl")) {
		got := ask(p, r.caller(t), unhex(t, r.Call))
		want, d := r.Reply, difference{}
		if _, ok := differences[i]; ok {
			d = differences[i]
			want = d.Reply
		} else if !r.Compare {
			continue
		}
		compared++
		var wire []byte
		if want != nil {
			wire = unhex(t, *want)
		}
		if !bytes.Equal(got, wire) {
			t.Errorf("line %d, %s over %s, row %d %s: got reply\n%swant\n%s",
				i, r.Name, r.Transport, d.Row, d.Why, hex.Dump(got), hex.Dump(wire))
		}
	}
	if compared < 400 {
		t.Errorf("compared %d replies, want at least 400", compared)
	}
}

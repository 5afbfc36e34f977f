package registry

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// model is the table as one would write it first: a slice, walked from end to end.
type model struct {
	list []modelEntry
}

type modelEntry struct {
	rpcbind.RPCB
	own bool
}

func (m *model) set(b rpcbind.RPCB, own bool) error {
	if _, err := Validate(b); err != nil {
		return err
	}
	for _, e := range m.list {
		if e.Program == b.Program && e.Version == b.Version && strings.EqualFold(string(e.Netid), string(b.Netid)) {
			if e.Addr != b.Addr {
				return ErrTaken
			}
			return nil
		}
	}
	m.list = append(m.list, modelEntry{b, own})
	return nil
}

func (m *model) unset(prog, vers uint32, netid rpcbind.Netid, owner string) (int, error) {
	gone := func(e modelEntry) bool {
		return e.Program == prog && e.Version == vers && (netid == "" || strings.EqualFold(string(e.Netid), string(netid)))
	}
	removed := 0
	for _, e := range m.list {
		switch {
		case !gone(e):
		case e.own:
			return 0, ErrOwnEntry
		case owner != "superuser" && owner != e.Owner:
			return 0, ErrNotOwner
		default:
			removed++
		}
	}
	m.list = slices.DeleteFunc(m.list, gone)
	return removed, nil
}

func (m *model) lookup(prog, vers uint32, netid rpcbind.Netid) (hit rpcbind.RPCB) {
	_, known := netid.Transport()
	for _, e := range m.list {
		if e.Program == prog && strings.EqualFold(string(e.Netid), string(netid)) && (known || e.Version == vers) {
			hit = e.RPCB
			if e.Version == vers {
				break
			}
		}
	}
	return hit
}

func (m *model) rpcbs() (list []byte) {
	for _, e := range m.list {
		list = rpcbind.AppendRPCBElement(list, e.RPCB)
	}
	return list
}

func (m *model) mappings() (list []byte) {
	for _, e := range m.list {
		prot, ok := e.Netid.Prot()
		if !ok {
			continue
		}
		ip, _ := rpcbind.ParseUAddr(e.Addr)
		list = rpcbind.AppendMappingElement(list, rpcbind.Mapping{
			Program: e.Program, Version: e.Version, Prot: prot, Port: uint32(ip.Port()),
		})
	}
	return list
}

// What a test chooses from: few of everything, so that choices meet, and some that aren't valid.
var (
	someNetids = []rpcbind.Netid{"tcp", "udp", "tcp6", "udp6", "local", "TCP", "Udp", "sctp", ""}
	someAddrs  = []string{"0.0.0.0.8.1", "127.0.0.1.8.2", "::.8.1", "::1.8.2", "/run/x", "0.0.0.0.300.1", ""}
	someOwners = []string{"superuser", "1000", "1001", "unknown"}
)

// twins are a table and its model, which get the same changes and have to give the same answers.
type twins struct {
	table *Table
	model model
}

// step carries out what eight octets say: which operation, and on what.
func (w *twins) step(t *testing.T, op []byte) {
	t.Helper()
	b := rpcbind.RPCB{
		Program: uint32(op[1]) % 20,
		Version: uint32(op[2]) % (4 + 20*(uint32(op[1])%2)), // of half of the programs many
		Netid:   someNetids[int(op[3])%len(someNetids)],
		Addr:    someAddrs[int(op[4])%len(someAddrs)],
		Owner:   someOwners[int(op[5])%len(someOwners)],
	}
	switch op[0] % 8 {
	case 0, 1, 2:
		if got, want := w.table.Set(b), w.model.set(b, false); !errors.Is(got, want) {
			t.Fatalf("Set(%+v) = %v, want %v", b, got, want)
		}
	case 3:
		if b.Program%8 != 0 { // only some programs are the portmapper's own
			return
		}
		if got, want := w.table.SetOwn(b), w.model.set(b, true); !errors.Is(got, want) {
			t.Fatalf("SetOwn(%+v) = %v, want %v", b, got, want)
		}
	case 4, 5:
		covers := func(n rpcbind.Netid) bool { return b.Netid == "" || n.Is(b.Netid) }
		got, gotErr := w.table.Unset(b.Program, b.Version, covers, b.Owner)
		want, wantErr := w.model.unset(b.Program, b.Version, b.Netid, b.Owner)
		// Of several errors either may be told.
		if got != want || (gotErr == nil) != (wantErr == nil) {
			t.Fatalf("Unset(%+v) = %d, %v, want %d, %v", b, got, gotErr, want, wantErr)
		}
	case 6:
		w.compareDumps(t)
	}
	var got rpcbind.RPCB
	if e := w.table.Lookup(b.Program, b.Version, b.Netid); e != nil {
		got = e.RPCB
	}
	if want := w.model.lookup(b.Program, b.Version, b.Netid); got != want {
		t.Fatalf("Lookup(%d, %d, %q) = %+v, want %+v", b.Program, b.Version, b.Netid, got, want)
	}
	w.compareIndex(t, b)
}

// compareIndex holds that the other ways to look at a program say the same as the model.
func (w *twins) compareIndex(t *testing.T, b rpcbind.RPCB) {
	t.Helper()
	var want []rpcbind.RPCB
	var low, high uint32
	there := false
	for _, e := range w.model.list {
		if e.Program == b.Program && e.Version == b.Version {
			want = append(want, e.RPCB)
		}
		if e.Program != b.Program || !e.Netid.Is(rpcbind.TCP) {
			continue
		}
		if !there {
			low, high, there = e.Version, e.Version, true
		}
		low, high = min(low, e.Version), max(high, e.Version)
	}
	entries := w.table.Version(b.Program, b.Version)
	var got []rpcbind.RPCB
	for _, e := range entries {
		got = append(got, e.RPCB)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("Version(%d, %d) = %+v, want %+v", b.Program, b.Version, got, want)
	}
	if l, h, ok := w.table.Versions(b.Program, rpcbind.TCP); l != low || h != high || ok != there {
		t.Fatalf("Versions(%d) = %d, %d, %v, want %d, %d, %v", b.Program, l, h, ok, low, high, there)
	}
	port, exact := w.table.Port(b.Program, b.Version, rpcbind.TCP)
	e := w.table.Lookup(b.Program, b.Version, rpcbind.TCP)
	if e == nil && (port != 0 || exact) || e != nil && (port != e.IP.Port() || exact != (e.Version == b.Version)) {
		t.Fatalf("Port(%d, %d) = %d, %v", b.Program, b.Version, port, exact)
	}
}

// compareDumps holds that what the table keeps encoded is what one gets by encoding its registrations now.
func (w *twins) compareDumps(t *testing.T) {
	t.Helper()
	if got, want := w.table.RPCBs().Append(nil), w.model.rpcbs(); !bytes.Equal(got, want) {
		t.Fatalf("RPCBs() =\n%v\nwant\n%v", listOf(t, got), listOf(t, want))
	}
	if got, want := w.table.Mappings().Append(nil), w.model.mappings(); !bytes.Equal(got, want) {
		t.Fatalf("Mappings() =\n%v\nwant\n%v", mappingsOf(t, got), mappingsOf(t, want))
	}
	if got, want := w.table.Len(), len(w.model.list); got != want {
		t.Fatalf("Len() = %d, want %d", got, want)
	}
}

const opSize = 6 // octets of an operation of twins.step

func TestTableAgainstModel(t *testing.T) {
	for seed := range uint64(40) {
		random := rand.New(rand.NewPCG(seed, 1833))
		w := twins{table: New()}
		for range 3000 {
			var op [opSize]byte
			for i := range op {
				op[i] = byte(random.Uint32())
			}
			w.step(t, op[:])
		}
		w.compareDumps(t)
		if t.Failed() {
			t.Fatalf("with seed %d", seed)
		}
	}
}

// FuzzTable reads its input as operations of six octets each.
func FuzzTable(f *testing.F) {
	f.Add([]byte("\x00\x01\x01\x00\x00\x00" + "\x04\x01\x01\x08\x00\x00"))
	f.Add([]byte("\x00\x01\x01\x00\x00\x00" + "\x00\x01\x01\x05\x01\x00" + "\x00\x01\x01\x01\x00\x01" + "\x04\x01\x01\x08\x00\x01"))
	f.Add([]byte("\x03\x10\x01\x00\x00\x00" + "\x04\x10\x01\x00\x00\x00" + "\x06\x00\x00\x00\x00\x00"))
	f.Add(bytes.Repeat([]byte("\x06\x00\x00\x00\x00\x00"+"\x00\x07\x01\x00\x00\x00"+"\x04\x07\x01\x00\x00\x00"), 8))
	f.Fuzz(func(t *testing.T, ops []byte) {
		w := twins{table: New()}
		for len(ops) >= opSize {
			w.step(t, ops[:opSize])
			ops = ops[opSize:]
		}
		w.compareDumps(t)
	})
}

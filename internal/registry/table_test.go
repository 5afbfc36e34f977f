package registry

import (
	"bytes"
	"errors"
	"slices"
	"strconv"
	"testing"

	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

func rpcb(prog, vers uint32, netid rpcbind.Netid, addr, owner string) rpcbind.RPCB {
	return rpcbind.RPCB{Program: prog, Version: vers, Netid: netid, Addr: addr, Owner: owner}
}

func mustSet(t testing.TB, table *Table, entries ...rpcbind.RPCB) {
	t.Helper()
	for _, b := range entries {
		if err := table.Set(b); err != nil {
			t.Fatalf("Set(%+v): %v", b, err)
		}
	}
}

// every covers all netids, as an UNSET with an empty one.
func every(rpcbind.Netid) bool { return true }

func only(n rpcbind.Netid) func(rpcbind.Netid) bool {
	return func(m rpcbind.Netid) bool { return m.Is(n) }
}

// listOf decodes what RPCBs returned.
func listOf(t testing.TB, elements []byte) []rpcbind.RPCB {
	t.Helper()
	d := xdr.NewDecoder(xdr.AppendBool(slices.Clone(elements), false))
	list := rpcbind.ReadRPCBList(&d, 9000)
	if d.Err() != nil || len(d.Rest()) != 0 {
		t.Fatalf("list of %d octets: %v, %d octets behind it", len(elements), d.Err(), len(d.Rest()))
	}
	return list
}

// mappingsOf decodes what Mappings returned.
func mappingsOf(t testing.TB, elements []byte) []rpcbind.Mapping {
	t.Helper()
	d := xdr.NewDecoder(xdr.AppendBool(slices.Clone(elements), false))
	list := rpcbind.ReadMappingList(&d)
	if d.Err() != nil || len(d.Rest()) != 0 {
		t.Fatalf("list of %d octets: %v, %d octets behind it", len(elements), d.Err(), len(d.Rest()))
	}
	return list
}

func wantList(t *testing.T, table *Table, want ...rpcbind.RPCB) {
	t.Helper()
	if got := listOf(t, table.RPCBs().Append(nil)); !slices.Equal(got, want) {
		t.Errorf("got table\n%v\nwant\n%v", got, want)
	}
	if got := table.Len(); got != len(want) {
		t.Errorf("Len() = %d, want %d", got, len(want))
	}
}

func TestEmptyTable(t *testing.T) {
	table := New()
	wantList(t, table)
	if e := table.Lookup(100003, 3, rpcbind.TCP); e != nil {
		t.Errorf("Lookup in an empty table = %+v", e)
	}
	if got := table.Version(100003, 3); len(got) != 0 {
		t.Errorf("Version in an empty table = %v", got)
	}
	if got := table.Mappings().Append(nil); len(got) != 0 {
		t.Errorf("Mappings of an empty table = %x", got)
	}
	if n, err := table.Unset(100003, 3, every, rpcbind.OwnerUnknown); n != 0 || err != nil {
		t.Errorf("Unset in an empty table = %d, %v", n, err)
	}
}

func TestSet(t *testing.T) {
	first := rpcb(100003, 3, rpcbind.TCP, "0.0.0.0.8.1", "superuser")
	tests := []struct {
		name  string
		b     rpcbind.RPCB
		err   error
		added bool
	}{
		{"same again", first, nil, false},
		{"same by another owner", rpcb(100003, 3, rpcbind.TCP, "0.0.0.0.8.1", "1000"), nil, false},
		{"same with the netid in capitals", rpcb(100003, 3, "TCP", "0.0.0.0.8.1", "superuser"), nil, false},
		{"another address", rpcb(100003, 3, rpcbind.TCP, "0.0.0.0.8.2", "superuser"), ErrTaken, false},
		{"another address, netid in capitals", rpcb(100003, 3, "Tcp", "0.0.0.0.8.2", "superuser"), ErrTaken, false},
		{"another version", rpcb(100003, 4, rpcbind.TCP, "0.0.0.0.8.2", "superuser"), nil, true},
		{"another netid", rpcb(100003, 3, rpcbind.UDP, "0.0.0.0.8.2", "superuser"), nil, true},
		{"the IPv6 twin", rpcb(100003, 3, rpcbind.TCP6, "::.8.1", "superuser"), nil, true},
		{"another program", rpcb(100005, 3, rpcbind.TCP, "0.0.0.0.8.1", "superuser"), nil, true},
		{"invalid", rpcb(0, 3, rpcbind.TCP, "0.0.0.0.8.1", "superuser"), ErrProgramZero, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			table := New()
			mustSet(t, table, first)
			if err := table.Set(tt.b); !errors.Is(err, tt.err) {
				t.Errorf("Set = %v, want %v", err, tt.err)
			}
			want := []rpcbind.RPCB{first}
			if tt.added {
				want = append(want, tt.b)
			}
			wantList(t, table, want...)
		})
	}
}

// TestUnset holds PROTOCOL section 4 and no. 3 and 16 of section 8: all or nothing, and nobody removes the
// portmapper's own registrations.
func TestUnset(t *testing.T) {
	entries := []rpcbind.RPCB{
		rpcb(300001, 1, rpcbind.TCP, "0.0.0.0.8.1", "superuser"),
		rpcb(300001, 1, rpcbind.UDP, "0.0.0.0.8.1", "1000"),
		rpcb(300001, 2, rpcbind.TCP, "0.0.0.0.8.1", "1000"),
		rpcb(300001, 1, "TCP6", "::.8.1", "1000"),
		rpcb(300002, 1, rpcbind.TCP, "0.0.0.0.8.2", "1000"),
		rpcb(300002, 1, rpcbind.UDP, "0.0.0.0.8.2", "1000"),
		rpcb(300003, 1, rpcbind.TCP, "0.0.0.0.8.3", "unknown"),
	}
	own := rpcb(100000, 4, rpcbind.TCP, "0.0.0.0.0.111", "superuser")
	beside := rpcb(100000, 4, rpcbind.UDP, "0.0.0.0.4.1", "1000") // where the portmapper itself has no UDP
	tests := []struct {
		name       string
		prog, vers uint32
		covers     func(rpcbind.Netid) bool
		owner      string
		err        error
		gone       []rpcbind.RPCB
	}{
		{"own registration of the owner", 300001, 1, only(rpcbind.UDP), "1000", nil, entries[1:2]},
		{"of somebody else", 300001, 1, only(rpcbind.TCP), "1000", ErrNotOwner, nil},
		{"superuser", 300001, 1, only(rpcbind.UDP), "superuser", nil, entries[1:2]},
		{"mixed owners", 300001, 1, every, "1000", ErrNotOwner, nil},
		{"mixed owners, superuser", 300001, 1, every, "superuser", nil,
			[]rpcbind.RPCB{entries[0], entries[1], entries[3]}},
		{"one owner on all netids", 300002, 1, every, "1000", nil, entries[4:6]},
		{"netid in capitals", 300001, 1, only(rpcbind.TCP6), "1000", nil, entries[3:4]},
		{"unknown owners are one owner", 300003, 1, every, "unknown", nil, entries[6:7]},
		{"unknown is not a uid", 300002, 1, every, "unknown", ErrNotOwner, nil},
		{"another version", 300002, 2, every, "1000", nil, nil},
		{"another program", 300009, 1, every, "1000", nil, nil},
		{"another netid", 300002, 1, only(rpcbind.UDP6), "1000", nil, nil},
		{"no netid", 300002, 1, func(rpcbind.Netid) bool { return false }, "1000", nil, nil},
		{"the portmapper's own", 100000, 4, only(rpcbind.TCP), "superuser", ErrOwnEntry, nil},
		{"the portmapper's own among others", 100000, 4, every, "superuser", ErrOwnEntry, nil},
		{"beside the portmapper's own", 100000, 4, only(rpcbind.UDP), "1000", nil, []rpcbind.RPCB{beside}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			table := New()
			if err := table.SetOwn(own); err != nil {
				t.Fatal(err)
			}
			all := append([]rpcbind.RPCB{own}, append(slices.Clone(entries), beside)...)
			mustSet(t, table, all[1:]...)
			removed, err := table.Unset(tt.prog, tt.vers, tt.covers, tt.owner)
			if !errors.Is(err, tt.err) || removed != len(tt.gone) {
				t.Errorf("Unset = %d, %v, want %d, %v", removed, err, len(tt.gone), tt.err)
			}
			left := slices.DeleteFunc(all, func(b rpcbind.RPCB) bool { return slices.Contains(tt.gone, b) })
			wantList(t, table, left...)
			for _, b := range tt.gone {
				if e := table.Lookup(b.Program, b.Version, b.Netid); e != nil && e.Version == b.Version {
					t.Errorf("%+v was removed and is still found", b)
				}
			}
		})
	}
}

func TestLookup(t *testing.T) {
	table := New()
	mustSet(t, table,
		rpcb(300001, 3, rpcbind.TCP, "0.0.0.0.8.3", ""),
		rpcb(300001, 1, rpcbind.UDP, "0.0.0.0.8.1", ""),
		rpcb(300001, 4, "TCP", "0.0.0.0.8.4", ""),
		rpcb(300001, 2, rpcbind.TCP, "0.0.0.0.8.2", ""),
		rpcb(300001, 7, rpcbind.TCP6, "::.8.7", ""),
		rpcb(300001, 1, "sctp", "0.0.0.0.8.9", ""),
	)
	type question struct {
		prog, vers uint32
		netid      rpcbind.Netid
	}
	tests := []struct {
		q    question
		vers uint32 // 0: no answer
	}{
		{question{300001, 3, rpcbind.TCP}, 3},
		{question{300001, 4, rpcbind.TCP}, 4},
		{question{300001, 4, "tCp"}, 4},
		{question{300001, 1, rpcbind.TCP}, 2}, // the last one that came on this netid, not the highest
		{question{300001, 0, rpcbind.TCP}, 2},
		{question{300001, 9, rpcbind.UDP}, 1},
		{question{300001, 9, rpcbind.UDP6}, 0},
		{question{300001, 1, rpcbind.TCP6}, 7},
		{question{300001, 1, "sctp"}, 1},
		{question{300001, 9, "sctp"}, 0}, // nobody calls by it
		{question{300001, 1, ""}, 0},
		{question{300002, 1, rpcbind.TCP}, 0},
		{question{0, 1, rpcbind.TCP}, 0},
	}
	for _, tt := range tests {
		var vers uint32
		if e := table.Lookup(tt.q.prog, tt.q.vers, tt.q.netid); e != nil {
			vers = e.Version
		}
		if vers != tt.vers {
			t.Errorf("Lookup%v found version %d, want %d", tt.q, vers, tt.vers)
		}
	}
	if _, err := table.Unset(300001, 2, every, rpcbind.OwnerSuperuser); err != nil {
		t.Fatal(err)
	}
	if e := table.Lookup(300001, 1, rpcbind.TCP); e == nil || e.Version != 4 {
		t.Errorf("without the last registration Lookup found %+v, want version 4", e)
	}
}

func TestEntryIsTakenApart(t *testing.T) {
	table := New()
	mustSet(t, table,
		rpcb(300001, 1, "UDP6", "fe80::1.8.1", "1000"),
		rpcb(300001, 1, rpcbind.Local, "/run/x.sock", "1000"))
	if err := table.SetOwn(rpcb(100000, 4, rpcbind.UDP, "0.0.0.0.0.111", "superuser")); err != nil {
		t.Fatal(err)
	}
	if e := table.Lookup(300001, 1, rpcbind.UDP6); e.IP.String() != "[fe80::1]:2049" || e.Own {
		t.Errorf("udp6 entry has address %v, own %v", e.IP, e.Own)
	}
	if e := table.Lookup(300001, 1, rpcbind.Local); e.IP.IsValid() {
		t.Errorf("local entry has IP address %v", e.IP)
	}
	if e := table.Lookup(100000, 4, rpcbind.UDP); !e.Own {
		t.Error("the portmapper's own entry isn't marked as such")
	}
}

// TestMappings holds the projection of version 2: tcp and udp, whatever the case of their letters, and nothing else.
func TestMappings(t *testing.T) {
	table := New()
	mustSet(t, table,
		rpcb(300001, 1, rpcbind.TCP6, "::.8.1", ""),
		rpcb(300001, 1, "TCP", "10.0.0.1.255.255", ""),
		rpcb(300001, 1, rpcbind.Local, "/x.8.1", ""),
		rpcb(300001, 1, "Udp", "0.0.0.0.0.0", ""),
		rpcb(300002, 9, rpcbind.UDP, "127.0.0.1.8.1", ""),
		rpcb(300002, 9, "sctp", "127.0.0.1.8.1", ""),
	)
	want := []rpcbind.Mapping{
		{Program: 300001, Version: 1, Prot: 6, Port: 65535},
		{Program: 300001, Version: 1, Prot: 17, Port: 0},
		{Program: 300002, Version: 9, Prot: 17, Port: 2049},
	}
	if got := mappingsOf(t, table.Mappings().Append(nil)); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if _, err := table.Unset(300001, 1, only(rpcbind.UDP), rpcbind.OwnerSuperuser); err != nil {
		t.Fatal(err)
	}
	if got := mappingsOf(t, table.Mappings().Append(nil)); !slices.Equal(got, slices.Delete(want, 1, 2)) {
		t.Errorf("after UNSET of Udp got %v", got)
	}
}

// TestDumpsStayAsTheyWere holds that a dump handed out is not changed by what happens to the table afterwards.
func TestDumpsStayAsTheyWere(t *testing.T) {
	table := New()
	var dumps []List
	var copies [][]byte
	for i := range uint32(200) {
		mustSet(t, table, rpcb(300000+i, 1, rpcbind.TCP, "0.0.0.0.8.1", "superuser"))
		if i%7 == 3 {
			if _, err := table.Unset(300000+i/2, 1, every, rpcbind.OwnerSuperuser); err != nil {
				t.Fatal(err)
			}
		}
		dumps = append(dumps, table.RPCBs(), table.Mappings())
		copies = append(copies, table.RPCBs().Append(nil), table.Mappings().Append(nil))
	}
	for i := range dumps {
		if !bytes.Equal(dumps[i].Append(nil), copies[i]) {
			t.Fatalf("dump %d has changed", i)
		}
	}
}

// TestGrowth fills a table far beyond the buckets that it starts with and empties it again.
func TestGrowth(t *testing.T) {
	const programs = 40 * minBuckets
	table := New()
	for prog := uint32(1); prog <= programs; prog++ {
		mustSet(t, table,
			rpcb(prog, 1, rpcbind.TCP, "0.0.0.0.8.1", "superuser"),
			rpcb(prog, 2, rpcbind.UDP, "0.0.0.0.8.2", "superuser"))
	}
	if x := table.index.Load(); len(x.buckets) < programs || x.nodes != 2*programs {
		t.Errorf("%d buckets for %d programs on two netids, counted %d", len(x.buckets), programs, x.nodes)
	}
	for prog := uint32(1); prog <= programs; prog++ {
		if e := table.Lookup(prog, 2, rpcbind.UDP); e == nil || e.Program != prog || e.Version != 2 {
			t.Fatalf("Lookup(%d) = %+v", prog, e)
		}
	}
	for prog := uint32(1); prog <= programs; prog++ {
		for vers := uint32(1); vers <= 2; vers++ {
			if n, err := table.Unset(prog, vers, every, rpcbind.OwnerSuperuser); n != 1 || err != nil {
				t.Fatalf("Unset(%d, %d) = %d, %v", prog, vers, n, err)
			}
		}
	}
	wantList(t, table)
	if x := table.index.Load(); x.nodes != 0 || len(x.buckets) > minBuckets {
		t.Errorf("%d programs and %d buckets in an empty table", x.nodes, len(x.buckets))
	}
}

// TestBlocksAreMerged holds that the blocks of a table that is changed for ever take memory in proportion to what is
// in it, and that merging them keeps the order.
func TestBlocksAreMerged(t *testing.T) {
	const kept = 10
	table := New()
	var want []rpcbind.RPCB
	for i := range uint32(kept) {
		want = append(want, rpcb(100+i, 1, rpcbind.TCP, "0.0.0.0.8."+strconv.Itoa(int(i)), "superuser"))
	}
	mustSet(t, table, want...)
	for i := range uint32(10000) {
		mustSet(t, table, rpcb(5000+i, 1, rpcbind.TCP, "0.0.0.0.8.1", "superuser"))
		if n, err := table.Unset(5000+i, 1, every, rpcbind.OwnerSuperuser); n != 1 || err != nil {
			t.Fatalf("Unset = %d, %v", n, err)
		}
		if len(table.blocks.list) > 4 || cap(table.blocks.list[0].entries) > blockEntries {
			t.Fatalf("%d blocks for %d entries", len(table.blocks.list), kept)
		}
	}
	wantList(t, table, want...)
	// Each of the moved entries has to be found where it stands now.
	for i, b := range want {
		if n, err := table.Unset(b.Program, 1, every, rpcbind.OwnerSuperuser); n != 1 || err != nil {
			t.Fatalf("Unset = %d, %v", n, err)
		}
		wantList(t, table, want[i+1:]...)
	}
}

func TestLookupAllocatesNothing(t *testing.T) {
	table := New()
	fill(t, table, 100)
	if n := testing.AllocsPerRun(100, func() { lookups(table, 100) }); n != 0 {
		t.Errorf("lookups allocate %v times", n)
	}
}

// TestReserve: what was registered before stays, and so does what comes after, beyond the room as well.
func TestReserve(t *testing.T) {
	table := New()
	register := func(from, to uint32) {
		for p := from; p < to; p++ {
			if err := table.Set(rpcbind.RPCB{Program: p, Version: 1, Netid: rpcbind.UDP, Addr: "0.0.0.0.8.1", Owner: "superuser"}); err != nil {
				t.Fatal(err)
			}
		}
	}
	register(1, 10)
	table.Reserve(200)
	register(10, 500)
	table.Reserve(0)
	for p := uint32(1); p < 500; p++ {
		if table.Lookup(p, 1, rpcbind.UDP) == nil {
			t.Errorf("program %d is gone", p)
		}
	}
	if n := table.Len(); n != 499 {
		t.Errorf("%d registrations", n)
	}
}

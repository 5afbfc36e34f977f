package bed_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/bed"
)

// socketMemory returns the octets that the kernel holds for the daemon's ends of all connections.
func socketMemory(t *testing.T) int {
	t.Helper()
	total := 0
	for _, args := range [][]string{{"-tnamOH", "sport", "=", ":111"}, {"-xamOH", "src", "/run/rpcbind.sock"}, {"-xamOH", "src", "@/run/rpcbind.sock"}} {
		out, err := exec.Command("ss", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("ss %v: %v: %s", args, err, out)
		}
		for _, m := range regexp.MustCompile(`skmem:\(r(\d+),rb\d+,t(\d+),tb\d+,f(\d+),w(\d+)`).FindAllSubmatch(out, -1) {
			for i := range 4 {
				n, _ := strconv.Atoi(string(m[1+i]))
				if i != 1 || strings.HasPrefix(args[0], "-x") { // of TCP, w counts what t does
					total += n
				}
			}
		}
	}
	return total
}

// residentMemory returns a process's resident memory in octets.
func residentMemory(t *testing.T, pid int) int {
	t.Helper()
	out, err := exec.Command("ps", "-o", "rss=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	return n << 10
}

// TestUnreadRepliesAreBounded: a local user who changes a table of long entries and asks for it again and again, and a host with a
// whole IPv6 network, both of which read nothing, cost less than 150 MB together, and that is given back.
func TestUnreadRepliesAreBounded(t *testing.T) {
	if bed.RaceEnabled {
		t.Skip("memory or time that the race detector multiplies: .ci/unit runs this without it as well")
	}
	bed.InNamespace(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS) {
		const mallory, bar = 12345, 150 << 20
		var attackers []*bed.Conn
		d := ns.Start(t, bed.Gportmap)
		time.Sleep(2 * time.Second)
		quiet := residentMemory(t, d.PID())
		most, rss := 0, 0
		look := func() {
			r := residentMemory(t, d.PID())
			most, rss = max(most, r+socketMemory(t)), max(rss, r)
		}
		local := ns.Dial(t, bed.Unix, bed.From{UID: mallory})
		long := func(i int) []byte {
			return setAddr(4, uint32(0x30180000+i), 1, fmt.Sprintf("%s%04d", strings.Repeat("n", 240), i), strings.Repeat("a", 256))
		}
		for i := range 4090 {
			if got := resultsOf(t, local, long(i)); !bytes.Equal(got, boolean(true)) {
				t.Fatalf("SET %d: %x", i, got)
			}
		}
		full := residentMemory(t, d.PID())
		for i := range 500 {
			for _, call := range [][]byte{unsetAddr(4, uint32(0x30180000+8*i), 1, ""), long(8 * i)} {
				resultsOf(t, local, call)
			}
			tr := bed.TCP
			if i%2 == 1 {
				tr = bed.Unix
			}
			if c, err := ns.TryDial(tr, bed.From{UID: mallory}); err == nil {
				c.SendSome(bed.Record(dump(4)))
				attackers = append(attackers, c)
			}
			if i%50 == 49 {
				look()
			}
		}
		look()
		t.Logf("%.1f MB with the table, after 500 DUMPs %.1f MB with the kernel's", float64(full)/1e6, float64(most)/1e6)
		calls := bytes.Repeat(bed.Record(message(4, 12, nil)), 500)
		addresses := make([]netip.Addr, 16)
		for i := range addresses {
			a := netip.MustParsePrefix(bed.PeerIPv6 + "/64").Addr().As16()
			a[8], a[15] = 0x77, byte(i)
			addresses[i] = netip.AddrFrom16(a)
			if out, err := ns.RemoteCommand(t, "ip", "-6", "address", "add", addresses[i].String()+"/64", "dev", "veth1", "nodad"); err != nil {
				t.Fatal(out, err)
			}
		}
		open := 0
		for i := range 2000 {
			c, err := ns.TryDial(bed.TCP6, bed.From{Remote: true, Addr: addresses[i%16]})
			if err != nil {
				continue
			}
			open++
			c.SendSome(calls)
			attackers = append(attackers, c)
			if i%200 == 199 {
				look()
			}
		}
		for range 5 {
			time.Sleep(200 * time.Millisecond)
			look()
		}
		t.Logf("quiet %.1f MB; most %.1f MB, of these %.1f MB resident; %d connections", float64(quiet)/1e6, float64(most)/1e6, float64(rss)/1e6, open)
		if most > bar {
			t.Errorf("%d MB with both attacks, the bound is %d MB", most>>20, bar>>20)
		}
		// Others are served meanwhile.
		for range 5 {
			must(t, ns, bed.TCP, bed.From{Remote: true}, getPort(100000, 2, 6))
		}
		if list := resultsOf(t, local, dump(4)); len(list) < 4090*500 {
			t.Errorf("who reads gets a list of %d octets", len(list))
		}
		for _, c := range attackers {
			c.Close()
		}
		left := 0
		for range 40 {
			if left = residentMemory(t, d.PID()); left < full+(10<<20) {
				break
			}
			time.Sleep(250 * time.Millisecond)
		}
		if t.Logf("%.1f MB resident once they are gone", float64(left)/1e6); left >= full+(10<<20) {
			t.Errorf("%.1f MB are still resident, before the attacks %.1f", float64(left)/1e6, float64(full)/1e6)
		}
	})
}

package portmap

import (
	"bytes"
	"testing"
)

// TestSelf asks as the daemon asks itself: NULL is answered and leaves no trace, and no more than NULL can be asked so.
func TestSelf(t *testing.T) {
	observed := 0
	p := newSubject(t)
	p.observe = func(Caller, []byte, []byte) { observed++ }
	for _, transport := range []Transport{UDP, TCP, UDP6, TCP6, Local} {
		self := localCaller(transport)
		self.Self = true
		for vers := uint32(2); vers <= 4; vers++ {
			if got := ask(p, self, callTo(vers, 0)); !bytes.Equal(got, success()) {
				t.Errorf("NULL of version %d over %s: %x", vers, transport.Netid(), got)
			}
		}
		for _, call := range [][]byte{callTo(4, 4), header(2, 100003, 3, 0, 0, ""), []byte("no call")} {
			if got := ask(p, self, call); len(got) != 0 {
				t.Errorf("%x over %s: %x, want silence", call, transport.Netid(), got)
			}
		}
	}
	if observed != 0 {
		t.Errorf("%d calls were observed", observed)
	}
	p.observe = nil
	wantStat(t, p, statBytes{}, statBytes{}, statBytes{calls: [13]uint32{12: 1}})
}

package access

import (
	"fmt"
	"testing"
)

// TestHostsBracketsAgainstLibwrap has what may stand in brackets and around them: libwrap takes IPv6 addresses there, and nothing else.
func TestHostsBracketsAgainstLibwrap(t *testing.T) {
	w := startLibwrap(t)
	inner := []string{"10.9.9.2", "10.9.9.0", "::ffff:10.9.9.2", "::10.9.9.2", "::a09:902", "2001:db8::5", "2001:DB8::5", "2001:db8:0:0:0:0:0:5", "2001:db8::",
		"fe80::1", "fe80::1%lo", "fe80::1%1", "fe80::%lo", "fe80::1%", "fe80::1%25lo", "::", "::1", "1", "", "ALL", "*", "2001:db8::*", "near", "010.9.9.2", "012.011.9.0", "10.0.0.0", "10.9.2304", "0xa.9.9.0"}
	around := []string{"%s", "%s/24", "%s/08", "%s/+8", "%s/-8", "%s/4294967304", "%s/0x8", "%s/0377.0.0.0", "%s/255.0x0.0.0", "%s/255.255.255", "[%s]", "[[%s]]", "[%s", "%s]", "[%s]]", "[[%s]", "[]%s[]", "[%s]x", "[%s].", "[%s]/128", "[%s]/64", "[%s]/10", "[%s]/0", "[%s]/",
		"[%s]/x", "[%s]/129", "[%s]/-1", "[%s]/32", "[%s/64]", "[%s]/255.255.255.0", "[%s]/4294967360", "joe@[%s]", "ALL@[%s]", "UNKNOWN@[%s]", "ALL EXCEPT [%s]"}
	callers := []string{"10.9.9.2", "::ffff:10.9.9.2", "::a09:902", "2001:db8::5", "2001:db8::6", "fe80::1", "::1"}
	opened, closed := 0, 0
	for _, i := range inner {
		for _, a := range around {
			pattern := fmt.Sprintf(a, i)
			for _, files := range [][2]string{{"rpcbind: " + pattern + "\n", "ALL: ALL\n"}, {"", "rpcbind: " + pattern + "\n"}} {
				w.write(t, files[0], files[1], "127.0.0.1 localhost\n10.9.9.2 near\n")
				for _, caller := range callers {
					theirs := w.permits(t, caller)
					ours, by := w.judge(t, caller, "2001:db8::2")
					if ours && !theirs {
						t.Errorf("%s is permitted by %v, libwrap refuses it; hosts.allow %q, hosts.deny %q", caller, by, files[0], files[1])
					}
					if ours {
						opened++
					} else {
						closed++
					}
				}
			}
		}
	}
	if opened < 500 || closed < 500 {
		t.Errorf("%d permitted, %d refused: this compares nothing", opened, closed)
	}
}

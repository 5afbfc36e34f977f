package access

import (
	"strings"
	"testing"
)

// TestHostsAfterALineThatCantBeRead has lines that libwrap can't read: too long for its buffer, which a continued line fills earlier,
// without a line feed, with a NUL. Libwrap reads neither file beyond such a line, so nothing that follows it in hosts.allow opens.
func TestHostsAfterALineThatCantBeRead(t *testing.T) {
	w := startLibwrap(t)
	const caller, called = "198.51.100.2", "203.0.113.2"
	type unreadable struct{ name, text string }
	lines := []unreadable{
		{"a list of sshd", "sshd: " + strings.Repeat("10.1.1.1 ", 300) + "\n"},
		{"a comment", strings.Repeat("#", 3000) + "\n"},
		{"no colon", strings.Repeat("x", 5000) + "\n"},
		{"a NUL in a comment", "# \x00 old\n"},
		{"a NUL that joins lines", "rpcbind: ALL EXCEPT\x00 \n 198.51.\n"},
		{"half a name", "rpcb\x00\nind: ALL\n"},
	}
	for n := 2040; n <= 2052; n++ {
		x := strings.Repeat("x", n)
		lines = append(lines, unreadable{"length", "#" + x[1:] + "\n"}, unreadable{"continued at its end", "#" + x[1:] + "\\\n\n"},
			unreadable{"continued before", "#" + x[3:] + "\\\nxx\n"}, unreadable{"continued twice", "#" + x[1500:] + "\\\n" + x[:1499] + "\\\n\n"})
	}
	closed, opened := 0, 0
	for _, l := range lines {
		for _, files := range [][2]string{
			{l.text + "rpcbind: ALL\n", "ALL: ALL\n"},
			{"rpcbind: 198.51.100.2\n" + l.text, "ALL: ALL\n"},
			{l.text + "rpcbind: ALL: deny\n", ""},
			{"", l.text},
			{"", l.text + "rpcbind: ALL: allow\n"},
			{"", "rpcbind: ALL: allow\n" + l.text},
		} {
			w.write(t, files[0], files[1], "127.0.0.1 localhost\n")
			theirs := w.permits(t, caller)
			ours, by := w.judge(t, caller, called)
			if ours && !theirs {
				t.Errorf("%s, %d octets: permitted by %.60v, libwrap refuses it; hosts.allow %.40q … %q, hosts.deny %.40q", l.name, len(l.text), by,
					files[0], files[0][max(0, len(files[0])-20):], files[1])
			}
			if theirs != ours && !strings.Contains(l.text, "\x00") && files[0] != l.text+"rpcbind: ALL: deny\n" {
				t.Errorf("%s, %d octets: permitted %v by %.60v, libwrap %v; hosts.allow %.40q, hosts.deny %.40q", l.name, len(l.text), ours, by, theirs, files[0], files[1])
			}
			if ours {
				opened++
			} else {
				closed++
			}
		}
	}
	if opened < 50 || closed < 50 {
		t.Errorf("%d permitted, %d refused: this compares nothing", opened, closed)
	}
}

package instance

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// printable returns octets that somebody else chose in a form that does a terminal and a log line no harm: what isn't
// printable is escaped as in Go's strings.
func printable(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if r == utf8.RuneError && n == 1 || !strconv.IsPrint(r) {
			quoted := strconv.Quote(s[:n])
			b.WriteString(quoted[1 : len(quoted)-1])
		} else {
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.String()
}

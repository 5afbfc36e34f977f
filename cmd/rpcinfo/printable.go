package main

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// printable returns s as it is if it can be printed, and else with Go's escapes in it: what servers send never drives
// the terminal.
func printable(s string) string {
	if utf8.ValidString(s) && strings.IndexFunc(s, unprintable) < 0 {
		return s
	}
	quoted := strconv.Quote(s)
	return quoted[1 : len(quoted)-1]
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// left pads s on the right to a width in octets, as printf's %-*s does it; right pads it on the left.
func left(s string, width int) string { return s + spaces(width-len(s)) }

func right(s string, width int) string { return spaces(width-len(s)) + s }

func spaces(n int) string { return strings.Repeat(" ", max(n, 0)) }

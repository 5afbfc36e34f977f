package sys

import (
	"os"
	"strconv"
	"strings"
)

// usualLastSystemUID is what login.defs(5) says of SYS_UID_MAX where it sets none.
const usualLastSystemUID = 999

// LastSystemUID returns the largest uid of a system user, SYS_UID_MAX of /etc/login.defs. No name service is asked.
func LastSystemUID() uint32 {
	b, err := os.ReadFile("/etc/login.defs")
	if err != nil {
		return usualLastSystemUID
	}
	return lastSystemUID(string(b))
}

func lastSystemUID(defs string) uint32 {
	for line := range strings.Lines(defs) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "SYS_UID_MAX" {
			// An octal or a hexadecimal number, as useradd(8) takes it, as well.
			if uid, err := strconv.ParseUint(f[1], 0, 32); err == nil {
				return uint32(uid)
			}
		}
	}
	return usualLastSystemUID
}

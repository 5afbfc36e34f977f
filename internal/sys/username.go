package sys

import (
	"bufio"
	"os"
	"strconv"
	"strings"
)

// UserName returns the login name for a user id from /etc/passwd, the number if it has none there. As for LookupUser, name
// services are never asked.
func UserName(uid uint32) string { return userName("/etc/passwd", uid) }

func userName(path string, uid uint32) string {
	number := strconv.FormatUint(uint64(uid), 10)
	f, err := os.Open(path)
	if err != nil {
		return number
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Split(lines.Text(), ":"); len(fields) > 2 && fields[2] == number && fields[0] != "" {
			return fields[0]
		}
	}
	return number
}

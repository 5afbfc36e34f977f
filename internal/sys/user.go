package sys

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// LookupUser returns the user's ids from /etc/passwd. Name services (NIS, LDAP) are never asked: they need the portmapper
// that is just starting.
func LookupUser(name string) (uid, gid uint32, err error) {
	return lookupUser("/etc/passwd", name)
}

func lookupUser(path, name string) (uid, gid uint32, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, fmt.Errorf("look up user %q: %w", name, err)
	}
	defer f.Close()
	r := bufio.NewReader(f)
	for number := 1; ; number++ {
		line, err := r.ReadString('\n')
		if fields := strings.Split(strings.TrimSuffix(line, "\n"), ":"); name != "" && fields[0] == name {
			if uid, gid, err := userIDs(fields); err != nil {
				return 0, 0, fmt.Errorf("look up user %q: %s:%d: %w", name, path, number, err)
			} else {
				return uid, gid, nil
			}
		}
		switch {
		case err == io.EOF:
			return 0, 0, fmt.Errorf("look up user %q: not in %s; create the user or name another", name, path)
		case err != nil:
			return 0, 0, fmt.Errorf("look up user %q: %w", name, err)
		}
	}
}

// userIDs reads name:password:uid:gid:…, passwd(5).
func userIDs(fields []string) (uid, gid uint32, err error) {
	if len(fields) < 4 {
		return 0, 0, fmt.Errorf("%d fields instead of 7", len(fields))
	}
	u, err := strconv.ParseUint(fields[2], 10, 32)
	if err != nil {
		return 0, 0, fmt.Errorf("user id: %w", err)
	}
	g, err := strconv.ParseUint(fields[3], 10, 32)
	if err != nil {
		return 0, 0, fmt.Errorf("group id: %w", err)
	}
	if u == noID || g == noID {
		return 0, 0, fmt.Errorf("%d is not a valid id", uint32(noID))
	}
	return uint32(u), uint32(g), nil
}

// LookupGroup returns a group's id from /etc/group; name services are never asked, as for LookupUser. A number stands for
// itself.
func LookupGroup(name string) (gid uint32, err error) { return lookupGroup("/etc/group", name) }

func lookupGroup(path, name string) (uint32, error) {
	if n, err := strconv.ParseUint(name, 10, 32); err == nil && uint32(n) != noID {
		return uint32(n), nil
	}
	f, err := os.Open(path)
	if err != nil {
		return 0, fmt.Errorf("look up group %q: %w", name, err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for number := 1; lines.Scan(); number++ {
		fields := strings.Split(lines.Text(), ":") // name:password:gid:members, group(5)
		if name == "" || fields[0] != name {
			continue
		}
		if len(fields) > 2 {
			if n, err := strconv.ParseUint(fields[2], 10, 32); err == nil && uint32(n) != noID {
				return uint32(n), nil
			}
		}
		return 0, fmt.Errorf("look up group %q: %s:%d: no group id there", name, path, number)
	}
	if err := lines.Err(); err != nil {
		return 0, fmt.Errorf("look up group %q: %w", name, err)
	}
	return 0, fmt.Errorf("look up group %q: not in %s; create the group or name another", name, path)
}

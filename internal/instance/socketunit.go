package instance

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/gportmap/gportmap/internal/sys"
)

// unitFileOctets is more than any socket unit's file has.
const unitFileOctets = 64 << 10

// unitDirectories are where systemd's system manager looks for units, the first first (systemd.unit(5)).
func unitDirectories() []string {
	return []string{
		"/etc/systemd/system", "/run/systemd/system", "/run/systemd/generator",
		"/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system",
		"/run/systemd/generator.late",
	}
}

// socketUnits returns the names of the socket units that say they listen where s is bound. Which of them is active systemd
// tells nowhere in files, and it isn't asked: a service manager that is just starting us may not answer.
func socketUnits(dirs []string, s sys.BoundSocket) []string {
	files := make(map[string][]string) // by unit: its file
	for _, dir := range dirs {
		paths, _ := filepath.Glob(filepath.Join(dir, "*.socket"))
		for _, path := range paths {
			if unit := filepath.Base(path); files[unit] == nil {
				files[unit] = []string{path}
			}
		}
	}
	var all []string
	for unit, paths := range files {
		if listens(append(paths, dropIns(dirs, unit)...), s) {
			all = append(all, unit)
		}
	}
	slices.Sort(all)
	return all
}

// dropIns returns the files that add to a unit, ordered by name; one in an earlier directory hides those of its name.
func dropIns(dirs []string, unit string) []string {
	byName := make(map[string]string)
	var names []string
	for _, dir := range dirs {
		paths, _ := filepath.Glob(filepath.Join(dir, unit+".d", "*.conf"))
		for _, path := range paths {
			if name := filepath.Base(path); byName[name] == "" {
				byName[name] = path
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	for i, name := range names {
		names[i] = byName[name]
	}
	return names
}

// listens reads a unit's files and tells whether one of its addresses is that of s. A unit that is masked is an empty file
// or a link to /dev/null, and so has none.
func listens(paths []string, s sys.BoundSocket) bool {
	setting := "ListenStream"
	if strings.HasPrefix(s.Netid, "udp") {
		setting = "ListenDatagram"
	}
	var addresses []string
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() || info.Size() > unitFileOctets {
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			name, value, ok := strings.Cut(line, "=")
			if !ok || strings.TrimSpace(name) != setting {
				continue
			}
			if value = strings.TrimSpace(value); value == "" {
				addresses = nil // the empty value forgets what was said before
				continue
			}
			addresses = append(addresses, value)
		}
	}
	return slices.ContainsFunc(addresses, func(a string) bool { return isAddress(a, s) })
}

// isAddress tells whether a value of ListenStream= or ListenDatagram= (systemd.socket(5)) is where s is bound: a path, a
// name with "@", a port, or an address with a port.
func isAddress(value string, s sys.BoundSocket) bool {
	if s.Netid == "local" {
		value = strings.Replace(value, "%t", "/run", 1)
		return value == s.Path || strings.HasPrefix(value, "/var/run/") && strings.TrimPrefix(value, "/var") == s.Path
	}
	if port, err := strconv.ParseUint(value, 10, 16); err == nil {
		return uint16(port) == s.Addr.Port() && s.Addr.Addr().IsUnspecified()
	}
	a, err := netip.ParseAddrPort(value)
	return err == nil && netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port()) == s.Addr
}

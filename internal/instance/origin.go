package instance

import (
	"os"
	"strings"
	"syscall"
)

// An Origin says what a process belongs to, as far as its control groups tell.
type Origin struct {
	// Unit is the systemd unit, such as "rpcbind.service" or "session-3.scope"; of the manager of User or of Container if
	// those are given. Empty if there is none.
	Unit string
	// User is the id, in decimals, of the user whose service manager has the unit; empty for the system's.
	User string
	// Runtime is the kind of the container that the process is in: "docker", "podman", "kubernetes", "lxc", "nspawn",
	// "libvirt" or "container" for another one. Empty if it is in none.
	Runtime string
	// Container is its id, for docker, podman and kubernetes usually 64 hexadecimal digits, or its name.
	Container string
}

// verifiedOrigin is parseOrigin without the names that another user than root gave: a user may make control groups in those
// that are his, and call them as he likes. What is left out are containers, and units that aren't below a user's manager.
func verifiedOrigin(text string) Origin {
	var named strings.Builder
	for line := range strings.Lines(text) {
		number, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		controllers, path, ok := strings.Cut(rest, ":")
		if !ok {
			continue
		}
		named.WriteString(number + ":" + controllers + ":" + namedByRoot(hierarchy(controllers), path) + "\n")
	}
	return parseOrigin(named.String())
}

// hierarchy returns where control groups with these controllers are mounted.
func hierarchy(controllers string) string {
	const all = "/sys/fs/cgroup/"
	if controllers != "" {
		return all + strings.TrimPrefix(controllers, "name=")
	}
	if _, err := os.Stat(all + "unified/cgroup.procs"); err == nil {
		return all + "unified" // beside those of version 1
	}
	return all
}

// namedByRoot cuts the path of a control group behind the last part that root named, which is one in a directory of root's. A
// user's manager names what is below it for that user, so there it is left.
func namedByRoot(dir, path string) string {
	parts := strings.Split(path, "/") // the first is empty
	for i, part := range parts[1:] {
		parent := dir + strings.Join(parts[:i+1], "/")
		info, err := os.Stat(parent)
		st, ok := (*syscall.Stat_t)(nil), false
		if err == nil {
			st, ok = info.Sys().(*syscall.Stat_t)
		}
		if part == ".." || !ok || st.Uid != 0 {
			return strings.Join(parts[:i+1], "/")
		}
		if strings.HasPrefix(part, "user@") && strings.HasSuffix(part, ".service") {
			return path
		}
	}
	return path
}

// parseOrigin reads /proc/PID/cgroup (cgroups(7)), lines of "number:controllers:/path". Systemd keeps its units in the
// hierarchy "name=systemd" or, where that is missing, in the unified one, number 0. Container runtimes without systemd
// use any of them.
func parseOrigin(text string) Origin {
	var systemd, unified string
	var paths []string
	for line := range strings.Lines(text) {
		number, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		controllers, path, ok := strings.Cut(rest, ":")
		switch {
		case !ok:
			continue
		case controllers == "name=systemd":
			systemd = path
		case number == "0" && controllers == "":
			unified = path
		}
		paths = append(paths, path)
	}
	var o Origin
	for _, path := range append([]string{systemd, unified}, paths...) {
		if o = originOf(path); o.Runtime != "" {
			return o
		}
	}
	if o = originOf(systemd); o.Unit == "" {
		o = originOf(unified)
	}
	return o
}

// originOf reads the path of one control group from the outside in.
func originOf(path string) Origin {
	var o Origin
	parts := strings.Split(path, "/")
	for i, part := range parts {
		parent := ""
		if i > 0 {
			parent = parts[i-1]
		}
		// A user's manager names groups as that user likes.
		if runtime, container := containerOf(parent, part); runtime != "" && o.User == "" {
			o = Origin{Runtime: runtime, Container: container}
			continue
		}
		switch name, suffix := cutSuffix(part); suffix {
		case ".service", ".scope", ".socket", ".mount", ".swap":
			o.Unit = unescapeUnit(part)
			// Below this one a user's own service manager has its units.
			if user, ok := strings.CutPrefix(name, "user@"); ok && suffix == ".service" && o.User == "" {
				o.User = user
			}
		}
	}
	// What the manager itself runs in is no unit of its.
	if o.User != "" && o.Unit == "user@"+o.User+".service" {
		o.User = ""
	}
	return o
}

// containerOf tells which container a part of a control group's path starts, if it starts one.
func containerOf(parent, part string) (runtime, container string) {
	name, suffix := cutSuffix(part)
	if suffix == ".scope" || suffix == "" {
		for _, known := range []struct{ prefix, runtime string }{
			{"docker-", "docker"},
			{"libpod-", "podman"},
			{"cri-containerd-", "kubernetes"},
			{"crio-", "kubernetes"},
			{"cri-dockerd-", "kubernetes"},
		} {
			if id, ok := strings.CutPrefix(name, known.prefix); ok && isID(id) {
				return known.runtime, id
			}
		}
	}
	// As "kubepods-….slice:cri-containerd:0123…" has it.
	if i := strings.LastIndex(part, ":cri-containerd:"); i >= 0 {
		return "kubernetes", part[i+len(":cri-containerd:"):]
	}
	switch {
	case parent == "docker" && isID(part):
		return "docker", part
	case strings.HasPrefix(parent, "pod") && isID(part), strings.Contains(parent, "kubepods") && isID(part):
		return "kubernetes", part
	case parent == "lxc" && part != "monitor" && part != "payload":
		return "lxc", part
	case strings.HasPrefix(part, "lxc.payload."):
		return "lxc", strings.TrimPrefix(part, "lxc.payload.")
	case suffix == ".service" && strings.HasPrefix(name, "systemd-nspawn@"):
		return "nspawn", unescapeUnit(strings.TrimPrefix(name, "systemd-nspawn@"))
	case suffix == ".scope" && strings.HasPrefix(name, "machine-lxc"):
		return "libvirt", unescapeUnit(strings.TrimPrefix(name, "machine-"))
	case suffix == ".scope" && strings.HasPrefix(name, "machine-qemu"):
		return "", "" // a virtual machine: what holds the port is the emulator, a process of this host
	case suffix == ".scope" && strings.HasPrefix(name, "machine-"):
		return "nspawn", unescapeUnit(strings.TrimPrefix(name, "machine-"))
	case isLongID(part):
		return "container", part
	}
	return "", ""
}

// cutSuffix divides a unit's name before its last dot.
func cutSuffix(part string) (name, suffix string) {
	if i := strings.LastIndexByte(part, '.'); i > 0 {
		return part[:i], part[i:]
	}
	return part, ""
}

// isID tells whether a name is a container's id: hexadecimal digits, at least the twelve that are usually shown.
func isID(s string) bool {
	return len(s) >= shortID && strings.Trim(s, "0123456789abcdef") == ""
}

// isLongID tells whether a name can hardly be anything but a container's id.
func isLongID(s string) bool { return len(s) == 64 && isID(s) }

// shortID is how many digits of a container's id are enough for every command.
const shortID = 12

// unescapeUnit undoes systemd's escapes, "\x2d" for "-" (systemd-escape(1)).
func unescapeUnit(name string) string {
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if name[i] == '\\' && i+3 < len(name) && name[i+1] == 'x' {
			if hi, lo := hexDigit(name[i+2]), hexDigit(name[i+3]); hi >= 0 && lo >= 0 {
				b.WriteByte(byte(hi<<4 | lo))
				i += 3
				continue
			}
		}
		b.WriteByte(name[i])
	}
	return b.String()
}

func hexDigit(c byte) int { return strings.IndexByte("0123456789abcdef", c) }

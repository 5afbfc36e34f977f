package sys

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// firstHandedOver is the first descriptor that a service manager hands over, SD_LISTEN_FDS_START of sd_listen_fds(3).
const firstHandedOver = 3

// handedOver returns the descriptors that systemd passed to this process, with their names, or LISTEN_FD_n where it gave none,
// and unsets the variables that say so: programs that we start aren't meant. Go-systemd's package activation does the
// same, and brings crypto/tls with it for sockets that speak TLS: 0.7 MB of the program, 0.6 MiB of memory while idle. An error
// says that they were not passed as the variables say; nothing is touched then.
func handedOver() ([]*os.File, error) {
	pid, count, names := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		_ = os.Unsetenv(name)
	}
	if count == "" || count == "0" || pid != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 {
		return nil, fmt.Errorf("socket activation: LISTEN_FDS=%q is no number of descriptors; unset it to bind sockets", count)
	}
	for fd := firstHandedOver; fd < firstHandedOver+n; fd++ {
		// What this process itself opened is closed by exec(2); what was passed isn't.
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			return nil, fmt.Errorf("socket activation: LISTEN_FDS=%d, but descriptor %d was not passed; whoever started us closed it, or means another process: let a socket unit start us, or unset LISTEN_FDS", n, fd)
		}
	}
	files := make([]*os.File, n)
	for i := range files {
		fd := firstHandedOver + i
		unix.CloseOnExec(fd)
		name := "LISTEN_FD_" + strconv.Itoa(fd)
		if i < len(names) && names[i] != "" {
			name = names[i]
		}
		files[i] = os.NewFile(uintptr(fd), name)
	}
	return files, nil
}

// OthersActivation returns what is wrong if the sockets that systemd handed over are meant for another process than this one:
// a wrapper that started us instead of becoming us. It returns nil otherwise.
func OthersActivation() error {
	pid, count := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	if pid == "" || count == "" || count == "0" || pid == strconv.Itoa(os.Getpid()) {
		return nil
	}
	return fmt.Errorf("LISTEN_PID=%s says that the sockets from systemd are for another process, not for this one (pid %d), so they aren't served; "+
		"a script that starts gportmap has to do that by exec", pid, os.Getpid())
}

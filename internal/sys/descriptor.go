package sys

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Bounds on a search. A host may have millions of descriptors, of which some 200,000 are read in a second.
const (
	maxDescriptors  = 500_000
	moreDescriptors = 20_000 // that are still read when every socket is found, for further processes that have it
)

// A SocketSearch is what FindSocketProcesses found out.
type SocketSearch struct {
	// Processes has for each inode the processes that have it open, in ascending order of PID; at most 16.
	Processes map[uint32][]Process
	// Denied says that there are processes whose descriptors only a more privileged user may see.
	Denied bool
	// Cut says that the search was given up with sockets missing, after half a million descriptors.
	Cut bool
}

// maxSharers is how many processes are told of that share a socket.
const maxSharers = 16

// FindSocketProcesses looks for the processes that have the sockets with these inodes open, in /proc of our PID namespace.
// Process 1 is looked at first, because systemd holds the sockets of its units besides the services that it starts for them;
// the search ends a little after each socket was found in another one. The error means that /proc can't be read.
func FindSocketProcesses(inodes []uint32) (SocketSearch, error) {
	s := search{
		SocketSearch: SocketSearch{Processes: make(map[uint32][]Process)},
		wanted:       make(map[uint32]bool),
		left:         maxDescriptors,
	}
	for _, inode := range inodes {
		if inode != 0 {
			s.wanted[inode] = true
		}
	}
	if len(s.wanted) == 0 {
		return s.SocketSearch, nil
	}
	s.missing = len(s.wanted)
	pids, err := processIDs()
	if err != nil {
		return SocketSearch{}, fmt.Errorf("look for the processes of sockets: %w", err)
	}
	for _, pid := range pids {
		if s.left <= 0 {
			s.Cut = s.missing > 0
			break
		}
		s.process(pid)
	}
	return s.SocketSearch, nil
}

type search struct {
	SocketSearch
	wanted  map[uint32]bool
	missing int // of wanted that no process beside number 1 was found for
	left    int // descriptors that may still be read
}

// processIDs returns the ids of all processes in ascending order.
func processIDs() ([]int, error) {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	if len(pids) == 0 {
		return nil, fmt.Errorf("%w: /proc shows no processes; mount it", unix.ENOENT)
	}
	slices.SortFunc(pids, cmp.Compare[int])
	return pids, nil
}

// process looks through the descriptors of one process. One that ends meanwhile has none.
func (s *search) process(pid int) {
	dir, err := openProcess(pid)
	if err != nil {
		return
	}
	defer unix.Close(dir)
	fd, err := unix.Openat(dir, "fd", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		s.Denied = s.Denied || err == unix.EACCES || err == unix.EPERM
		return
	}
	fds := os.NewFile(uintptr(fd), "fd")
	defer fds.Close()
	hits := make(map[uint32]bool)
	for s.left > 0 {
		names, err := fds.Readdirnames(1024)
		for _, name := range names {
			s.left--
			inode, ok, err := socketInode(fd, name)
			if ok && s.wanted[inode] {
				hits[inode] = true
			}
			// Root without its capabilities sees which descriptors there are, and not what they are.
			s.Denied = s.Denied || err == unix.EACCES || err == unix.EPERM
		}
		if err != nil {
			// Of a process that may not be traced the directory opens and lists nothing, or says so only now.
			s.Denied = s.Denied || os.IsPermission(err)
			break
		}
	}
	if len(hits) > 0 {
		s.found(dir, pid, hits)
	}
}

// found takes note of the sockets of one process.
func (s *search) found(dir, pid int, hits map[uint32]bool) {
	p, err := readProcess(dir, pid)
	if err != nil {
		return
	}
	for inode := range hits {
		others := s.Processes[inode]
		if len(others) < maxSharers {
			s.Processes[inode] = append(others, p)
		}
		if pid != 1 && (len(others) == 0 || others[0].PID == 1 && len(others) == 1) {
			s.missing--
		}
	}
	if s.missing == 0 {
		s.left = min(s.left, moreDescriptors)
	}
}

// socketInode returns the number in the link of a descriptor that is a socket, "socket:[4242]". The error is that of reading
// the link.
func socketInode(dir int, name string) (inode uint32, ok bool, err error) {
	var link [64]byte // more than a socket's has
	n, err := unix.Readlinkat(dir, name, link[:])
	if err != nil {
		return 0, false, err
	}
	number, ok := strings.CutPrefix(string(link[:n]), "socket:[")
	if !ok {
		return 0, false, nil
	}
	n64, err := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 32)
	return uint32(n64), err == nil, nil
}

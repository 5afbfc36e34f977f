package sys

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// UserIDs returns the real, effective, saved and file system user id of a process, in our user namespace.
func UserIDs(pid int) ([]uint32, error) {
	dir, err := openProcess(pid)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	defer unix.Close(dir)
	status, err := readAt(dir, "status", maxProcFile)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	for line := range bytes.Lines(status) {
		ids, ok := bytes.CutPrefix(line, []byte("Uid:"))
		if !ok {
			continue
		}
		var all []uint32
		for _, id := range strings.Fields(string(ids)) {
			uid, err := strconv.ParseUint(id, 10, 32)
			if err != nil {
				return nil, fmt.Errorf("process %d: user ids: %w", pid, err)
			}
			all = append(all, uint32(uid))
		}
		return all, nil
	}
	return nil, fmt.Errorf("process %d: its status has no user ids", pid)
}

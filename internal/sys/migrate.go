package sys

import "os"

// migrateFile says whether the connections in the queue of a listening TCP socket that is closed go to another one that
// shares its address; without it they are reset. It is there since Linux 5.14.
const migrateFile = "/proc/sys/net/ipv4/tcp_migrate_req"

// MigrateConnections calls f, and for as long as that takes has connections go on with a socket that shares the address of
// the one that f closes. The error says that they are reset, because the kernel can't do that; f is called in any case.
func MigrateConnections(f func()) error {
	before, err := os.ReadFile(migrateFile)
	if err == nil {
		err = os.WriteFile(migrateFile, []byte("1"), 0)
	}
	f()
	if err != nil {
		return err
	}
	return os.WriteFile(migrateFile, before, 0)
}

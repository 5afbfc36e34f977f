// Package sys is the room that touches Linux: sockets with their ancillary data, systemd's activation and notification,
// peer credentials, the kernel's socket diagnosis, interfaces and the privilege drop. It knows nothing of ONC RPC, imports
// no other package of this module, and is the sole user of golang.org/x/sys and go-systemd; unsafe is allowed only here.
//
// Addresses in its API are never IPv4-mapped and never carry a zone: a scope is an interface index beside the address.
// Errors wrap the errno, so errors.Is(err, syscall.EADDRINUSE) and the like hold.
package sys

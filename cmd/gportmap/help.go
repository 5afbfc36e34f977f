package main

import (
	"strings"
)

// help returns the text of --help.
func help(name string) string { return strings.ReplaceAll(helpText, "NAME", name) }

const helpText = `Usage: NAME [flags]                        serve, in the background
       NAME list                           show all registrations
       NAME set PROGRAM VERSION NETID ADDRESS
       NAME unset PROGRAM VERSION [NETID]
       NAME getaddr PROGRAM VERSION NETID

NAME maps RPC program numbers to addresses (RFC 1833), in place of rpcbind and portmap.

Flags, those of rpcbind with long names:
  -a, --abort            with -d: a fault of the program shows all stacks and ends with SIGABRT
  -d, --debug            log more, and every call; stay in the foreground
  -f, --foreground       stay in the foreground and log to standard error
  -h, --host ADDRESS     serve UDP and TCP on this IP address only; may be repeated. 127.0.0.1 and ::1
                         are added. Not used with sockets from systemd: change the socket unit instead
  -i, --insecure         let every host register and unregister, not only this one
  -l, --log-calls        log every call
  -r, --remote-calls     make calls for others (CALLIT, BCAST, INDIRECT), as NIS broadcasts need
  -s, --drop-privileges  become user _rpc, rpc or daemon, the first there is, once every socket is bound;
                         the lock file and the local socket then stay behind, which hinders nobody
  -v, --version          print the version
  -w, --warm-start       accepted; this version keeps registrations in memory only
      --help             print this

Flags for an instance beside the system's:
      --port PORT        UDP and TCP port (default 111)
      --socket PATH      local socket (default /run/rpcbind.sock, with --state-dir DIR/rpcbind.sock);
                         served under the same name in the abstract namespace as well
      --state-dir DIR    directory of the instance's files, made if it isn't there. The instance lock is
                         DIR/rpcbind.lock, without this flag rpcbind's own, /run/rpcbind.lock

Without -f or -d, NAME returns when every socket is served, and logs to syslog from then on. It stays in
the foreground if systemd handed it sockets.

Flags of the commands:
      --socket PATH      ask the portmapper behind this local socket (default /run/rpcbind.sock)
      --host HOST[:PORT] ask another host's portmapper, over TCP; for getaddr over the transport NETID
Addresses are universal addresses: 192.0.2.1.8.1 is port 8*256+1 of 192.0.2.1.

Exit codes:
   0  ended by SIGTERM, SIGINT or SIGQUIT; serving in the background; the command succeeded
   1  a command's answer is no: refused, or not registered
   2  fault of the program, which prints what it was doing: please report that
  64  unknown flag or command, bad value
  69  a port or local socket is in use; a command got no answer
  70  the process in the background died before it served
  71  the operating system refused something
  73  the instance lock, the state directory or the local socket can't be made
  75  another portmapper is already running
  77  a privilege is missing
  78  an address isn't one of this host; no user for -s; sockets from systemd that can't be served
`

package main

import (
	"strings"
)

// help returns the text of --help, which fits a screen.
func help(name string) string { return strings.ReplaceAll(shortText, "NAME", name) }

// manual returns the text of the command help, which has everything: hosts that serve files may have no manual pages.
func manual(name string) string { return strings.ReplaceAll(helpText, "NAME", name) }

const shortText = `Usage: NAME [flags]     serve RPC program numbers (RFC 1833), in place of rpcbind and portmap
       NAME COMMAND

  -f, --foreground       stay in the foreground; without it NAME returns when every socket is served
  -h, --host ADDRESS     serve UDP and TCP on this address only, and loopback; may be repeated
  -r, --remote-calls     make calls for others, as NIS broadcasts need
  -i, --insecure         let every host register
  -s, --drop-privileges  become _rpc, rpc or daemon once every socket is bound
  -l, --log-calls        log every call
      --user USER        as -s, to become this user
      --exposure WHOM    whom to answer: world, lan or local; --allow RULE and --deny RULE say more
      --admin-group GROUP, --metrics [ADDRESS:]PORT   who may watch the daemon
      --port, --socket, --state-dir                   an instance beside the system's
  -v, --version          print the version, the commit and what is built in

Commands about the daemon, which take its flags too:
  status     how it is, and who serves what          stop       end it
  watch      calls, changes and refusals, live       reload     let it read its configuration again
  doctor     what keeps it from starting             takeover   serve in the place of the one that runs
  explain    which rule decides about a call         check-config  whether a configuration is right
Commands to a portmapper, of another host with --host:
  list       all registrations                       getaddr PROGRAM VERSION NETID
  firewall   rules for the registered ports          set PROGRAM VERSION NETID ADDRESS
  help       all flags, commands and exit codes      unset PROGRAM VERSION [NETID]

Examples:
  NAME takeover                     replace the rpcbind that runs; nobody has to register again
  NAME status                       one line of health, and a table
  NAME firewall --watch | nft -i    keep a chain of the ports registered now
  NAME -f --state-dir /tmp/x --port 1111   an instance without privileges

The manual: man gportmap, man gportmap.toml, or NAME help. Exit codes: 0 well, 1 the answer is no, 64 a
mistake in the command line, 69 a port is in use, 75 another portmapper is running, 77 a privilege is missing.
`

const helpText = `Usage: NAME [flags]                        serve, in the background
       NAME list [--json]                  show all registrations
       NAME set PROGRAM VERSION NETID ADDRESS
       NAME unset PROGRAM VERSION [NETID]
       NAME getaddr PROGRAM VERSION NETID
       NAME firewall [--format nft|firewalld|ufw] [--table TABLE] [--zone ZONE] [--watch [--interval TIME]]
                                           print rules that let in what is registered, and follow changes
       NAME takeover [flags]               serve in the background in place of the portmapper that runs; if
                                           gportmap.service is installed, start that, without flags; with
                                           --enable also at the next boot, and by rpcbind's unit names
       NAME status [--json] [flags]        tell how the daemon is; remove what a dead one left behind
       NAME watch [--interval TIME] [--count N] [--json] [flags]  show what is called, changed and refused
       NAME doctor [--fix] [--json] [flags]  check all that a start needs, without starting
       NAME stop [flags]                   end the daemon, and return when it has ended
       NAME reload [flags]                 let it read its configuration again (SIGHUP)
       NAME check-config [FILE] [flags]    tell whether a daemon would take this configuration
       NAME explain [flags] CALLER PROCEDURE [PROGRAM [VERSION [NETID [ADDRESS]]]]
                                           tell which rule decides about a call and what it would be answered

NAME maps RPC program numbers to addresses (RFC 1833), in place of rpcbind and portmap.

Flags, those of rpcbind with long names:
  -a, --abort            with -d: a fault of the program shows all stacks and ends with SIGABRT
  -d, --debug            log more, and every call; stay in the foreground
  -f, --foreground       stay in the foreground and log to standard error
  -h, --host ADDRESS     serve UDP and TCP on this IP address only; may be repeated. 127.0.0.1 and ::1
                         are added. Not used with sockets from systemd: change the socket unit instead
      --free-bind        serve addresses of --host also before an interface has them (IP_FREEBIND)
  -i, --insecure         let every host register and unregister, not only this one
  -l, --log-calls        log every call
  -r, --remote-calls     make calls for others (CALLIT, BCAST, INDIRECT), as NIS broadcasts need
  -s, --drop-privileges  become user _rpc, rpc or daemon, the first there is, once every socket is bound,
                         without any capability. Without -s the system's instance does so once it serves.
                         The pid file and the local socket then stay at its end, where only root may remove
                         them: the stop command does, and so do status, as root, and the next start
      --takeover         stop the portmapper that runs (rpcbind, portmap, gportmap) and take its place with
                         all registrations; if that fails put it back. If none runs, start as always
  -v, --version          print the version
  -w, --warm-start       accepted: registrations are always kept on disk and restored at the start
      --help             print this

Settings, which are keys of /etc/gportmap.toml as well; flags go first. Host, port, socket, state-dir,
free-bind, insecure, log-calls, remote-calls and drop-privileges are keys too. The keys static and pin
have no flags. gportmap.toml(5) tells more.
      --config FILE      read this file; without it /etc/gportmap.toml is read if it is there, but not with
                         --state-dir
      --user USER        as -s, to become this user
      --exposure WHOM    whom to answer: world (default), lan or local
      --rpcbind-messages log refused calls in rpcbind's words, for filters that know those
      --udp-lists WHOM   who gets lists over UDP that are larger than the call: connected (default: private
                         networks that this host is in), local or all
      --allow RULE       let in, whatever --deny and --exposure say; may be repeated. A RULE is made of
                         "from NETWORK", "on INTERFACE", "for CLASS" and "program NUMBER"; the classes are
                         lookup, list, register and remote-call
      --deny RULE        keep out; may be repeated
      --root-only PROGRAM        only root may register it; may be repeated
      --strict-set               take a registration only at a port that a socket of the caller's is bound to
      --remote-call-to PROGRAM[:PROCEDURE]  with -r: call this for others and nothing else; may be repeated
      --answer-rate N            datagrams a second answered for each /24 or /56 (10000); 0: all
      --max-registrations N      in all, an eighth for root alone (65536)
      --max-registrations-per-owner N  of each user but root (4096)
      --max-string OCTETS        of a netid or address that is registered (256)
      --max-connections N        over TCP (16384); one more closes the idlest from another host
      --max-connections-each N   of an address of another host, or a user but root by the local socket (256)
      --max-record OCTETS        of a call on a stream (9000)
      --max-calls-in-flight N    with -r: calls for others that wait for an answer (64)
      --max-lookup-stats N, --max-remote-stats N  that GETSTAT lists for each version (48 and 24)
      --max-log-lines N          a second, errors apart (1000); 0: all
      --idle-timeout TIME, --record-timeout TIME  close a TCP connection without a call, or without the rest
                                 of one (6m and 35s)

Settings for who watches the daemon; metrics are in Prometheus's text format, at /metrics:
      --admin-group GROUP  let this group, a name or a number, open the admin socket beside root: it is
                         gportmap.sock in the state directory, and tells the same as JSON and metrics
      --metrics [ADDRESS:]PORT  serve metrics over TCP as well; without an address on 127.0.0.1

Flags for an instance beside the system's:
      --port PORT        UDP and TCP port (default 111)
      --socket PATH      local socket (default /run/rpcbind.sock, with --state-dir DIR/rpcbind.sock);
                         served under the same name in the abstract namespace as well
      --state-dir DIR    directory of the instance's files, made if it isn't there. The instance lock is
                         DIR/rpcbind.lock, without this flag /run/rpcbind/gportmap.lock
      --state-dir none   use no directory: no lock, pid and state files, and no admin socket; registrations
                         are lost at the end

Without -f or -d, NAME returns when every socket is served, and logs to syslog from then on. It stays in
the foreground if systemd handed it sockets, and as process 1, where it also reaps orphans.

The commands status, watch, doctor, stop and reload take the flags above as well, and are about the
instance that a daemon with the same flags would be.
  --json  print JSON; watch prints a document a line
  --fix   remove stale files: those that speak of a portmapper although none holds the instance lock

Flags of the other commands:
      --socket PATH      ask the portmapper behind this local socket (default /run/rpcbind.sock)
      --host HOST[:PORT] ask another host's portmapper, over TCP; for getaddr over the transport NETID
      --json             of list: print JSON
      --format FORMAT    of firewall: nft (default), firewalld or ufw
      --table TABLE      of firewall: nft's table in which a chain named gportmap is kept ("inet filter");
                         jump to it from your own chain
      --zone ZONE        of firewall: firewalld's zone
      --watch            of firewall: go on, and print what follows each change; --interval TIME (2s)
Addresses are universal addresses: 192.0.2.1.8.1 is port 8*256+1 of 192.0.2.1.

Exit codes of status, those of the Linux Standard Base:
   0  running
   1  dead, and its pid file stays because this user may not remove it
   2  dead, and its lock file stays for the same reason
   3  stopped, also if stale files were found and removed, and if another portmapper is serving
   4  unknown: only root can tell, or it runs and gives no answer
Exit codes of doctor: 0 nothing is wrong, 1 there are findings.
Stop and reload touch no other portmapper: to stop what doesn't run succeeds, to reload it fails with 7.

Exit codes:
   0  ended by SIGTERM, SIGINT or SIGQUIT; serving in the background; the command succeeded
   1  a command's answer is no: refused, or not registered
   2  fault of the program, which prints what it was doing: please report that
  64  unknown flag or command, bad value
  69  a port or local socket is in use; a command got no answer
  70  the process in the background died before it served
  71  the operating system refused something
  72  the state directory isn't safe: a symbolic link, somebody else's, or writable for others
  73  the instance lock, the state directory or the local socket can't be made
  75  another portmapper is already running
  77  a privilege is missing
  78  an address isn't one of this host; no user for -s; sockets from systemd that can't be served
`

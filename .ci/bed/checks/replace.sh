#!/bin/sh
# replace.sh: the package in the place of an rpcbind that serves rpc.statd, nfs-ganesha, ypserv and clients that don't stop
# asking: none is refused.
. /bed/checks/lib.sh
. /bed/checks/servers.sh
. /bed/checks/callers.sh

echo 'OPTIONS="-w -r"' >/etc/default/rpcbind
systemctl restart rpcbind.service
servers_ready
check "the servers are registered with rpcbind" start_servers
registered >/tmp/before
pids >/tmp/pids
# The connections that rpcbind has accepted end with it. Those that wait are inherited, but not on the local socket, without
# which libtirpc and the kernel call over TCP. Datagrams that come meanwhile have to be sent again.
calling -broken 2 -broken-local 2 -again 3 -by-tcp
check "replace-rpcbind installs the package" env DEBIAN_FRONTEND=noninteractive sh /bed/files/replace-rpcbind /bed/files/gportmap.deb -y
check "every call was answered meanwhile" answered
say "      $(calls)"
registered >/tmp/after
check "the same $(wc -l </tmp/before) registrations, with their owners" diff /tmp/before /tmp/after
pids >/tmp/pids.after
check "no server was started again" diff /tmp/pids /tmp/pids.after
check "rpcbind's package is gone" not installed rpcbind
for unit in rpcbind.socket gportmap-abstract.socket rpcbind.service gportmap.service portmap.service; do
  check "$unit is active" active "$unit"
done
check "the units are enabled" systemctl -q is-enabled rpcbind.service rpcbind.socket
check "no unit failed" test -z "$(systemctl --failed --no-legend)"
check "the journal says from whom it took over" logged rpcbind.service 'taken over from rpcbind \(pid [0-9]+.*[0-9]+ registrations'
pid=$(main_pid rpcbind.service)
check "rpcbind's options are kept" grep -q -z -x -e -r "/proc/$pid/cmdline"
check "systemctl status shows: $(status rpcbind.service)" sh -c 'systemctl status rpcbind.service | grep -F "Status: \"$1\""' sh "$(status rpcbind.service)"
check "not root" not grep -q '^Uid:.0' "/proc/$pid/status"
check "no capability" grep -q '^CapEff:.0000000000000000$' "/proc/$pid/status"
check "its rpcinfo is rpcinfo(8)" sh -c '/usr/sbin/rpcinfo -p >/tmp/1 && /var/cache/bed/rpcinfo -p >/tmp/2 && diff /tmp/1 /tmp/2'
check "apt and dpkg find nothing broken" sh -c 'apt-get check && [ -z "$(dpkg --audit)" ]'
rm /etc/default/rpcbind

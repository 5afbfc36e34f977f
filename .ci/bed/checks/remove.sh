#!/bin/sh
# remove.sh: the way back to rpcbind, and what a purge leaves.
. /bed/checks/lib.sh
. /bed/checks/servers.sh

servers_ready
check "the servers register" start_servers
registered >/tmp/before
pids >/tmp/pids
check "rpcbind's package is installed in place of ours" install /var/cache/bed/rpcbind_*.deb
check "our package is gone" not installed gportmap
check "rpcbind.socket is active" active rpcbind.socket
check "rpcbind.service is rpcbind's" grep -q rpcbind /proc/"$(main_pid rpcbind.service)"/comm
registered >/tmp/after
check "the same registrations" diff /tmp/before /tmp/after
pids >/tmp/pids.after
check "no server was started again" diff /tmp/pids /tmp/pids.after
check "purged" dpkg --purge gportmap
find / -xdev \( -path /proc -o -path /bed -o -path /var/cache/bed \) -prune -o -name '*gportmap*' -print | grep -v -E '^/(sys|tmp|var/log|var/cache/apt|var/lib/systemd/coredump)/' >/tmp/left
check "a purge leaves nothing" not grep . /tmp/left
check "no unit failed" test -z "$(systemctl --failed --no-legend)"

check "installed again" install /bed/files/gportmap.deb
# Packages that need a portmapper stay; it is about what our own package leaves.
check "removed, nothing in its place" dpkg --remove --force-depends gportmap
check "nobody listens on port 111" test -z "$(ss -H -l -n -t -u | grep ':111 ')"
check "rpcbind.service is gone" not systemctl cat rpcbind.service
check "no unit failed" test -z "$(systemctl --failed --no-legend)"
check "purged" dpkg --purge --force-depends gportmap

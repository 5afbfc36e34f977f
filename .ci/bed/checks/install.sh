#!/bin/sh
# install.sh: the package by apt, over an rpcbind that serves.
. /bed/checks/lib.sh

check "the package is installed" install /bed/files/gportmap.deb
check "rpcbind's package is gone" not installed rpcbind
check "rpcbind.service is active: $(status rpcbind.service)" active rpcbind.service
check "the doctor finds nothing wrong" sh -c "gportmap doctor | tee /dev/stderr | grep -q '^nothing is wrong'"
pid=$(main_pid rpcbind.service)
check "not root" not grep -q '^Uid:.0' "/proc/$pid/status"
check "no capability" grep -q '^CapEff:.0000000000000000$' "/proc/$pid/status"
check "its rpcinfo is rpcinfo(8)" sh -c '/usr/sbin/rpcinfo -p >/tmp/1 && /var/cache/bed/rpcinfo -p >/tmp/2 && diff /tmp/1 /tmp/2'
check "/sbin/rpcbind starts another one" /sbin/rpcbind --port 1111 --state-dir /run/another
check "pidof rpcbind finds that, as dracut wants" pidof rpcbind
kill "$(pidof rpcbind)"
check "no unit failed" test -z "$(systemctl --failed --no-legend)"

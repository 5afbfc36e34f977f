#!/bin/sh
# old.sh: the package on a release with an older systemd, over its rpcbind and rpc.statd.
. /bed/checks/lib.sh

check "rpc.statd is registered with rpcbind" systemctl start rpc-statd.service
registered >/tmp/before
check "the package is installed" install /bed/files/gportmap.deb
registered >/tmp/after
check "the same $(wc -l </tmp/before) registrations, with their owners" diff /tmp/before /tmp/after
for unit in gportmap.socket gportmap6.socket gportmap-abstract.socket gportmap.service rpcbind.socket rpcbind.service; do
  check "$unit is active" active "$unit"
done
check "systemctl status tells what is served" test -n "$(status gportmap.service)"
pid=$(main_pid gportmap.service)
systemctl kill -s KILL gportmap.service
check "SIGKILL: started again" within 20 another_pid gportmap.service "$pid"
registered >/tmp/after
check "SIGKILL: the same registrations" diff /tmp/before /tmp/after
check "no unit failed" test -z "$(systemctl --failed --no-legend)"

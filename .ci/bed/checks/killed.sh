#!/bin/sh
# killed.sh: the installed package is killed by SIGKILL and starts again, also by an older systemd.
. /bed/checks/lib.sh

check "rpc.statd is registered" systemctl start rpc-statd.service
registered >/tmp/before
check "systemctl status tells what is served" test -n "$(status rpcbind.service)"
pid=$(main_pid rpcbind.service)
since() { systemctl show -P ActiveEnterTimestamp rpcbind.socket; }
since_=$(since)
systemctl kill -s KILL rpcbind.service
check "SIGKILL: started again" within 20 another_pid rpcbind.service "$pid"
registered >/tmp/after
check "SIGKILL: the same registrations" diff /tmp/before /tmp/after
sleep 2
check "SIGKILL: the sockets stayed" same "$(since)" "$since_"
check "no unit failed" test -z "$(systemctl --failed --no-legend)"

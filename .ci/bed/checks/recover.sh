#!/bin/sh
# recover.sh: the daemon crashes and hangs.
. /bed/checks/lib.sh
. /bed/checks/servers.sh
. /bed/checks/callers.sh

servers_ready
check "the servers register" start_servers
same_registered() { registered | diff /tmp/before -; }

# ypserv.service says Requires=rpcbind.service: to start that again, systemd stops ypserv first, which then waits for a
# portmapper to unregister at until systemd loses patience. This is so with rpcbind as well.
systemctl stop ypserv.service
registered >/tmp/before
servers="rpc-statd.service nfs-ganesha.service"
pids >/tmp/pids
for _ in 1 2 3; do
  pid=$(main_pid rpcbind.service)
  calling -broken 1
  sleep 3 # a local connection is kept two seconds after its first call
  systemctl kill -s KILL rpcbind.service
  check "SIGKILL: started again" within 20 another_pid rpcbind.service "$pid"
  check "SIGKILL: every call was answered, no lasting local connection broke" answered
  say "      $(calls)"
  check "SIGKILL: the same registrations" within 10 same_registered
done
check "the journal tells of the crash" logged rpcbind.service 'Main process exited, code=killed, status=9/KILL'

# The watchdog's own time would make this a long check.
check "the service has a watchdog" test "$(systemctl show -P WatchdogUSec rpcbind.service)" != infinity
mkdir -p /run/systemd/system/rpcbind.service.d
printf '[Service]\nWatchdogSec=4s\n' >/run/systemd/system/rpcbind.service.d/watchdog.conf
systemctl daemon-reload
systemctl restart rpcbind.service
pid=$(main_pid rpcbind.service)
sleep 6
check "watchdog: leaves a healthy daemon alone" same "$(main_pid rpcbind.service)" "$pid"
systemctl kill -s STOP rpcbind.service
check "SIGSTOP: killed and started again" within 40 another_pid rpcbind.service "$pid"
check "SIGSTOP: the same registrations" within 10 same_registered
check "the journal tells of the hang" logged rpcbind.service '[Ww]atchdog timeout'
pids >/tmp/pids.after
check "no server was started again" diff /tmp/pids /tmp/pids.after
check "no unit failed" test -z "$(systemctl --failed --no-legend)"

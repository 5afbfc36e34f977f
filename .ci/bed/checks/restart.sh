#!/bin/sh
# restart.sh: the service is restarted, reloaded and upgraded under clients that don't stop asking.
. /bed/checks/lib.sh
. /bed/checks/servers.sh
. /bed/checks/callers.sh

servers_ready
check "the servers register" start_servers
registered | but_for_ypserv >/tmp/before
same_registered() { registered | but_for_ypserv | diff /tmp/before -; }

calling
for _ in 1 2 3; do
  systemctl reset-failed ypserv.service # how often systemd starts it again is limited
  check "systemctl restart rpcbind.service" systemctl restart rpcbind.service
  sleep .2
done
check "no call was lost or refused, no connection of this host broke" answered
say "      $(calls)"
check "the same registrations" within 10 same_registered

pid=$(main_pid rpcbind.service)
calling
check "systemctl reload rpcbind.service" systemctl reload rpcbind.service
check "a reload disturbs no caller" answered
check "it is the same process" same "$(main_pid rpcbind.service)" "$pid"

calling
check "the package is upgraded" install /bed/files/gportmap.deb
check "an upgrade disturbs no caller" answered
say "      $(calls)"
check "it is another process" another_pid rpcbind.service "$pid"
check "the same registrations" within 10 same_registered

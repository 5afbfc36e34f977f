#!/bin/sh
# control.sh: Debian's rpcbind loses registrations and callers where gportmap must not: the checks can fail.
. /bed/checks/lib.sh
. /bed/checks/servers.sh
. /bed/checks/callers.sh

servers_ready
check "rpcbind: rpc.statd, nfs-ganesha and ypserv register" start_servers
calling
check "rpcbind: restarted" systemctl restart rpcbind.service
check "rpcbind: the callers notice a restart" not answered
say "      $(calls)"
before=$(registered | wc -l)
systemctl kill -s KILL rpcbind.service
check "rpcbind: none of $before registrations is there after SIGKILL" test "$(registered | wc -l)" = 0

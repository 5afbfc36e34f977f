#!/bin/sh
# aliases.sh: units that name rpcbind's units find ours.
. /bed/checks/lib.sh
. /bed/checks/servers.sh

for name in gportmap.service portmap.service; do
  check "$name is rpcbind.service" same "$(systemctl show -P Id "$name")" rpcbind.service
done
check "gportmap.socket is rpcbind.socket" same "$(systemctl show -P Id gportmap.socket)" rpcbind.socket
servers_ready
for unit in rpc-statd.service ypserv.service nfs-ganesha.service; do
  systemctl stop $servers rpcbind.service rpcbind.socket
  systemctl reset-failed
  check "$unit names rpcbind" sh -c "systemctl cat $unit | grep -E 'rpcbind|portmap'"
  check "$unit starts with everything of ours stopped before" systemctl start "$unit"
  check "$unit: rpcbind.socket is active" active rpcbind.socket
done
check "all of them register" start_servers
check "systemctl restart rpcbind.service restarts ours" systemctl restart rpcbind.service
check "all of them are registered" within 10 all_registered
check "systemctl stop rpcbind.socket rpcbind.service stops ours" systemctl stop rpcbind.socket rpcbind.service
check "rpcbind.service is stopped" inactive rpcbind.service
check "systemctl start rpcbind.socket starts ours" systemctl start rpcbind.socket
# Systemd has stopped those that say Requires=; nfs-ganesha doesn't.
check "nfs-ganesha is still registered" rpcinfo -T tcp 127.0.0.1 100003 3

#!/bin/sh
# kernel-control.sh: what Debian's rpcbind does to the kernel's NFS server: after a restart the kernel's unregistering is lost.
. /bed/checks/lib.sh
. /bed/checks/nfs.sh
nfs_ready

check "rpcbind: nfs-server starts" systemctl start nfs-server.service
check "rpcbind: NFS mounted" mounted
check "rpcbind: NLM lock" locked
check "rpcbind: unmounted" umount /mnt/nfs
check "rpcbind: nfs-server stops" systemctl stop nfs-server.service
check "rpcbind: nothing is left" nothing_of_nfs
systemctl start nfs-server.service
of_nfs >/tmp/before
systemctl restart rpcbind.service
check "rpcbind: nfs-server stops after a restart of rpcbind" systemctl stop nfs-server.service
left=$(of_nfs | wc -l)
check "rpcbind: $left registrations of the kernel stay behind for ever" test "$left" -ge 11
systemctl start nfs-server.service
systemctl stop nfs-server.service

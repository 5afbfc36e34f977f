#!/bin/sh
# kernel-replace.sh: the package in the place of an rpcbind with which the kernel's NFS server is registered, with a mount in
# use; run after kernel-control.sh.
. /bed/checks/lib.sh
. /bed/checks/nfs.sh

check "nfs-server starts" systemctl start nfs-server.service
registered >/tmp/before
check "NFS mounted" mounted
check "replace-rpcbind installs the package" env DEBIAN_FRONTEND=noninteractive sh /bed/files/replace-rpcbind /bed/files/gportmap.deb -y
registered >/tmp/after
check "the same $(wc -l </tmp/before) registrations, with their owners" diff /tmp/before /tmp/after
check "NLM lock" locked
check "gportmap restarted" systemctl restart rpcbind.service
check "unmounted" umount /mnt/nfs
check "nfs-server stops" systemctl stop nfs-server.service
check "nothing is left: the kernel's connection to rpcbind was taken over" nothing_of_nfs

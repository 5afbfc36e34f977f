#!/bin/sh
# kernel-restart.sh: the kernel's NFS server while gportmap is restarted and killed; run after kernel-replace.sh.
. /bed/checks/lib.sh
. /bed/checks/nfs.sh

check "nfs-server starts" systemctl start nfs-server.service
for want in "tcp 127.0.0.1 100003 3" "udp 127.0.0.1 100003 3" "tcp 127.0.0.1 100005 3" "tcp 127.0.0.1 100021 4" \
  "udp 127.0.0.1 100021 4" "tcp 127.0.0.1 100024 1" "tcp6 ::1 100003 3" "udp6 ::1 100021 4"; do
  check "registered and serving: $want" rpcinfo -T $want
done
of_nfs >/tmp/before
same_of_nfs() { of_nfs | diff /tmp/before -; }
check "NFS mounted" mounted
check "NLM lock" locked
check "gportmap restarted" systemctl restart rpcbind.service
check "the same registrations" same_of_nfs
check "NLM lock" locked
pid=$(main_pid rpcbind.service)
systemctl kill -s KILL rpcbind.service
check "gportmap killed and started again" within 60 another_pid rpcbind.service "$pid"
check "the same registrations" same_of_nfs
check "NLM lock" locked
check "unmounted" umount /mnt/nfs
check "nfs-server stops" systemctl stop nfs-server.service
check "nothing is left" nothing_of_nfs
check "nfs-server starts again" systemctl start nfs-server.service
check "the same registrations" sh -c '[ "$(wc -l </tmp/before)" = "$(/var/cache/bed/rpcinfo | awk "NR > 1 && \$1 != 100000 && \$1 != 100024" | wc -l)" ]'
check "NFS mounted" mounted
check "unmounted" umount /mnt/nfs
check "nfs-server stops" systemctl stop nfs-server.service
check "nothing is left" nothing_of_nfs

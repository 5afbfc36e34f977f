#!/bin/sh
# apparmor.sh: rpcbind.service is confined by its profile, which has let it do all that it did since the machine was started;
# run last, because at the end the package is purged.
. /bed/checks/lib.sh

label() { cat "/proc/$1/attr/apparmor/current"; }
denied() { journalctl -b --no-pager -o cat | grep 'apparmor="DENIED"'; }

pid=$(main_pid rpcbind.service)
check "confined by AppArmor" same "$(label "$pid")" "gportmap (enforce)"
check "to see that this can fail: /etc/shadow refused" not aa-exec -p gportmap -- /bin/sh -c ': </etc/shadow'
check "and logged" within 10 sh -c 'journalctl -b --no-pager -o cat | grep "apparmor=\"DENIED\".*/etc/shadow"'
check "reloaded" systemctl reload rpcbind.service
check "by a signal that came" within 10 logged rpcbind.service 'SIGHUP: reloaded'
check "answers as ever" rpcinfo -T udp 127.0.0.1 100000 2
check "root's commands aren't confined: gportmap status" gportmap status
systemctl stop rpcbind.service rpcbind.socket
echo junk >>/run/rpcbind/rpcbind.xdr
check "started on a damaged state file" systemctl start rpcbind.service
check "which is kept beside" test -s /run/rpcbind/rpcbind.xdr.damaged
rm -f /run/rpcbind/*.damaged
check "stopped" systemctl stop rpcbind.service rpcbind.socket
denied | grep -v '"/etc/shadow"' >/tmp/denied
check "nothing else refused" not test -s /tmp/denied
cat /tmp/denied
check "purged" dpkg --purge --force-depends gportmap
check "no profile is left in the kernel" not grep -w gportmap /sys/kernel/security/apparmor/profiles
check "nor in files" test -z "$(find /etc/apparmor.d /var/cache/apparmor -name gportmap)"

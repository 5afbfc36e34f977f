#!/bin/sh
# boot.sh: a machine that was started with the package in it.
. /bed/checks/lib.sh

# reached UNIT: when it became active, in µs since the start
reached() { systemctl show -P ActiveEnterTimestampMonotonic "$1"; }
earlier() { [ "$(reached "$1")" -gt 0 ] && [ "$(reached "$1")" -le "$(reached "$2")" ]; }

check "the machine runs, no unit failed" same "$(systemctl is-system-running)" running
for unit in rpcbind.socket gportmap-abstract.socket rpcbind.service; do
  check "$unit is active" active "$unit"
  check "$unit is there before remote-fs-pre.target" earlier "$unit" remote-fs-pre.target
done
check "rpcbind.target is reached after it" earlier rpcbind.socket rpcbind.target
check "no cycle was broken" not sh -c 'journalctl -b --no-pager | grep -i "ordering cycle"'
check "nothing but the portmapper is registered" test -z "$(registered)"
check "it serves" rpcinfo -T tcp 127.0.0.1 100000 4

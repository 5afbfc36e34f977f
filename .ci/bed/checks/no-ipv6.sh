#!/bin/sh
# no-ipv6.sh: IPv6 is switched off: by sysctl, or in a virtual machine for the whole kernel.
. /bed/checks/lib.sh

if [ -e /proc/net/if_inet6 ]; then
  sysctl -q -w net.ipv6.conf.all.disable_ipv6=1
else
  check "rpcbind.service is active" active rpcbind.service
  check "rpcbind.socket leaves IPv6 out" not sh -c 'systemctl show -P Listen rpcbind.socket | grep -F "[::]"'
  check "its answers: $(status rpcbind.service)" not sh -c 'systemctl show -P StatusText rpcbind.service | grep 6'
  # Until it becomes agetty, which is the last thing at boot and may take 5 s, a process of systemd's has copies of all sockets
  # that systemd has, so that the abstract one couldn't be bound anew.
  check "the boot is over" within 30 pgrep -x agetty
fi
systemctl stop rpcbind.socket rpcbind.service
check "rpcbind.socket starts without IPv6" systemctl start rpcbind.socket
check "it serves UDP" rpcinfo -T udp 127.0.0.1 100000 2
check "it serves TCP" rpcinfo -T tcp 127.0.0.1 100000 4
check "it serves the local socket" rpcinfo -p
check "rpcbind.service restarts" systemctl restart rpcbind.service
check "it serves" rpcinfo -p
check "rpc-statd starts" systemctl start rpc-statd.service
check "rpc.statd is registered" rpcinfo -T tcp 127.0.0.1 100024 1
check "no unit of ours failed" not sh -c 'systemctl --failed --no-legend | grep gportmap'

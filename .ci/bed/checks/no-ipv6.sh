#!/bin/sh
# no-ipv6.sh: IPv6 is switched off: by sysctl, or in a virtual machine for the whole kernel.
. /bed/checks/lib.sh

if [ -e /proc/net/if_inet6 ]; then
  sysctl -q -w net.ipv6.conf.all.disable_ipv6=1
else
  check "gportmap.service is active" active gportmap.service
  check "gportmap6.socket is skipped" same "$(systemctl show -P ConditionResult gportmap6.socket)" no
  check "its answers: $(status gportmap.service)" not sh -c 'systemctl show -P StatusText gportmap.service | grep 6'
  # Until it becomes agetty, which is the last thing at boot and may take 5 s, a process of systemd's has copies of all sockets
  # that systemd has, so that the abstract one couldn't be bound anew.
  check "the boot is over" within 30 pgrep -x agetty
fi
systemctl stop gportmap.socket gportmap6.socket gportmap.service
check "gportmap.socket starts without IPv6" systemctl start gportmap.socket
check "it serves UDP" rpcinfo -T udp 127.0.0.1 100000 2
check "it serves TCP" rpcinfo -T tcp 127.0.0.1 100000 4
check "it serves the local socket" rpcinfo -p
check "gportmap.service restarts" systemctl restart gportmap.service
check "it serves" rpcinfo -p
check "rpc-statd starts" systemctl start rpc-statd.service
check "rpc.statd is registered" rpcinfo -T tcp 127.0.0.1 100024 1
check "no unit of ours failed" not sh -c 'systemctl --failed --no-legend | grep gportmap'

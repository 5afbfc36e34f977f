#!/bin/sh
# activation.sh: a call over any of the sockets starts the service, and is answered.
. /bed/checks/lib.sh

sockets="rpcbind.socket gportmap-abstract.socket"

# activated WHAT COMMAND...: with nothing but the sockets there, the command succeeds and the service runs
activated() {
  systemctl -q stop $sockets rpcbind.service
  systemctl reset-failed $sockets rpcbind.service 2>/dev/null || :
  systemctl start $sockets
  inactive rpcbind.service || return
  timeout 20 "$@" || return
  within 10 active rpcbind.service # it answers before systemd has read that it is ready
}

check "the local socket, by path" activated /var/cache/bed/rpcinfo -p
check "the local socket, abstract" activated gportmap list --socket @/run/rpcbind.sock
for how in "tcp 127.0.0.1" "udp 127.0.0.1" "tcp6 ::1" "udp6 ::1"; do
  for version in 2 3 4; do
    check "${how%% *}, version $version" activated /var/cache/bed/rpcinfo -T $how 100000 "$version"
  done
done
check "a list over TCP" activated /var/cache/bed/rpcinfo -p 127.0.0.1
check "it serves these sockets and no others" same "$(ss -H -l -n -t -u -x | grep -c -E ':111 |/run/rpcbind.sock')" 6
check "and has none of its own" test -z "$(ss -H -l -n -t -u -p | grep gportmap | grep -v ':111 ')"
check "a stopped service leaves the sockets" systemctl stop rpcbind.service
check "which start it again" rpcinfo -p
check "no unit failed" test -z "$(systemctl --failed --no-legend)"

#!/bin/sh
# neighbours.sh: an unprivileged user who holds every lock, name, path and socket that such a user can hold (see
# internal/bed/neighbour), before, during and after installation, restart, crash, reboot of the units and removal: port 111 is
# served by us, with the registrations that there were.
. /bed/checks/lib.sh

neighbour=/bed/files/neighbour
has() { grep -q -x "got $1" /tmp/neighbour; }
register() { rpcinfo -T tcp 127.0.0.1 100000 2 && gportmap set "$1" 1 udp "0.0.0.0.8.$2"; }
# served: by rpcbind.service, which answers on each transport, with the registrations of before
served() {
  within 20 active rpcbind.service || return
  for how in "udp 127.0.0.1" "tcp 127.0.0.1"; do
    within 10 rpcinfo -T $how 100000 4 || return
  done
  gportmap status || return
  registered | diff /tmp/before -
}

# With rpcbind, whose lock file everybody may lock as soon as it is there.
check "rpcbind serves" within 20 rpcinfo -T tcp 127.0.0.1 100000 2
rm -rf /run/lock/subsys
install -d -m 1777 /run/lock 2>/dev/null || chmod 1777 /run/lock
setpriv --reuid=54321 --regid=54321 --clear-groups "$neighbour" >/tmp/neighbour 2>&1 &
neighbour_pid=$!
check "the neighbour has the abstract name" within 10 has @/run/rpcbind.sock
check "the neighbour has /run/lock/subsys" within 10 has /run/lock/subsys
registered >/tmp/before
check "the package is installed" install /bed/files/gportmap.deb
check "served after the installation" served
check "rpcbind.socket is active" active rpcbind.socket
check "gportmap-abstract.socket is not" inactive gportmap-abstract.socket
check "status tells who has the abstract name" sh -c 'gportmap status | grep -F @/run/rpcbind.sock | grep -F "user 54321"'
check "a registration" register 400001 1
check "another" register 400002 2
registered >/tmp/before
check "both are there" test "$(grep -c '^40000' /tmp/before)" = 2

check "restart" systemctl restart rpcbind.service
check "served after a restart" served
check "stop and start of everything" sh -c 'systemctl stop rpcbind.socket rpcbind.service && systemctl start rpcbind.service'
check "served after stop and start" served
pid=$(main_pid rpcbind.service)
systemctl kill -s KILL rpcbind.service
check "SIGKILL: started again" within 20 another_pid rpcbind.service "$pid"
check "served after SIGKILL" served
# What is left of rpcbind's package: its purge removes socket, lock and state.
check "rpcbind is purged" dpkg --purge rpcbind
check "served after the purge" within 30 served
# Rpcbind's lock is the neighbour's now, if any user can get it.
touch /run/rpcbind.lock && chmod 444 /run/rpcbind.lock
sleep 1
check "restart with another's lock" systemctl restart rpcbind.service
check "served with another's lock" served

# By hand and by the init script's commands.
systemctl stop rpcbind.socket rpcbind.service
check "start by hand" gportmap
check "by hand: it serves" rpcinfo -T udp 127.0.0.1 100000 4
registered >/tmp/after
check "by hand: the same registrations" diff /tmp/before /tmp/after
check "the unit takes over" gportmap takeover
check "served after a takeover" served

kill "$neighbour_pid"
wait "$neighbour_pid"
check "with the neighbour gone, a restart" systemctl restart rpcbind.service
check "gportmap-abstract.socket is active" within 10 active gportmap-abstract.socket
check "the abstract socket is served" gportmap list --socket @/run/rpcbind.sock
check "served at the end" served

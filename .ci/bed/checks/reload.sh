#!/bin/sh
# reload.sh: a reload is told its result, and a start with a wrong configuration fails once.
. /bed/checks/lib.sh
. /bed/checks/servers.sh

toml=/etc/gportmap.toml
failures() { journalctl -b --no-pager -o cat -u rpcbind.service | grep -c 'Main process exited, code=exited, status=78'; }

pid=$(main_pid rpcbind.service)
gportmap set 300123 1 tcp 127.0.0.1.3.9
check "a reload without a file" systemctl reload rpcbind.service
echo 'exposure = "local"' >$toml
check "a reload with a right file" systemctl reload rpcbind.service
echo 'expsure = "local"' >$toml
check "a reload with a wrong file fails" not systemctl reload rpcbind.service
check "and says why" within 5 logged rpcbind.service 'unknown key "expsure"'
check "gportmap reload says so, too" sh -c 'gportmap reload 2>&1 | grep "unknown key"'
rm $toml
check "a reload without the file that was there fails" not systemctl reload rpcbind.service
check "and says why" within 5 logged rpcbind.service "$toml is gone"
check "the service runs on: $(status rpcbind.service)" same "$(main_pid rpcbind.service)" "$pid"
check "active" active rpcbind.service
echo 'exposure = "local"' >$toml
check "a reload when it is back" systemctl reload rpcbind.service

# Clients that don't stop coming.
echo 'expsure = "local"' >$toml
( { set +x; } 2>/dev/null; while [ ! -e /tmp/enough ]; do timeout 1 /var/cache/bed/rpcinfo -p >/dev/null 2>&1; timeout 1 /var/cache/bed/rpcinfo -T udp 127.0.0.1 100000 2 >/dev/null 2>&1; done ) &
callers=$!
before=$(failures)
check "a restart with a wrong file fails" not systemctl restart rpcbind.service
sleep 5
n=$(($(failures) - before))
check "it was tried once ($n)" test "$n" -eq 1
check "the sockets are stopped" inactive rpcbind.socket
check "callers are refused at once" not timeout 1 /var/cache/bed/rpcinfo -T tcp 127.0.0.1 100000 2
check "systemd is idle" test -z "$(systemctl list-jobs --no-legend)"
echo 'exposure = "local"' >$toml
check "repaired, it starts" systemctl start rpcbind.service
check "with its sockets" active rpcbind.socket
touch /tmp/enough
wait "$callers"
check "and every registration" sh -c 'gportmap list | grep 300123'

# A daemon that crashes keeps its sockets, and starts again.
for _ in 1 2 3 4 5 6; do
  pid=$(main_pid rpcbind.service)
  systemctl kill -s KILL rpcbind.service
  check "SIGKILL: started again" within 20 another_pid rpcbind.service "$pid"
done
check "the sockets stayed" active rpcbind.socket
rm $toml
systemctl restart rpcbind.service
check "no unit failed" test -z "$(systemctl --failed --no-legend)"

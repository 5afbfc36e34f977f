#!/bin/sh
# plain.sh: the package by apt alone, over an rpcbind with rpc.statd and ypserv; then the rests of rpcbind's package are purged.
. /bed/checks/lib.sh
. /bed/checks/servers.sh
. /bed/checks/callers.sh

echo bed >/etc/defaultdomain
running=
for unit in rpc-statd.service ypserv.service; do
  if systemctl cat "$unit" >/dev/null; then
    check "$unit starts" systemctl start "$unit"
    running="$running $unit"
  fi
done
programs() { rpcinfo | awk 'NR > 1 && $1 != 100000 { print $1, $2, $3 }' | sort; }
listed() { rpcinfo | grep -q "^ *$1 "; }
check "rpc.statd is registered with rpcbind" within 20 listed 100024
# A server registers after its unit has started.
case $running in *ypserv*) check "ypserv is registered with rpcbind" within 20 listed 100004 ;; esac
sleep 1
programs >/tmp/before
called="100000 2" # rpc.statd is started again, and has another port
calling
check "the package is installed" install /bed/files/gportmap.deb
answered # not by rpcbind, which apt stops; how long is of interest
say "      $(calls)"
check "rpcbind's package is gone" not installed rpcbind
for unit in $running rpcbind.service rpcbind.socket gportmap.service; do check "$unit is active" within 10 active "$unit"; done
check "they are enabled" systemctl -q is-enabled rpcbind.service rpcbind.socket
same_programs() { programs | diff /tmp/before -; }
check "the same programs are registered" within 10 same_programs
check "the service is ours" logged rpcbind.service 'started: serving'
check "no unit failed" test -z "$(systemctl --failed --no-legend)"
check "gportmap doctor: nothing is wrong" sh -c 'gportmap doctor | tee /dev/stderr | grep -q "nothing is wrong"'
check "apt and dpkg find nothing broken" sh -c 'apt-get check && [ -z "$(dpkg --audit)" ]'
pid=$(main_pid rpcbind.service)
check "the rests of rpcbind's package are purged" dpkg --purge rpcbind
check "the same programs are registered after that" within 10 same_programs
check "the units are enabled after that" systemctl -q is-enabled rpcbind.service rpcbind.socket
check "the local socket is there" rpcinfo -p
check "no unit failed after that" test -z "$(systemctl --failed --no-legend)"
systemctl restart rpcbind.service
check "the same programs after a restart" within 10 same_programs

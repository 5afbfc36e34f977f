#!/bin/sh
# units.sh [rpcbind]: whatever an administrator does to rpcbind's units has the same effect with our package. With "rpcbind" the
# same checks run with rpcbind's package: they say what that effect is. The machine is then booted again for masked.sh.
. /bed/checks/lib.sh

if [ "${1-}" = rpcbind ]; then
  names=rpcbind
else
  check "the package is installed" install /bed/files/gportmap.deb
  names="rpcbind gportmap"
fi

# listeners: the addresses of port 111 that are bound, sorted, in one line
listeners() { ss -H -l -n -t -u | awk '$5 ~ /:111$/ { print $1, $5 }' | sort | tr '\n' ',' | sed 's/%lo//g'; }
all="tcp 0.0.0.0:111,tcp [::]:111,udp 0.0.0.0:111,udp [::]:111,"
closed() { [ -z "$(listeners)" ]; }
serves() { active rpcbind.socket && rpcinfo -T tcp 127.0.0.1 100000 4; }
# Newer rpcbinds also bind what the socket unit leaves out.
not_of_newer_rpcbinds() { [ "$names" = rpcbind ] || check "$@"; }
reset() { systemctl reset-failed rpcbind.service rpcbind.socket 2>/dev/null || :; }

for name in $names; do
  reset
  check "$name: stop closes the port" eval "systemctl stop $name.socket $name.service && closed"
  check "$name: start $name.service" eval "systemctl start $name.service && serves"
  check "$name: start without a suffix" eval "systemctl stop $name.socket $name && systemctl start $name && serves"
  check "$name: all addresses are bound" same "$(listeners)" "$all"
  reset
  pid=$(main_pid rpcbind.service)
  check "$name: restart" eval "systemctl restart $name.service && another_pid rpcbind.service $pid && serves"
  check "$name: try-restart" systemctl try-restart "$name.service"
  check "$name: is-active" same "$(systemctl is-active "$name.service")" active
  check "$name: restart of the socket" eval "systemctl restart $name.socket && within 10 serves"
  check "$name: disable" eval "systemctl disable $name.service $name.socket && not systemctl -q is-enabled rpcbind.service rpcbind.socket"
  check "$name: it serves on" serves
  check "$name: enable --now" eval "systemctl stop $name.socket $name.service; systemctl enable --now $name.service $name.socket && serves"
  check "$name: is-enabled" systemctl -q is-enabled "$name.service" "$name.socket"
  check "$name: disable --now closes the port" eval "systemctl disable --now $name.socket $name.service && closed"
  reset
  check "$name: enable $name, as install scripts do" eval "systemctl enable --now $name && serves"
  check "$name: enable twice" systemctl enable "$name"
  # By the real name: systemd 262 ignores an alias here, without an error.
  check "$name: preset" eval "systemctl disable $name.service && systemctl preset rpcbind.service && systemctl -q is-enabled rpcbind.service"
  check "$name: enabled means the socket as well" eval "systemctl enable $name.service && systemctl -q is-enabled rpcbind.socket"
done
check "is-enabled says enabled" same "$(systemctl is-enabled rpcbind.service)" enabled
check "journalctl -u rpcbind shows the service" logged rpcbind 'Started'

reset
mkdir -p /etc/systemd/system/rpcbind.socket.d
printf '[Socket]\nListenStream=\nListenDatagram=\nListenStream=/run/rpcbind.sock\nListenStream=127.0.0.1:111\nListenDatagram=127.0.0.1:111\n' \
  >/etc/systemd/system/rpcbind.socket.d/override.conf
again() { systemctl daemon-reload && systemctl stop rpcbind.socket rpcbind.service && systemctl start rpcbind.socket rpcbind.service && serves; }
check "systemctl edit: a drop-in with other addresses" again
not_of_newer_rpcbinds "nothing else is bound" same "$(listeners)" "tcp 127.0.0.1:111,udp 127.0.0.1:111,"
rm -r /etc/systemd/system/rpcbind.socket.d
reset
printf '[Unit]\nDescription=own\n[Socket]\nListenStream=/run/rpcbind.sock\nListenStream=127.0.0.1:111\n[Install]\nWantedBy=sockets.target\n' \
  >/etc/systemd/system/rpcbind.socket
check "an own rpcbind.socket in /etc" again
not_of_newer_rpcbinds "nothing else is bound" same "$(listeners)" "tcp 127.0.0.1:111,"
rm /etc/systemd/system/rpcbind.socket
reset
mkdir -p /etc/systemd/system/rpcbind.service.d
printf '[Service]\nEnvironment=BED=1\n' >/etc/systemd/system/rpcbind.service.d/bed.conf
check "a drop-in for rpcbind.service" again
check "counts" sh -c 'tr "\0" "\n" </proc/"$(systemctl show -P MainPID rpcbind.service)"/environ | grep -x BED=1'
rm -r /etc/systemd/system/rpcbind.service.d
reset
check "as before" again
check "all addresses are bound again" same "$(listeners)" "$all"
check "mask" systemctl mask rpcbind.service rpcbind.socket
systemctl stop rpcbind.service rpcbind.socket
check "masked: closed" closed
check "masked: start is refused" not systemctl start rpcbind.service
for name in $names; do check "masked: $name isn't started by its socket either" not systemctl start "$name.socket"; done
check "unmask" eval "systemctl unmask rpcbind.service rpcbind.socket && systemctl start rpcbind.service && serves"
check "masked for the next boot" systemctl mask rpcbind.service rpcbind.socket

#!/bin/sh
# takeover.sh: gportmap takeover, interrupted at any moment: one portmapper serves afterwards, in its unit, with every
# registration.
. /bed/checks/lib.sh

echo 'OPTIONS="-w"' >/etc/default/rpcbind
systemctl restart rpcbind.service
dpkg-deb -x /bed/files/gportmap.deb /tmp/package
cp /tmp/package/usr/sbin/gportmap /usr/sbin/gportmap
# As make install does beside rpcbind's package: our units hide the package's.
ours=/usr/local/lib/systemd/system
our_units() {
  mkdir -p $ours
  cp -P /tmp/package/usr/lib/systemd/system/* $ours/
  systemctl daemon-reload
}
within 10 rpcinfo -T tcp 127.0.0.1 100000 2
for program in 400001 400002 400003; do gportmap set "$program" 1 tcp "0.0.0.0.8.1"; done
registered >/tmp/before
check "three programs are registered with rpcbind" same "$(wc -l </tmp/before)" 3

same_registered() { registered | diff /tmp/before -; }
serving() { # the name of the one portmapper that runs, as the main process of the unit
  pids=$(pidof rpcbind gportmap)
  [ "$pids" != "$(main_pid rpcbind.service)" ] || cat "/proc/$pids/comm"
}
one() { [ -n "$(serving)" ]; }

our_units
systemctl mask --runtime gportmap.service
check "a masked unit: nothing is changed" not gportmap takeover
check "a masked unit: rpcbind serves" same "$(serving)" rpcbind
systemctl unmask --runtime gportmap.service

back_to_rpcbind() {
  rm -r $ours
  systemctl daemon-reload
  systemctl stop rpcbind.socket rpcbind.service
  systemctl start rpcbind.socket rpcbind.service
  within 10 same_registered && our_units
}
begun=$(date +%s%N)
check "a takeover that nobody interrupts" gportmap takeover
span=$((($(date +%s%N) - begun) / 1000000))
check "gportmap serves, as its unit" same "$(serving)" gportmap
check "every registration is there" same_registered
back_to_rpcbind

# How long one takes depends on the machine.
kept=0 back=0
for part in 1 4 7 9 11 12 13 14 15 16 17 18 19 20 21; do
  after=$(awk "BEGIN { print $span * $part / 20000 }")
  for signal in INT TERM; do
    timeout -s "$signal" "$after" gportmap takeover
    code=$?
    check "$signal after $after s of $span ms: one portmapper serves, in its unit ($code: $(serving))" within 10 one
    check "$signal after $after s: every registration is there" within 10 same_registered
    if [ "$(serving)" = gportmap ]; then
      kept=$((kept + 1))
      back_to_rpcbind
    else
      back=$((back + 1))
    fi
  done
done
say "      $back times rpcbind serves on or again, $kept times gportmap serves"

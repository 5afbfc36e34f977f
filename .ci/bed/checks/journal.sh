#!/bin/sh
# journal.sh: what systemd's journal has of gportmap, by its fields and MESSAGE_IDs (docs/logging.md).
. /bed/checks/lib.sh

started=0dc3a9277c3c4e3ba5fc087b921a4f69
stopped=7838ed7d44994b25a5f360be857c7089
refused=e64f5c764af14624883d6663d9cb5189
state=73d460582a664f9c857ff44b13f3af0f
dir=/run/journal-check
unit=journal-check.service

# found EXPRESSION...: a record of the unit has all these fields; the journal is written a moment later
found() { journalctl -b -q --no-pager -o cat _SYSTEMD_UNIT=$unit "$@" | grep -q .; }
# how_many FIELD=VALUE: so many records have it
how_many() { journalctl -b -q --no-pager -o cat _SYSTEMD_UNIT=$unit "$1" | wc -l; }
gportmap() { /bed/files/gportmap "$@"; }

mount -t tmpfs -o size=64k tmpfs /mnt
systemd-run -q --unit=$unit /bed/files/gportmap -f --port 1111 --state-dir $dir
check "journal: a start is found by its MESSAGE_ID" within 10 found MESSAGE_ID=$started
check "journal: under the name of the program" within 5 found SYSLOG_IDENTIFIER=gportmap PRIORITY=6
gportmap set --socket $dir/rpcbind.sock 300000 1 tcp 0.0.0.0.8.1
setpriv --reuid 65534 --clear-groups /bed/files/gportmap unset --socket $dir/rpcbind.sock 300000 1 tcp
check "journal: a refused registration, by MESSAGE_ID and every field" within 5 found MESSAGE_ID=$refused RPC_PROG=300000 \
  RPC_VERS=1 RPC_PROC=UNSET RPC_NETID=tcp "PEER=uid 65534" OWNER=65534 HOLDER=superuser "ERROR=registered by another owner" VERDICT=no PRIORITY=4
check "journal: in one record" same "$(how_many RPC_PROG=300000)" 1
check "journal: not by another program's number" not found MESSAGE_ID=$refused RPC_PROG=300001
tries=0
while [ $tries -lt 30 ]; do
  setpriv --reuid 65534 --clear-groups /bed/files/gportmap unset --socket $dir/rpcbind.sock 300000 1 tcp
  tries=$((tries + 1))
done
check "journal: of 31 refusals 10 are there" within 5 eval 'same "$(how_many MESSAGE_ID=$refused)" 10'
systemctl stop $unit
check "journal: a stop is found by its MESSAGE_ID" within 5 found MESSAGE_ID=$stopped
check "journal: it says how many were left out" logged $unit '^[0-9]+ more like it were not logged: registration refused$'

# A state that can't be written: its disk is full when it has to grow.
unit=journal-state.service
mkdir -p /mnt/s
systemd-run -q --unit=$unit /bed/files/gportmap -f --port 1112 --state-dir /mnt/s --socket /run/journal-state.sock
within 10 found MESSAGE_ID=$started
gportmap set --socket /run/journal-state.sock 300000 1 tcp 0.0.0.0.8.1
dd if=/dev/zero of=/mnt/fill bs=4k
tries=0
while [ $tries -lt 100 ]; do # some 60 octets each
  tries=$((tries + 1))
  gportmap set --socket /run/journal-state.sock $((300000 + tries)) 1 tcp 0.0.0.0.8.1
done
check "journal: a state that can't be written" within 5 found MESSAGE_ID=$state PRIORITY=3
systemctl stop $unit
umount /mnt

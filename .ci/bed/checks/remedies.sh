#!/bin/sh
# remedies.sh: what gportmap says when rpcbind's units are in its way is carried out word by word; then gportmap serves port 111
# with every registration. See TestRemedies for what needs no systemd.
. /bed/checks/lib.sh

cp /bed/files/gportmap /usr/local/sbin/gportmap
rpcbind_serves() { systemctl start rpcbind.socket rpcbind.service && gportmap getaddr 100000 2 tcp; }
served() { gportmap status | grep -q '^running' && gportmap list | grep -Eq '^300000 +1 +udp +51201 ' && rpcinfo -T udp 127.0.0.1 100000 2; }
# remedy NUMBER: the one of that number in the error of a start
remedy() { gportmap 2>&1 | sed -n 's/.*remedy: //p' | awk -F', or ' -v n="$1" '{print $n}'; }

check "rpcbind serves" rpcbind_serves
check "a registration" gportmap set 300000 1 udp 0.0.0.0.200.1
for situation in both socket; do
  for number in 1 2; do
    check "rpcbind is back" rpcbind_serves
    [ "$situation" = both ] || systemctl stop rpcbind.service 2>/dev/null
    command=$(remedy $number)
    check "a command: $command" test -n "$command"
    check "which succeeds" sh -c "$command"
    gportmap status >/dev/null || check "gportmap starts" gportmap
    check "with every registration" served
    check "the doctor finds nothing wrong" sh -c "gportmap doctor | grep -q 'nothing is wrong'"
    check "and stops" gportmap stop
  done
done
rm /usr/local/sbin/gportmap

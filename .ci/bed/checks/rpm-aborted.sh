#!/bin/sh
# rpm-aborted.sh: while rpm installs the package nobody may stop its units. If rpm is killed they can be stopped again.
. /bed/checks/lib.sh

systemctl stop rpcbind.socket rpcbind.service
sh -c 'sh /bed/files/rpm-post 1; exec sleep 100' &
rpm=$!
check "rpm's script ran" within 10 test -e /run/systemd/system/rpcbind.service.d/gportmap-installing.conf
check "rpcbind.service starts" within 10 systemctl start rpcbind.service
check "and may not be stopped" within 10 not systemctl stop rpcbind.service
check "it is active" active rpcbind.service
kill -9 $rpm
check "it may be stopped when rpm was killed" within 20 systemctl stop rpcbind.socket rpcbind.service
check "nothing of it is left" test -z "$(find /run/systemd/system -name '*installing*')"
check "started again" systemctl start rpcbind.service

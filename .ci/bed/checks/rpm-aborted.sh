#!/bin/sh
# rpm-aborted.sh: while rpm installs the package nobody may stop its units. If rpm is killed they can be stopped again.
. /bed/checks/lib.sh

systemctl stop gportmap.socket gportmap6.socket gportmap.service
sh -c 'sh /bed/files/rpm-post 1; exec sleep 100' &
rpm=$!
check "rpm's script ran" within 10 test -e /run/systemd/system/gportmap.service.d/gportmap-installing.conf
check "gportmap.service starts" within 10 systemctl start gportmap.service
check "and may not be stopped" within 10 not systemctl stop gportmap.service
check "it is active" active gportmap.service
kill -9 $rpm
check "it may be stopped when rpm was killed" within 20 systemctl stop gportmap.socket gportmap6.socket gportmap.service
check "nothing of it is left" test -z "$(find /run/systemd/system -name '*installing*')"
check "started again" systemctl start gportmap.service

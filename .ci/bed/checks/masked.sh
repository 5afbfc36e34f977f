#!/bin/sh
# masked.sh: the machine was booted with rpcbind's units masked, after units.sh.
. /bed/checks/lib.sh

check "nobody listens on port 111" test -z "$(ss -H -l -n -t -u | grep ':111 ')"
check "rpcbind.service is masked" same "$(systemctl is-enabled rpcbind.service)" masked
check "unmasked and started" eval "systemctl unmask rpcbind.service rpcbind.socket && systemctl start rpcbind.service && rpcinfo -p"
check "no unit of rpcbind's failed" not sh -c 'systemctl --failed --no-legend | grep -E "rpcbind|gportmap"'
